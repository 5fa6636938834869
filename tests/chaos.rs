//! Instances and brokers that are killed at random behind a balancer, which `scripts/chaos` runs.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::path::PathBuf;
use std::process::Command;

/// Bounded runs: the same faults each time, and nothing that depends on how fast the machine is.
const BOUNDED: [&str; 3] = ["--clients", "20", "--no-interruption-limit"];
const FAULTS: [&str; 4] = ["--minutes", "0.5", "--seed", "7"];
const OPERATIONS: [&str; 8] = [
    "--minutes",
    "0.42",
    "--seed",
    "2885",
    "--nodes",
    "1",
    "--faults",
    "instance-kill,purge,delete,edit,restore,take",
];

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
    run_bounded(&FAULTS);
}

#[test]
fn clients_are_told_what_is_taken_out_of_the_stream_before_it_is_read() {
    run_bounded(&OPERATIONS);
}

fn run_bounded(arguments: &[&str]) {
    let binary = ["--binary", env!("CARGO_BIN_EXE_odin-ws")];
    run(&[&BOUNDED[..], arguments, &binary].concat());
}
