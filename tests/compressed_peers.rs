//! Independent peers that offer permessage-deflate (RFC 7692): npm's `ws` and Chromium, both
//! installed by scripts/test.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use support::{GUARD, Server};

/// Runs a peer against a server on the simulator; what it printed.
fn run(peer: &str, arguments: impl FnOnce(&Server) -> Vec<String>) -> Value {
    let server = Server::serve(&["--source", "sim", "--sim-rate", "500"]);
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(peer);
    // `timeout` ends a peer that hangs.
    let output = Command::new("timeout")
        .arg((2 * GUARD.as_secs()).to_string())
        .arg("node")
        .arg(script)
        .args(arguments(&server))
        .output()
        .unwrap_or_else(|error| panic!("timeout: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("{peer}: {}: {stderr}\nscripts/test installs what it needs", output.status)
    })
}

/// 200 events without a hole, an orderly close, and compression in effect.
fn check(seen: &Value) {
    assert_eq!(seen["seqs"], json!((1..=200).collect::<Vec<u64>>()));
    assert_eq!(seen["answers"], json!(["welcome", "subscribed"]));
    let channels = seen["channels"].as_array().unwrap();
    assert!(channels.len() > 1, "a wildcard: {channels:?}");
    assert_eq!(seen["close_code"], 1000);
    let extensions = seen["extensions"].as_str().unwrap();
    assert!(extensions.starts_with("permessage-deflate"), "not compressed: {extensions:?}");
}

#[test]
fn npm_ws_gets_its_events_compressed() {
    check(&run("ws.mjs", |server| vec![format!("ws://{}/ws", server.addr)]));
}

#[test]
fn chromium_gets_its_events_compressed() {
    let chromium = std::env::var("ODIN_TEST_CHROMIUM").unwrap_or("/usr/bin/chromium".to_owned());
    assert!(
        Path::new(&chromium).exists(),
        "{chromium} is missing: apt-get install chromium, or name one in ODIN_TEST_CHROMIUM"
    );
    check(&run("chromium.mjs", |server| vec![server.addr.to_string(), chromium]));
}
