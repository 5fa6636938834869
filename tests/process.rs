//! The process: its start, its settings, its end, and `tail`, as users and operators meet them.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::io::Write as _;
use std::process::Stdio;

use odin_ws::config::values::{Origin, Values};
use odin_ws::config::{ServerKind, settings};
use odin_ws::ingest::{CoreSettings, NatsSettings, Source};
use odin_ws::runtime::{self, Feeding};
use odin_ws::testing::PressureLimits;
use support::server::{command, run, wait};
use support::{Client, Server};

#[test]
fn without_a_drain_signals_close_clients_with_1001_and_end_with_0() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::serve(&["--source", "sim", "--drain-seconds", "0"]);
        let mut clients = [Client::connect(&server), Client::connect(&server)];
        let unfinished = server.connect();
        server.signal(signal);
        for client in &mut clients {
            let frame = client.read_close().unwrap();
            assert_eq!(u16::from(frame.code), 1001);
            assert_eq!(frame.reason.as_str(), "server is shutting down");
            client.socket.flush().unwrap_or_default();
        }
        drop(unfinished);
        assert_eq!(server.wait_exit().code(), Some(0), "{}", server.rest_of_log());
    }
}

#[test]
fn a_client_that_does_not_answer_does_not_keep_the_server() {
    let mut server = Server::serve(&["--source", "sim", "--drain-seconds", "1"]);
    let client = Client::connect(&server);
    server.signal("TERM");
    assert_eq!(server.wait_exit().code(), Some(0));
    drop(client);
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Server::serve(&["--source", "sim"]);
    let client = Client::connect(&server);
    server.signal("TERM");
    server.wait_for_log("shutting down");
    server.signal("TERM");
    let code = server.wait_exit().code();
    assert_eq!(code, Some(143), "{}", server.rest_of_log());
    drop(client);
}

#[test]
fn a_port_in_use_is_named() {
    let server = Server::serve(&["--source", "sim"]);
    let addr = server.addr.to_string();
    let (code, _, stderr) = run(&["serve", "--source", "sim", "--addr", &addr], &[]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains(&format!("{addr} is in use")) && stderr.contains("--addr"), "{stderr}");
}

#[test]
fn all_wrong_settings_are_told_at_once() {
    let environment =
        [("WS_SHARDS", "none"), ("JS_STREAM_MAX_AGE", "soon"), ("NATS_SUBJECTS", "a..b,odin.>")];
    let (code, stdout, stderr) = run(&["serve", "--addr", "nowhere"], &environment);
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    for part in [
        "4 settings are wrong",
        "WS_ADDR (--addr) is \"nowhere\"",
        "WS_SHARDS (--shards) is \"none\"",
        "JS_STREAM_MAX_AGE (--js-stream-max-age) is \"soon\": must be a duration",
        "\"a..b\": a token between two dots is empty",
    ] {
        assert!(stderr.contains(part), "{part} in {stderr}");
    }
}

#[test]
fn unusable_brokers_and_credentials_are_clear_errors() {
    let broker = ("NATS_URL", "nats://127.0.0.1:1");
    let cases: [(&[(&str, &str)], &str); 7] = [
        (&[("NATS_URL", "http://user:hunter2@x y")], "\"http://***@x y\" is not valid"),
        (&[broker, ("NATS_CREDS_FILE", "/no/such.creds")], "/no/such.creds cannot be read"),
        (&[broker, ("NATS_CREDS_FILE", "/dev/null")], "/dev/null is not a NATS .creds file"),
        (&[broker, ("NATS_CA_FILE", "/no/such.pem")], "/no/such.pem cannot be read"),
        (&[broker, ("JS_STREAM_NAME", "a.b")], "the stream name \"a.b\" is not valid"),
        (&[("WS_SOURCE", "jetstream")], "NATS_URL (--nats-url): is missing"),
        (&[broker, ("NATS_PASSWORD", "hunter2")], "set NATS_USER as well"),
    ];
    for (environment, part) in cases {
        let (code, _, stderr) = run(&["serve", "--addr", "127.0.0.1:0"], environment);
        assert_eq!(code, Some(2), "{environment:?}: {stderr}");
        assert!(stderr.contains(part), "{part} in {stderr}");
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
}

#[test]
fn too_few_descriptors_are_a_clear_error() {
    let script = format!(
        "ulimit -n 64 && exec {:?} serve --source sim --addr 127.0.0.1:0",
        support::server::BINARY
    );
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("this process may open 64") && stderr.contains("ulimit -n"),
        "{stderr}"
    );
    let (code, _, stderr) = run(&["serve", "--max-connections", "99000000"], &[]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("WS_MAX_CONNECTIONS") && stderr.contains("LimitNOFILE"), "{stderr}");
}

#[test]
fn a_blocked_io_uring_is_a_clear_error() {
    let manifest = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let output = std::process::Command::new("python3")
        .arg(manifest.join("tests/clients/without_io_uring.py"))
        .args([support::server::BINARY, "serve", "--source", "sim", "--addr", "127.0.0.1:0"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("io_uring is blocked") && stderr.contains("seccomp"), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn too_little_locked_memory_is_a_clear_error() {
    let script = format!(
        "ulimit -l 0 && exec {:?} serve --source sim --addr 127.0.0.1:0",
        support::server::BINARY
    );
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("may not lock enough memory"), "{stderr}");
}

#[test]
fn typing_errors_in_variables_are_warned_of() {
    let mut child = command(&["serve", "--source", "sim", "--addr", "127.0.0.1:0"])
        .envs([("WS_ADR", "x"), ("WS_MAX_GOROUTINES", "9"), ("LOG_FORMAT", "json")])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    use std::io::{BufRead as _, BufReader};
    let mut lines = BufReader::new(stderr).lines();
    let mut seen = String::new();
    while !seen.contains("listening") {
        seen.push_str(&lines.next().unwrap().unwrap());
    }
    assert!(seen.contains("\"variable\":\"WS_ADR\"") && seen.contains("unknown"), "{seen}");
    assert!(
        seen.contains("\"variable\":\"WS_MAX_GOROUTINES\"") && seen.contains("unused"),
        "{seen}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_effective_settings_are_printed_without_secrets() {
    let environment = [
        ("NATS_URL", "nats://bob:hunter2@127.0.0.1:4222"),
        ("NATS_TOKEN", "hunter2"),
        ("WS_SHARDS", "1"),
    ];
    let (code, stdout, _) =
        run(&["serve", "--print-config", "--addr", "127.0.0.1:9"], &environment);
    assert_eq!(code, Some(0));
    for line in [
        "WS_ADDR=127.0.0.1:9 # flag",
        "WS_SHARDS=1 # environment",
        "WS_LISTEN_BACKLOG=8192 # default",
        "NATS_URL=nats://***@127.0.0.1:4222 # environment",
        "NATS_TOKEN=*** # environment",
    ] {
        assert!(stdout.lines().any(|printed| printed == line), "{line} in {stdout}");
    }
    assert!(!stdout.contains("hunter2"));
}

#[test]
fn more_shards_than_cores_serve_too() {
    let server = Server::serve(&["--source", "sim", "--shards", "5", "--sim-rate", "100"]);
    for _ in 0..10 {
        let mut client = Client::connect(&server);
        client.subscribe(&["odin.token.>"]);
        client.next_events(3);
    }
}

#[test]
fn tail_prints_events_and_ends_after_its_count() {
    let server = Server::serve(&["--source", "sim", "--sim-rate", "100"]);
    let url = format!("ws://{}/ws", server.addr);
    let arguments = ["tail", "odin.token.*.trade", ">", "--url", &url, "--count", "4", "--json"];
    let (code, stdout, stderr) = run(&arguments, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stdout.lines().count(), 4);
    for line in stdout.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["type"], "token_trade");
    }
    assert!(stderr.contains("rejected >") && stderr.contains("channel_not_allowed"), "{stderr}");
    assert!(stderr.contains("4 events, 0 missed, 1 connections"), "{stderr}");

    let (code, stdout, _) =
        run(&["tail", "odin.token.>", "--url", &url, "--count", "1", "--snapshot"], &[]);
    assert_eq!(code, Some(0));
    assert!(stdout.contains("odin.token.") && stdout.lines().count() == 1, "{stdout}");
}

#[test]
fn tail_says_what_is_wrong() {
    let server = Server::serve(&["--source", "sim"]);
    let url = format!("ws://{}/ws", server.addr);
    let (code, _, stderr) = run(&["tail", "nothing.>", "--url", &url], &[]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("accepts none of these channels"), "{stderr}");
    let (code, _, stderr) = run(&["tail", "a", "--url", "http://x"], &[]);
    assert!(code == Some(1) && stderr.contains("write ws://host:port/ws"), "{stderr}");
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/ws", probe.local_addr().unwrap());
    drop(probe);
    let (code, _, stderr) = run(&["tail", "a", "--url", &url, "--no-reconnect"], &[]);
    assert!(code == Some(1) && stderr.contains("is the server running?"), "{stderr}");
}

#[test]
fn tail_comes_back_when_the_server_does() {
    let arguments = ["--source", "sim", "--sim-rate", "50", "--drain-seconds", "1"];
    let mut server = Server::serve(&arguments);
    let addr = server.addr.to_string();
    let url = format!("ws://{addr}/ws");
    let mut tail = command(&["tail", "odin.token.>", "--url", &url, "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    use std::io::{BufRead as _, BufReader};
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut epoch_of_pos = |count: usize| -> Vec<u64> {
        (0..count)
            .map(|_| {
                let line = lines.next().unwrap().unwrap();
                serde_json::from_str::<serde_json::Value>(&line).unwrap()["seq"].as_u64().unwrap()
            })
            .collect()
    };
    assert_eq!(epoch_of_pos(3), [1, 2, 3]);
    server.signal("TERM");
    server.wait_exit();
    let _again = Server::start(&["serve", "--addr", &addr, "--source", "sim", "--sim-rate", "50"]);
    // Numbers begin again on the new connection.
    while epoch_of_pos(1) != [1] {}
    tail.kill().unwrap();
    wait(&mut tail);
}

#[test]
fn tail_ends_quietly_when_its_output_is_closed() {
    let server = Server::serve(&["--source", "sim", "--sim-rate", "200"]);
    let url = format!("ws://{}/ws", server.addr);
    let mut tail = command(&["tail", "odin.token.>", "--url", &url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(tail.stdout.take());
    assert_eq!(wait(&mut tail).code(), Some(0));
    std::io::stdout().flush().unwrap();
}

#[test]
fn a_source_that_ends_by_itself_ends_the_server() {
    let machine = odin_ws::control::machine::detect();
    let mut values = Values::default();
    for (env, text) in [("WS_ADDR", "127.0.0.1:0"), ("WS_SHARDS", "1")] {
        values.set(settings::find(env).unwrap(), text.into(), Origin::Environment);
    }
    let config = odin_ws::config::server_config(&mut values, &machine, ServerKind::Serve);
    // The command line would have refused this subject.
    let subjects = vec!["a b".to_owned()];
    let nats = NatsSettings { urls: vec!["nats://127.0.0.1:1".into()], ..Default::default() };
    let source = Source::Core(CoreSettings { nats, subjects });
    let (has_ended, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let feeding = Feeding {
            source,
            allowed: [].into(),
            events_per_second_max: 0,
            pressure_limits: PressureLimits::default(),
        };
        has_ended.send(runtime::serve(&config, feeding)).unwrap();
    });
    let error = ended.recv_timeout(support::GUARD).unwrap().unwrap_err();
    assert!(error.to_string().contains("the source cannot run"), "{error}");
}

#[test]
fn every_shard_of_a_server_that_starts_on_a_busy_machine_serves() {
    let starts = || {
        for _ in 0..12 {
            let server = Server::serve(&["--source", "sim"]);
            // The kernel spreads them over the shards.
            for _ in 0..8 {
                assert!(server.get("/ready").contains("200 OK"));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(starts);
        }
    });
}
