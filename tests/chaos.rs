//! Instances and brokers that are killed at random behind a balancer, which `scripts/chaos` runs.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::path::PathBuf;
use std::process::Command;

/// Seconds of faults and clients of the bounded run.
const BOUNDED: [&str; 4] = ["--minutes", "0.5", "--clients", "20"];

fn run(arguments: &[&str]) {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/chaos");
    let output = Command::new(&script)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{script:?}: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
}

#[test]
fn the_checker_of_the_chaos_run_finds_what_is_wrong() {
    run(&["--self-test"]);
}

#[test]
fn clients_lose_nothing_while_instances_and_brokers_are_killed() {
    run(&[&BOUNDED[..], &["--binary", env!("CARGO_BIN_EXE_odin-ws")]].concat());
}
