//! Which source `serve` reads, and the whole of what a source and `simulate` need.

use std::sync::Arc;

use super::context::Machine;
use super::http::{self, http_settings};
use super::jetstream::{consumer_mode, stream_settings};
use super::kinds::Choice;
use super::load::MAX_NATS_RATE;
use super::nats::{self, SUBJECTS_DEFAULT, nats_settings, subjects, texts};
use super::setting::{Scope, Section, Setting};
use super::sim::sim_settings;
use super::values::Values;
use crate::channel::Pattern;
use crate::ingest::{
    CORE_SUBJECTS_DEFAULT, CoreSettings, HttpSettings, JetStreamSettings, NatsSettings,
    SimulateSettings, Source,
};

pub(super) const SOURCE: Setting<Choice<Name>> =
    Setting::new("WS_SOURCE", "source", Scope::Serve, SOURCES)
        .computed("jetstream if NATS_URL is set, else http if HTTP_SOURCE_URL is, else sim")
        .help("where messages come from: sim, jetstream, core or http");

pub(super) const SECTION: Section =
    Section { name: "source", title: "Source", settings: &[&SOURCE] };

const SOURCES: Choice<Name> = Choice::new(&[
    ("sim", Name::Sim),
    ("jetstream", Name::JetStream),
    ("core", Name::Core),
    ("http", Name::Http),
]);

/// A source by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// The simulator in this process.
    Sim,
    /// A JetStream stream.
    JetStream,
    /// Plain NATS publish-subscribe.
    Core,
    /// A backend that is polled.
    Http,
}

/// Publishes of `simulate` that wait for their acknowledgement.
const SIMULATE_OUTSTANDING_MAX: usize = 4_096;

/// Reads the source that `serve` is to use, and the patterns that cover what it serves.
pub fn source(values: &mut Values, machine: &Machine) -> (Source, Arc<[Pattern]>) {
    let has_broker = values.has(&nats::URL);
    let name = source_name(values);
    // Every section is read, whatever the source: a mistake is told before it matters.
    let mode = consumer_mode(values);
    let sim = sim_settings(values);
    let stream = stream_settings(values);
    let rate_max = values.read(&MAX_NATS_RATE);
    let nats = NatsSettings { rate_max, ..nats_settings(values, machine) };
    let http = http_settings(values);
    let (source, allowed) = match name {
        Name::Core => {
            let patterns = subjects(values, &CORE_SUBJECTS_DEFAULT);
            (Source::Core(CoreSettings { nats, subjects: texts(&patterns) }), patterns)
        }
        Name::JetStream => {
            let settings = JetStreamSettings { nats, stream, mode };
            (Source::JetStream(settings), subjects(values, SUBJECTS_DEFAULT))
        }
        Name::Http => {
            let served = subjects(values, SUBJECTS_DEFAULT);
            (Source::Http(HttpSettings { served: Arc::clone(&served), ..http }), served)
        }
        Name::Sim => (Source::Sim(sim), subjects(values, SUBJECTS_DEFAULT)),
    };
    match &source {
        Source::Http(settings) => {
            settings.mistakes().iter().for_each(|mistake| values.refuse_source(mistake));
        }
        // Without an address there is nothing more to check.
        _ if has_broker => source.check().unwrap_or_else(|error| values.refuse_source(&error)),
        _ => {}
    }
    (source, allowed)
}

fn source_name(values: &mut Values) -> Name {
    let has_broker = values.has(&nats::URL);
    let name = values.optional(&SOURCE).unwrap_or_else(|| match values.has(&http::URL) {
        _ if has_broker => Name::JetStream,
        true => Name::Http,
        false => Name::Sim,
    });
    if matches!(name, Name::JetStream | Name::Core) && !has_broker {
        let word = SOURCES.word(name);
        let problem = format!("is missing: the {word} source needs it, such as nats://host:4222");
        values.refuse(&nats::URL, problem);
    }
    name
}

/// Reads the settings of `simulate`; what ends it comes from the command line alone.
pub fn simulate_settings(values: &mut Values, machine: &Machine) -> SimulateSettings {
    if !values.has(&nats::URL) {
        let problem = "is missing: simulate publishes to NATS, such as nats://127.0.0.1:4222";
        values.refuse(&nats::URL, problem.into());
    }
    SimulateSettings {
        nats: nats_settings(values, machine),
        stream: stream_settings(values),
        model: sim_settings(values),
        outstanding_max: SIMULATE_OUTSTANDING_MAX,
        count: None,
        duration: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings;
    use super::super::values::Origin;
    use super::*;

    fn mistakes(pairs: &[(&str, &str)]) -> String {
        let mut values = Values::default();
        for (env, text) in pairs {
            let row = settings::find(env).unwrap();
            values.set(row, (*text).to_owned(), Origin::Environment);
        }
        let host_name = "host-1".into();
        let machine = Machine { cores: 2, descriptors: 20_000, host_name, is_terminal: false };
        source(&mut values, &machine);
        values.finish().map_or_else(|errors| errors.to_string(), |()| String::new())
    }

    #[test]
    fn consumers_that_nats_would_refuse_are_told_of() {
        let broker = ("NATS_URL", "nats://127.0.0.1");
        let durable = ("JS_CONSUMER_MODE", "durable");
        let cases = [
            (("JS_CONSUMER_MODE", "shared"), "must be ordered or durable"),
            (("JS_CONSUMER_NAME", "a.b"), "the consumer name \"a.b\" is not valid"),
            (("JS_CONSUMER_INACTIVE_THRESHOLD", "29s"), "threshold of 29s is too short"),
        ];
        for (wrong, expected) in cases {
            let text = mistakes(&[broker, durable, wrong]);
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn the_bound_of_the_threshold_is_the_durable_modes_alone() {
        let broker = ("NATS_URL", "nats://127.0.0.1");
        let (shortest, short) = ("30s", "29s");
        let threshold = |text| ("JS_CONSUMER_INACTIVE_THRESHOLD", text);
        let durable = ("JS_CONSUMER_MODE", "durable");
        assert_eq!(mistakes(&[broker, durable, threshold(shortest)]), "");
        assert_eq!(mistakes(&[broker, threshold(short)]), "");
        assert_eq!(mistakes(&[durable, threshold(short)]), "");
    }

    #[test]
    fn a_source_without_its_address_is_told_of() {
        for name in ["core", "jetstream"] {
            let text = mistakes(&[("WS_SOURCE", name)]);
            assert!(text.contains(&format!("NATS_URL (--nats-url): is missing: the {name}")));
        }
        assert!(mistakes(&[("WS_SOURCE", "http")]).contains("HTTP_SOURCE_URL"));
    }
}
