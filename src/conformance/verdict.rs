//! How each scenario ended, and the report of a run: a table for people, JSON for programs.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::rule::Rule;

/// How a scenario ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The client kept the rules.
    Passed,
    /// It broke this rule.
    Broken { rule: Rule, saw: String },
    /// It subscribed without `resume` where it had a position. A client that never resumes at all
    /// breaks no rule by this: it was not tried.
    WithoutResume { rule: Rule },
    /// It did nothing that the scenario could judge.
    NotExercised { why: String },
}

impl Outcome {
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Broken { .. } | Self::WithoutResume { .. } => "BROKEN",
            Self::NotExercised { .. } => "not exercised",
        }
    }
}

/// Why a script ends before its end.
#[derive(Debug)]
pub(super) enum Stop {
    Outcome(Outcome),
    /// Ctrl-C.
    Interrupted,
}

/// What the client did is against this rule.
pub(super) fn broken<T>(rule: Rule, saw: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Outcome(Outcome::Broken { rule, saw: saw.into() }))
}

/// The client did nothing that could be judged.
pub(super) fn not_exercised<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Outcome(Outcome::NotExercised { why: why.into() }))
}

struct Entry {
    name: &'static str,
    /// What the scenario is about.
    tries: Rule,
    outcome: Outcome,
    took: Duration,
}

/// All scenarios of a run that were played.
pub(super) struct Report {
    addr: SocketAddr,
    entries: Vec<Entry>,
}

impl Report {
    pub(super) fn new(addr: SocketAddr) -> Self {
        Self { addr, entries: Vec::new() }
    }

    pub(super) fn push(
        &mut self,
        name: &'static str,
        tries: Rule,
        outcome: Outcome,
        took: Duration,
    ) {
        self.entries.push(Entry { name, tries, outcome, took });
    }

    /// Decides what a missing `resume` means, now that it is known whether the client ever resumes.
    pub(super) fn finish(&mut self, has_resumed: bool) {
        for Entry { outcome, .. } in &mut self.entries {
            if let Outcome::WithoutResume { rule } = *outcome {
                *outcome = match has_resumed {
                    true => Outcome::Broken {
                        rule,
                        saw: "it subscribed without `resume`, although it had a position".into(),
                    },
                    false => Outcome::NotExercised { why: "this client never resumes".into() },
                };
            }
        }
    }

    /// 0 all passed, 1 a rule is broken, 3 none is broken but something was not tried.
    pub(super) fn exit_code(&self) -> u8 {
        match self.count() {
            (_, 0, 0) if !self.entries.is_empty() => 0,
            (_, 0, _) => 3,
            _ => 1,
        }
    }

    /// Passed, broken, not exercised.
    fn count(&self) -> (usize, usize, usize) {
        let count = |word| self.entries.iter().filter(|entry| entry.outcome.word() == word).count();
        (count("passed"), count("BROKEN"), count("not exercised"))
    }

    pub(super) fn text(&self) -> String {
        let mut text =
            format!("{:<22} {:<14} {:<16} what was seen\n", "scenario", "verdict", "rule");
        for Entry { name, tries, outcome, .. } in &self.entries {
            let (rule, saw) = seen(*tries, outcome);
            let line = format!("{name:<22} {:<14} {:<16} {saw}", outcome.word(), rule.name());
            // Writing to a string cannot fail.
            writeln!(text, "{}", line.trim_end()).unwrap_or_default();
        }
        let (passed, broken, not_exercised) = self.count();
        text + &format!("{passed} passed, {broken} broken, {not_exercised} not exercised\n")
    }

    pub(super) fn json(&self) -> Value {
        let scenario = |Entry { name, tries, outcome, took }: &Entry| {
            let (rule, saw) = seen(*tries, outcome);
            let verdict = outcome.word().to_lowercase().replace(' ', "_");
            let mut entry = json!({
                "scenario": name,
                "verdict": verdict,
                "rule": rule.name(),
                "elapsed_ms": took.as_millis() as u64,
            });
            if !saw.is_empty() {
                entry["seen"] = saw.into();
            }
            entry
        };
        let (passed, broken, not_exercised) = self.count();
        json!({
            "address": self.addr.to_string(),
            "passed": passed,
            "broken": broken,
            "not_exercised": not_exercised,
            "scenarios": self.entries.iter().map(scenario).collect::<Vec<_>>(),
        })
    }
}

/// The rule that the verdict is about, and what was seen.
fn seen(tries: Rule, outcome: &Outcome) -> (Rule, &str) {
    match outcome {
        Outcome::Passed => (tries, ""),
        Outcome::Broken { rule, saw } => (*rule, saw),
        Outcome::WithoutResume { rule } => (*rule, "it subscribed without `resume`"),
        Outcome::NotExercised { why } => (tries, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcomes: &[Outcome]) -> Report {
        let mut report = Report::new(SocketAddr::from(([127, 0, 0, 1], 1)));
        for outcome in outcomes {
            report.push("a", Rule::Hole, outcome.clone(), Duration::ZERO);
        }
        report
    }

    #[test]
    fn the_exit_code_is_zero_only_if_all_was_tried_and_passed() {
        let broken = Outcome::Broken { rule: Rule::Stay, saw: "x".into() };
        let skipped = Outcome::NotExercised { why: "y".into() };
        assert_eq!(report(&[Outcome::Passed]).exit_code(), 0);
        assert_eq!(report(&[]).exit_code(), 3);
        assert_eq!(report(&[Outcome::Passed, skipped.clone()]).exit_code(), 3);
        let all = report(&[Outcome::Passed, skipped, broken]);
        assert_eq!(all.exit_code(), 1);
        assert!(all.text().ends_with("1 passed, 1 broken, 1 not exercised\n"), "{}", all.text());
        assert_eq!(all.json()["scenarios"][2]["rule"], "stay");
        assert_eq!(all.json()["scenarios"][1]["verdict"], "not_exercised");
    }

    #[test]
    fn a_client_that_never_resumes_is_not_blamed_for_it() {
        for (has_resumed, code) in [(true, 1), (false, 3)] {
            let mut report = report(&[Outcome::WithoutResume { rule: Rule::Resync }]);
            report.finish(has_resumed);
            assert_eq!(report.exit_code(), code);
        }
    }
}
