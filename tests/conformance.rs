//! `odin-ws conformance` over real sockets: against `tail`, the load tester's client, a small right
//! client, and for each rule a client that breaks it.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;
mod wrong_client;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use support::server::{BINARY, command};
use wrong_client::Fault;

/// A pause between the end of a client and its next start, as a loop of a shell has it.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// Kits that play at the same time.
const SIDE_BY_SIDE: usize = 5;

/// A kit that plays.
struct Kit {
    child: Child,
    url: String,
    /// Read beside the kit, so that no pipe fills up.
    said: JoinHandle<Vec<String>>,
}

/// What a kit found: verdict, rule and what was seen, by scenario.
struct Verdict {
    code: Option<i32>,
    scenarios: BTreeMap<String, (String, String, String)>,
}

impl Kit {
    fn start(scenarios: &[String], timeout_s: u64) -> Self {
        let (names, timeout) = (scenarios.join(","), timeout_s.to_string());
        let arguments = ["conformance", "--listen", "127.0.0.1:0", "--json", "--timeout", &timeout];
        let mut child = command(&[&arguments[..], &["--scenario", &names]].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let url = first.strip_prefix("listening on ").unwrap().to_owned();
        let said = std::thread::spawn(move || lines.map_while(Result::ok).collect());
        Self { child, url, said }
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    fn verdict(mut self) -> Verdict {
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let code = self.child.wait().unwrap().code();
        let said = self.said.join().unwrap();
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{said:?}"));
        let scenarios = report["scenarios"].as_array().unwrap().iter().map(|it| {
            let text = |name: &str| it[name].as_str().unwrap_or_default().to_owned();
            (text("scenario"), (text("verdict"), text("rule"), text("seen")))
        });
        Verdict { code, scenarios: scenarios.collect() }
    }
}

/// All scenarios of the kit.
fn all_scenarios() -> Vec<String> {
    let output = command(&["conformance", "--list"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

/// Plays scenarios against a client program that is started again when it ends. Returns the
/// verdict and what the client printed.
fn try_program(
    scenarios: &[String],
    client: &(dyn Fn(&str) -> Command + Sync),
) -> (Verdict, String) {
    let mut kit = Kit::start(scenarios, 30);
    let mut printed = Vec::new();
    while !kit.has_ended() {
        let mut child = client(&kit.url)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        printed.push(collect(child.stdout.take().unwrap()));
        while child.try_wait().unwrap().is_none() && !kit.has_ended() {
            std::thread::sleep(Duration::from_millis(20));
        }
        // It may have ended by itself.
        child.kill().unwrap_or_default();
        child.wait().unwrap();
        std::thread::sleep(RESTART_PAUSE);
    }
    let printed = printed.into_iter().map(|it| it.join().unwrap()).collect();
    (kit.verdict(), printed)
}

fn collect(mut stdout: ChildStdout) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        text
    })
}

/// Plays all scenarios but `left_out` against a client program, and wants them all passed.
fn assert_passes(left_out: &[&str], client: &(dyn Fn(&str) -> Command + Sync)) {
    let wanted = all_scenarios().into_iter().filter(|name| !left_out.contains(&name.as_str()));
    let mut shares = vec![Vec::new(); SIDE_BY_SIDE];
    wanted.enumerate().for_each(|(number, name)| shares[number % SIDE_BY_SIDE].push(name));
    let failed = std::thread::scope(|scope| {
        let play = |share: &Vec<String>| try_program(share, client).0;
        let kits: Vec<_> = shares.iter().map(|share| scope.spawn(move || play(share))).collect();
        let verdicts = kits.into_iter().map(|kit| kit.join().unwrap());
        verdicts.flat_map(|it| it.scenarios).filter(|it| it.1.0 != "passed").collect::<Vec<_>>()
    });
    assert!(failed.is_empty(), "{failed:#?}");
}

fn tail(url: &str) -> Command {
    let patterns = ["odin.token.*.trade", "odin.global.>"];
    let flags = ["--url", url, "--backoff-max-ms", "1000", "--json"];
    command(&[&["tail"], &patterns[..], &flags[..]].concat())
}

/// The load tester's binary. It is no dependency of this package, so that it has to be built.
fn loadtest_binary() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let root = env!("CARGO_MANIFEST_DIR");
        let directory = Path::new(BINARY).parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--bin", "odin-loadtest"]).current_dir(root);
        if directory.ends_with("release") {
            build.arg("--release");
        }
        assert!(
            build.arg("--target-dir").arg(directory.parent().unwrap()).status().unwrap().success()
        );
        directory.join("odin-loadtest")
    })
}

fn loadtest(url: &str) -> Command {
    let mut command = Command::new(loadtest_binary());
    command.args(["sustained", "--connections", "1", "--duration", "1h", "--quiet", "--force"]);
    command.args(["--attempts", "1000000", "--heartbeat", "--url", url]);
    command
}

#[test]
fn tail_passes() {
    assert_passes(&[], &tail);
}

#[test]
fn the_load_testers_client_passes() {
    // Before a kit waits for it.
    loadtest_binary();
    // It does not ask for what is missing: it counts it.
    assert_passes(&["hole-filled"], &loadtest);
}

#[test]
fn tail_shows_nothing_twice() {
    let cases = [("repetition", vec![1_001, 1_002, 1_003]), ("prev-0", vec![1_001, 1_005])];
    for (scenario, expected) in cases {
        let (verdict, printed) = try_program(&[scenario.to_owned()], &tail);
        assert_eq!(verdict.code, Some(0), "{scenario}");
        let pos =
            |line: &str| serde_json::from_str::<Value>(line).unwrap()["pos"].as_u64().unwrap();
        assert_eq!(printed.lines().map(pos).collect::<Vec<_>>(), expected, "{scenario}");
    }
}

/// Plays one scenario, or several, against the small client with a fault.
fn try_fault(fault: Fault, scenarios: &str, timeout_s: u64) -> Verdict {
    let names: Vec<String> = scenarios.split(',').map(str::to_owned).collect();
    let kit = Kit::start(&names, timeout_s);
    let (url, is_over) = (kit.url.clone(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| wrong_client::run(&url, fault, &is_over));
        let verdict = kit.verdict();
        is_over.store(true, Ordering::Relaxed);
        verdict
    })
}

#[test]
fn a_right_client_passes_what_the_wrong_ones_fail() {
    let scenarios: Vec<&str> = FAULTS.iter().map(|(_, scenario, ..)| *scenario).collect();
    std::thread::scope(|scope| {
        for share in scenarios.chunks(scenarios.len().div_ceil(SIDE_BY_SIDE)) {
            scope.spawn(move || {
                let verdict = try_fault(Fault::None, &share.join(","), 20);
                assert_eq!(verdict.code, Some(0), "{:#?}", verdict.scenarios);
            });
        }
    });
}

/// Who breaks which rule, in which scenario it shows, and how long the kit waits, in seconds.
const FAULTS: &[(Fault, &str, &str, u64)] = &[
    (Fault::NeverSubscribes, "plain", "subscribe", 1),
    (Fault::Leaves, "plain", "stay", 20),
    (Fault::NeverComesBack, "plain", "come-back", 2),
    (Fault::StoreTimeOfWelcome, "plain", "resume", 20),
    (Fault::NoPong, "frames", "pong", 20),
    (Fault::LeavesUnknown, "unknown", "ignore-unknown", 20),
    (Fault::ByType, "event-types", "events-by-seq", 20),
    (Fault::ThroughHoles, "hole", "hole", 20),
    (Fault::PrevZero, "prev-0", "prev-0", 20),
    (Fault::KeepsAfterResync, "resync-cut", "resync", 20),
    (Fault::PrevZero, "resync-prev-0", "resync", 20),
    (Fault::OldEpoch, "resync-epoch", "epoch", 20),
    (Fault::EveryAnswer, "recovered-0", "recovered", 20),
    (Fault::EveryAnswer, "recovered-n", "recovered", 20),
    (Fault::KeepsAfterRefusal, "not-recovered", "not-recovered", 20),
    (Fault::Impatient, "late-answer", "late-answer", 20),
    (Fault::PositionOfSource, "source", "source", 20),
    (Fault::EveryHeartbeat, "heartbeat", "heartbeat", 20),
    (Fault::Deaf, "silence", "silence", 3),
    (Fault::RateBlind, "rate-limited", "rate-limited", 20),
    (Fault::Insists, "rejected", "rejected", 20),
    (Fault::Hammers, "back-off", "back-off", 20),
    (Fault::Hammers, "close-1002", "own-mistake", 20),
    (Fault::Hammers, "close-1009", "own-mistake", 20),
    (Fault::EarlyInDrain, "draining", "drain-time", 20),
    (Fault::FirstDrain, "draining-twice", "drain-time", 20),
    (Fault::Hammers, "retry-after", "retry-after", 20),
    (Fault::GoesBack, "repetition", "repetition", 20),
];

#[test]
fn each_rule_is_named_to_the_client_that_breaks_it() {
    std::thread::scope(|scope| {
        for &(fault, scenario, rule, timeout_s) in FAULTS {
            scope.spawn(move || {
                // A client that drops its position is blamed only if it resumes at all.
                let scenarios = match scenario {
                    "plain" => scenario.to_owned(),
                    _ => format!("plain,{scenario}"),
                };
                let with_plain = !matches!(fault, Fault::NoPong | Fault::Deaf);
                let scenarios = if with_plain { &scenarios } else { scenario };
                let verdict = try_fault(fault, scenarios, timeout_s);
                let found = &verdict.scenarios[scenario];
                assert_eq!((&*found.0, &*found.1), ("broken", rule), "{fault:?}: {found:?}");
                assert_eq!(verdict.code, Some(1), "{fault:?}");
            });
        }
    });
}

#[test]
fn what_a_client_does_not_do_is_not_called_passed() {
    let cases = [
        (Fault::NoHeartbeats, "heartbeat", 2),
        (Fault::NeverResumes, "plain", 20),
        (Fault::None, "hole-filled", 2),
        (Fault::NeverConnects, "plain", 1),
    ];
    for (fault, scenario, timeout_s) in cases {
        let verdict = try_fault(fault, scenario, timeout_s);
        assert_eq!(verdict.scenarios[scenario].0, "not_exercised", "{fault:?}");
        assert_eq!(verdict.code, Some(3), "{fault:?}");
    }
}

#[test]
fn ctrl_c_ends_it_with_the_verdict_so_far() {
    let kit = Kit::start(&["plain".to_owned(), "frames".to_owned()], 600);
    let (url, is_over) = (kit.url.clone(), AtomicBool::new(false));
    let pid = kit.child.id().to_string();
    std::thread::scope(|scope| {
        let client = scope.spawn(|| wrong_client::run_connections(&url, 2, &is_over));
        client.join().unwrap();
        // The end of its second connection was the end of `plain`.
        let kill = || Command::new("kill").args(["-INT", &pid]).status().unwrap();
        assert!(kill().success());
    });
    let verdict = kit.verdict();
    assert_eq!(verdict.scenarios["plain"].0, "passed");
    assert!(!verdict.scenarios.contains_key("frames"), "it was not played to its end");
    assert_eq!(verdict.code, Some(0));
}

#[test]
fn wrong_arguments_are_told_with_their_remedy() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let cases = [
        (vec!["--listen", "here"], "127.0.0.1:3002"),
        (vec!["--scenario", "plain,no-such"], "\"no-such\""),
        (vec!["--listen", "127.0.0.1:0", "--timeout", "0"], "1..=3600"),
        (vec!["--listen", &taken], "free port"),
    ];
    for (arguments, expected) in cases {
        let output = command(&[&["conformance"], &arguments[..]].concat()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
    drop(listener);
}
