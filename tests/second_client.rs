//! An independent client: Python's `websockets`, which scripts/test installs.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use support::Server;

#[test]
fn pythons_websockets_gets_its_events_in_order() {
    let server = Server::serve(&["--source", "sim", "--sim-rate", "500"]);
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let installed = manifest.join(".venv/bin/python");
    let python = std::env::var_os("ODIN_TEST_PYTHON").map_or(installed, PathBuf::from);
    let output = Command::new(&python)
        .arg(manifest.join("tests/clients/second_client.py"))
        .arg(format!("ws://{}/ws", server.addr))
        .output()
        .unwrap_or_else(|error| panic!("{python:?}: {error}: run the tests with scripts/test"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{stderr}"));
    assert_eq!(seen["welcome"], "welcome");
    assert_eq!(seen["subscribed"], json!(["odin.token.*.trade"]));
    assert_eq!(seen["seqs"], json!((1..=50).collect::<Vec<u64>>()));
    assert!(seen["positions"].as_array().unwrap().iter().map(|pos| pos.as_u64()).is_sorted());
    assert_eq!(seen["types"], json!(["token_trade"]));
    assert_eq!((&seen["ponged"], &seen["heartbeat"]), (&json!(true), &json!(7)));
    assert_eq!((&seen["total"], &seen["close_code"]), (&json!(0), &json!(1000)));
}
