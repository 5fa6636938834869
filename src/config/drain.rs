//! How a server ends, and how long its connections live.

use std::time::Duration;

use super::context::ServerKind;
use super::kinds::{Number, Span};
use super::setting::{Scope, Section, Setting};
use super::values::Values;

pub(super) const DRAIN_SECONDS: Setting<Number<u64>> =
    Setting::new("WS_DRAIN_SECONDS", "drain-seconds", Scope::Serve, Number::new(0, 3_600))
        .default("10")
        .unit("seconds")
        .help(
            "from SIGTERM to the close of the last client, each told to connect again at a moment \
             of its own; 0 closes all at once",
        );

pub(super) const DRAIN_READY_DELAY: Setting<Number<u64>> = Setting::new(
    "WS_DRAIN_READY_DELAY_SECONDS",
    "drain-ready-delay-seconds",
    Scope::Serve,
    Number::new(0, 3_600),
)
.default("0")
.unit("seconds")
.help("how much of it passes, with /ready failing, before the listener closes");

/// The longest life that can be set is a week.
pub(super) const MAX_CONNECTION_AGE: Setting<Span> = Setting::new(
    "WS_MAX_CONNECTION_AGE",
    "max-connection-age",
    Scope::Serve,
    Span::zero_or(
        Duration::from_secs(1),
        Duration::from_secs(7 * 86_400),
        "0 for no bound, or from 1s to 168h",
    ),
)
.default("0")
.unit("duration")
.help("age, give or take a fifth, at which a client is asked to connect again: 30m, 2h; 0: none");

pub(super) const SECTION: Section = Section {
    name: "drain",
    title: "Drain and age",
    settings: &[&DRAIN_SECONDS, &DRAIN_READY_DELAY, &MAX_CONNECTION_AGE],
};

/// How the clients leave before the server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainConfig {
    /// From the signal to the moment when the last client is closed; 0 closes all at once.
    pub deadline: Duration,
    /// How much of it passes, with `/ready` failing, before the listeners close.
    pub ready_delay: Duration,
}

impl DrainConfig {
    /// Everything is closed at once.
    pub const AT_ONCE: Self = Self { deadline: Duration::ZERO, ready_delay: Duration::ZERO };
}

/// Reads how to drain. `echo` has no clients that would understand it.
pub(super) fn drain(values: &mut Values, kind: ServerKind) -> DrainConfig {
    if kind == ServerKind::Echo {
        return DrainConfig::AT_ONCE;
    }
    let deadline = values.read(&DRAIN_SECONDS);
    let ready_delay = values.read(&DRAIN_READY_DELAY);
    if ready_delay > 0 && ready_delay >= deadline {
        let problem = format!(
            "must be less than {DRAIN_SECONDS}, which is {deadline} and includes it: lower it, or \
             raise --{}",
            DRAIN_SECONDS.row().flag
        );
        values.refuse(&DRAIN_READY_DELAY, problem);
    }
    DrainConfig {
        deadline: Duration::from_secs(deadline),
        ready_delay: Duration::from_secs(ready_delay),
    }
}

/// Reads the longest life of a connection, in milliseconds; 0 for no bound.
pub(super) fn connection_age_ms(values: &mut Values, kind: ServerKind) -> u64 {
    match kind {
        ServerKind::Echo => 0,
        ServerKind::Serve => values.read(&MAX_CONNECTION_AGE).as_millis() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings;
    use super::super::values::Origin;
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<(DrainConfig, u64), String> {
        let mut values = Values::default();
        for (env, text) in pairs {
            let setting = settings::find(env).unwrap();
            values.set(setting, (*text).to_owned(), Origin::Environment);
        }
        let kind = ServerKind::Serve;
        let config = (drain(&mut values, kind), connection_age_ms(&mut values, kind));
        values.finish().map(|()| config).map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_drain_and_an_age_are_read() {
        let config = |deadline, ready_delay| DrainConfig {
            deadline: Duration::from_secs(deadline),
            ready_delay: Duration::from_secs(ready_delay),
        };
        assert_eq!(read(&[]), Ok((config(10, 0), 0)));
        assert_eq!(read(&[("WS_DRAIN_SECONDS", "0")]), Ok((DrainConfig::AT_ONCE, 0)));
        let all = [
            ("WS_DRAIN_SECONDS", "30"),
            ("WS_DRAIN_READY_DELAY_SECONDS", "5"),
            ("WS_MAX_CONNECTION_AGE", "2h"),
        ];
        assert_eq!(read(&all), Ok((config(30, 5), 7_200_000)));
        let mut values = Values::default();
        assert_eq!(drain(&mut values, ServerKind::Echo), DrainConfig::AT_ONCE);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_reason() {
        let cases: [(&[(&str, &str)], &str); 5] = [
            (&[("WS_DRAIN_SECONDS", "3601")], "a whole number from 0 to 3600"),
            (&[("WS_DRAIN_READY_DELAY_SECONDS", "10")], "less than WS_DRAIN_SECONDS, which is 10"),
            (
                &[("WS_DRAIN_SECONDS", "0"), ("WS_DRAIN_READY_DELAY_SECONDS", "1")],
                "raise --drain-seconds",
            ),
            (&[("WS_MAX_CONNECTION_AGE", "500ms")], "0 for no bound, or from 1s to 168h"),
            (&[("WS_MAX_CONNECTION_AGE", "169h")], "WS_MAX_CONNECTION_AGE (--max-connection-age)"),
        ];
        for (pairs, part) in cases {
            let error = read(pairs).unwrap_err();
            assert!(error.contains(part), "{part} in {error}");
        }
    }
}
