//! Instances and brokers that are killed at random behind a balancer, which `scripts/chaos` runs.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::path::PathBuf;
use std::process::Command;

/// The bounded run: the same faults each time, and nothing that depends on how fast the machine is.
const BOUNDED: [&str; 7] =
    ["--minutes", "0.5", "--clients", "20", "--seed", "7", "--no-interruption-limit"];

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
