//! `odin-ws conformance`: a server of scripts against which any client is tried.
//!
//! It judges a client by what it sends and when, after the rules of docs/client-guide.md. It shares
//! no code with the server: a mistake of the server's code must not become the judge's.
//!
//! ```text
//! rule        the rules by name, and where the guide explains them
//! verdict     how a scenario ended, as table and as JSON
//! message     what the kit says and what it reads: positions, events, `subscribe`
//! connection  one connection of the client, read and answered in small steps
//! stage       the listener, and what every script needs of it
//! script/     the scenarios, by theme; `script::SCENARIOS` lists them
//! ```
//!
//! One thread, one client at a time. Bounds: every wait ends after [`Settings::patience`]; a
//! message of the client has at most 1 MiB.

mod connection;
mod message;
mod rule;
mod script;
mod stage;
mod verdict;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use self::script::{SCENARIOS, Scenario};
use self::stage::Stage;
use self::verdict::{Outcome, Report, Stop};

/// What to play, and where.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen; port 0 is any free port.
    pub listen: SocketAddr,
    /// Print JSON instead of the table.
    pub is_json: bool,
    /// Names of scenarios; empty: all, in the order of the list.
    pub scenarios: Vec<String>,
    /// The longest wait for the client to do something.
    pub patience: Duration,
}

/// Why nothing could be tried.
#[derive(Debug, thiserror::Error)]
pub enum ConformanceError {
    /// The name is in no list.
    #[error("--scenario {0:?}: there is no such scenario; `odin-ws conformance --list` names all")]
    UnknownScenario(String),
    /// The address cannot be listened on.
    #[error(
        "--listen {addr}: {cause}; name an address of this machine with a free port, or port 0 \
         for any"
    )]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        cause: io::Error,
    },
}

/// All scenarios with the rule that each tries, a line each.
pub fn list() -> String {
    let lines = SCENARIOS.iter().map(|Scenario { name, rule, about, .. }| {
        format!("{name:<22} {:<20} {about}\n", rule.name())
    });
    lines.collect()
}

/// Plays the scenarios, prints the verdict on standard output and how it goes on standard error.
/// Returns the exit code: 0 all passed, 1 a rule is broken, 3 none is broken but something was not
/// tried. Setting `stop` ends it with the verdict so far.
///
/// # Errors
/// [`ConformanceError`] if it cannot begin.
pub fn run(settings: &Settings, stop: &AtomicBool) -> Result<u8, ConformanceError> {
    let chosen = chosen(&settings.scenarios)?;
    let refuse = |cause| ConformanceError::Listen { addr: settings.listen, cause };
    let listener = TcpListener::bind(settings.listen).map_err(refuse)?;
    listener.set_nonblocking(true).map_err(refuse)?;
    let addr = listener.local_addr().map_err(refuse)?;
    eprintln!("listening on ws://{addr}/ws");
    let mut report = Report::new(addr);
    let mut stage = Stage::new(listener, settings.patience, stop);
    for scenario in chosen {
        let began = Instant::now();
        stage.begin(scenario.name);
        let outcome = match (scenario.play)(&mut stage) {
            Ok(()) => Outcome::Passed,
            Err(Stop::Interrupted) => break,
            Err(Stop::Outcome(outcome)) => outcome,
        };
        eprintln!("{:<22} {}", scenario.name, outcome.word());
        report.push(scenario.name, scenario.rule, outcome, began.elapsed());
    }
    report.finish(stage.has_resumed());
    match settings.is_json {
        true => println!("{:#}", report.json()),
        false => print!("{}", report.text()),
    }
    Ok(report.exit_code())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Scenario>, ConformanceError> {
    if names.is_empty() {
        return Ok(SCENARIOS.iter().collect());
    }
    let find = |name: &String| {
        let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
        found.ok_or_else(|| ConformanceError::UnknownScenario(name.clone()))
    };
    names.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::rule::Rule;
    use super::*;

    #[test]
    fn the_guide_names_every_rule_and_every_scenario_has_its_own_name() {
        let guide = include_str!("../../docs/client-guide.md");
        for rule in Rule::ALL {
            let row = format!("| `{}` |", rule.name());
            assert!(guide.contains(&row), "docs/client-guide.md has no row of {}", rule.name());
        }
        let names: BTreeSet<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
        assert_eq!(list().lines().count(), SCENARIOS.len());
    }

    #[test]
    fn scenarios_are_chosen_by_name() {
        assert_eq!(chosen(&[]).unwrap().len(), SCENARIOS.len());
        let names = ["plain".to_owned(), "silence".to_owned()];
        assert_eq!(chosen(&names).unwrap()[1].name, "silence");
        let error = chosen(&["no-such".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("no-such") && error.contains("--list"), "{error}");
    }
}
