//! The Autobahn|Testsuite, which `scripts/autobahn` installs and runs: its choice for every change.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::path::PathBuf;
use std::process::Command;

#[test]
fn the_autobahn_testsuite_finds_nothing() {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/autobahn");
    let output = Command::new(&script)
        .args(["--quick", "--strict", "--binary", env!("CARGO_BIN_EXE_odin-ws")])
        .output()
        .unwrap_or_else(|error| panic!("{script:?}: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
}
