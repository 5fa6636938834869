//! `odin-ws doctor` as an operator meets it, on the machine that runs the tests.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::server::run;

#[test]
fn text_json_and_exit_code_agree() {
    for role in ["server", "loadgen"] {
        for connections in ["1", "10000", "100000000"] {
            let arguments = ["doctor", "--role", role, "--connections", connections];
            let (code, text, stderr) = run(&arguments, &[]);
            let (code_json, json, _) = run(&[&arguments[..], &["--json"]].concat(), &[]);
            assert_eq!((code, stderr.as_str()), (code_json, ""), "{text}");
            let value: Value = serde_json::from_str(&json).unwrap();
            assert_eq!(value["exit_code"].as_i64(), code.map(i64::from));
            assert_eq!(value["role"], role);
            let checks = value["checks"].as_array().unwrap();
            let severities = checks.iter().map(|check| check["severity"].as_str().unwrap());
            let worst = severities.max_by_key(|severity| rank(severity)).unwrap();
            assert_eq!(code, Some([0, 0, 1, 3][rank(worst)]), "{text}");
            for check in checks {
                assert!(text.contains(check["name"].as_str().unwrap()), "{text}");
            }
            assert!(text.contains("ceiling: "), "{text}");
        }
    }
    let (code, ..) = run(&["doctor", "--connections", "100000000"], &[]);
    assert_eq!(code, Some(3), "no machine holds a hundred million connections");
}

fn rank(severity: &str) -> usize {
    ["ok", "note", "warning", "error"].iter().position(|name| *name == severity).unwrap()
}

#[test]
fn the_script_is_valid_and_not_run() {
    for role in ["server", "loadgen"] {
        let arguments = ["doctor", "--role", role, "--connections", "100000000", "--fix"];
        let (code, script, stderr) = run(&arguments, &[]);
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert!(script.starts_with("#!/bin/sh\n"));
        let mut shell = Command::new("sh").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
        shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(shell.wait().unwrap().success(), "{script}");
    }
}

#[test]
fn wrong_arguments_end_with_2() {
    for arguments in [
        &["doctor", "--role", "client"][..],
        &["doctor", "--connections", "0"],
        &["doctor", "--connections", "x"],
        &["doctor", "--json", "--fix"],
        &["doctor", "--pid", "0"],
    ] {
        let (code, stdout, _) = run(arguments, &[]);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{arguments:?}");
    }
}

#[test]
fn the_limits_of_a_process_can_be_asked_for() {
    let pid = std::process::id().to_string();
    let (_, text, _) = run(&["doctor", "--pid", &pid], &[]);
    assert!(text.contains(&format!("the limits of process {pid}")), "{text}");
    let (code, text, _) = run(&["doctor", "--pid", "4294967295"], &[]);
    assert!(code >= Some(1) && text.contains("not readable"), "{text}");
}
