//! The load tester as its users meet it: against servers that behave, and that do not.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod peers;

use std::process::{Command, Output};

use peers::{Peer, PythonServer, nats, odin_ws, server};
use serde_json::Value;

/// Runs with these arguments beside the usual ones; the exit code, the report and standard error.
fn run(url: &str, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let directory = tempfile::tempdir().unwrap();
    let (json, html) = (directory.path().join("report.json"), directory.path().join("report.html"));
    let Output { status, stderr, .. } = command()
        .args(["capacity", "--url", url, "--duration", "1", "--timeout", "2", "--attempts", "1"])
        .args(arguments)
        .args([&"--json".as_ref(), &json.as_os_str(), &"--html".as_ref(), &html.as_os_str()])
        .output()
        .unwrap();
    let report = match std::fs::read(&json) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
        Err(_) => Value::Null,
    };
    if !report.is_null() {
        assert!(std::fs::read_to_string(&html).unwrap().contains("</html>"));
    }
    (status.code(), report, String::from_utf8(stderr).unwrap())
}

/// Without any setting from the environment of the test run.
fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_odin-loadtest"));
    for name in ["WS_URL", "TARGET_CONNECTIONS", "DURATION", "RAMP_RATE", "SOURCE_IPS"] {
        command.env_remove(name);
    }
    for name in ["CHANNELS", "SUBSCRIPTIONS", "NATS_URL"] {
        command.env_remove(name);
    }
    command
}

/// What a run of 10 clients against such a server names as the only cause.
fn cause_of(play: fn(usize, &mut Peer)) -> (Value, Value) {
    let (code, report, stderr) = run(&server(play), &["--connections", "10"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(report["passed"], false);
    let failures = report["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 1, "{failures:#?}");
    let failure = &failures[0];
    assert_eq!(failure["count"], 10);
    assert!(!failure["fix"].as_str().unwrap().is_empty());
    (failure["cause"].clone(), failure["meaning"].clone())
}

#[test]
fn every_cause_is_told_from_the_others() {
    let (cause, meaning) = cause_of(|_, peer| {
        peer.request();
        peer.say(b"HTTP/1.1 503 No\r\nConnection: close\r\n\r\n{\"error\":\"too_many\"}");
    });
    assert_eq!(cause, "refused_http_503");
    assert!(meaning.as_str().unwrap().contains("too_many"), "{meaning}");
    let upgrade_timeout = cause_of(|_, peer| {
        peer.request();
        peer.wait();
    });
    assert_eq!(upgrade_timeout.0, "upgrade_timeout");
    let reset = cause_of(|_, peer| {
        peer.request();
    });
    assert_eq!(reset.0, "reset_before_upgrade");
    let protocol = cause_of(|_, peer| {
        peer.subscribe();
        peer.say(&[0x83, 0]);
        peer.wait();
    });
    assert_eq!(protocol.0, "protocol_error");
    let closed = cause_of(|_, peer| {
        peer.subscribe();
        peer.say(&[0x88, 2, 0x03, 0xE9]);
        peer.wait();
    });
    assert_eq!(closed.0, "closed_1001");
    let lost = cause_of(|_, peer| peer.subscribe());
    assert_eq!(lost.0, "reset_after_upgrade");
    let silent = cause_of(|_, peer| {
        peer.upgrade();
        peer.wait();
    });
    assert_eq!(silent.0, "no_acknowledgement");
    let rejected = cause_of(|_, peer| {
        peer.upgrade();
        peer.text(r#"{"type":"subscribed","channels":[],"rejected":[{"code":"x"}]}"#);
        peer.wait();
    });
    assert_eq!(rejected.0, "subscription_refused");
    let tls = run("wss://127.0.0.1:1/ws", &["--connections", "1"]);
    assert_eq!(tls.1["failures"][0]["cause"], "connect_refused");
}

#[test]
fn holes_repetitions_and_disorder_fail_the_run() {
    let count = |play: fn(usize, &mut Peer)| {
        let (code, report, _) = run(&server(play), &["--connections", "5"]);
        let totals = &report["totals"];
        let counts = ["gaps", "duplicates", "disordered", "deliveries"];
        (code, counts.map(|name| totals[name].as_u64().unwrap()))
    };
    let fine = count(|_, peer| {
        peer.subscribe();
        for number in 1..=50 {
            peer.event(number, number * 3, (number - 1) * 3);
        }
        peer.say(&[0x89, 1, b'x']);
        peer.wait();
    });
    assert_eq!(fine, (Some(0), [0, 0, 0, 250]));
    let by_seq = count(|_, peer| {
        peer.subscribe();
        peer.event(1, 3, 0);
        peer.event(4, 9, 3);
        peer.wait();
    });
    assert_eq!(by_seq, (Some(1), [10, 0, 0, 10]));
    let by_prev = count(|_, peer| {
        peer.subscribe();
        peer.event(1, 3, 0);
        peer.event(2, 9, 6);
        peer.wait();
    });
    assert_eq!(by_prev, (Some(1), [5, 0, 0, 10]));
    let others = count(|_, peer| {
        peer.subscribe();
        peer.event(1, 3, 0);
        peer.event(2, 3, 0);
        peer.event(3, 2, 1);
        peer.wait();
    });
    assert_eq!(others, (Some(1), [0, 5, 5, 15]));
    let before_the_subscription = count(|_, peer| {
        peer.subscribe_at(70);
        peer.event(1, 70, 60);
        peer.wait();
    });
    assert_eq!(before_the_subscription, (Some(1), [0, 0, 5, 5]));
    let after_it = count(|_, peer| {
        peer.subscribe_at(70);
        peer.event(1, 80, 75);
        peer.wait();
    });
    assert_eq!(after_it, (Some(1), [5, 0, 0, 5]));
    let resync = count(|_, peer| {
        peer.subscribe_at(70);
        peer.event(1, 80, 70);
        peer.text(r#"{"type":"resync","epoch":"b","reason":"stream_recreated"}"#);
        peer.event(2, 3, 0);
        peer.wait();
    });
    assert_eq!(resync, (Some(0), [0, 0, 0, 10]));
}

#[test]
fn clients_that_never_sleep_receive_the_same() {
    let url = server(|_, peer| {
        peer.subscribe();
        for number in 1..=20 {
            peer.event(number, number, number - 1);
        }
        peer.wait();
    });
    let (code, report, stderr) = run(&url, &["--connections", "10", "--poll"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(report["totals"]["deliveries"], 200);
    assert_eq!(report["settings"]["poll"], "true");
    let both = command().args(["capacity", "--poll", "--poll-interval-us", "9"]).output().unwrap();
    assert_eq!(both.status.code(), Some(2), "it cannot sleep and not sleep");
}

#[test]
fn clients_try_again_until_they_succeed() {
    let url = server(|number, peer| {
        if number % 2 == 0 {
            peer.request();
            return;
        }
        peer.subscribe();
        peer.wait();
    });
    let more = ["--connections", "6", "--attempts", "40", "--subscriptions", "1"];
    let (code, report, stderr) = run(&url, &more);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(report["totals"]["succeeded"], 6);
    assert!(report["totals"]["attempts"].as_u64().unwrap() > 6);
    assert_eq!(report["failures"][0]["cause"], "reset_before_upgrade");
}

#[test]
fn a_storm_brings_everybody_back() {
    let url = server(|_, peer| {
        peer.subscribe();
        peer.wait();
    });
    let Output { status, stdout, .. } = command()
        .args(["storm", "--url", &url, "--connections", "30", "--duration", "1"])
        .args(["--jitter-ms", "100", "--quiet"])
        .output()
        .unwrap();
    let text = String::from_utf8(stdout).unwrap();
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(text.contains("30 of 30"), "{text}");
}

/// Runs a storm of ten clients against a server that promises each that comes back one missed
/// event, and sends it with this `prev`.
fn storm_that_resumes(prev: u64) -> Output {
    let url = server(move |number, peer| {
        peer.accept();
        let place = r#""rejected":[],"epoch":"e","pos":5,"ts":1"#;
        let subscribe = peer.frame();
        if number < 10 {
            assert!(!subscribe.contains("resume"), "{subscribe}");
            peer.text(&format!(r#"{{"type":"subscribed",{place}}}"#));
            peer.event(1, 6, 4);
        } else {
            let resume = r#""resume":{"epoch":"e","pos":6,"ts":1}"#;
            assert!(subscribe.contains(resume), "{subscribe}");
            let recovered = r#""recovered":true,"resume":{"messages":1}"#;
            peer.text(&format!(r#"{{"type":"subscribed",{place},{recovered}}}"#));
            peer.event(1, 9, prev);
        }
        peer.wait();
    });
    command()
        .args(["storm", "--url", &url, "--connections", "10", "--duration", "1"])
        .args(["--jitter-ms", "100", "--quiet"])
        .output()
        .unwrap()
}

#[test]
fn who_comes_back_resumes_and_is_checked_where_it_was() {
    for (prev, code, says) in [(6, 0, "0 missing"), (8, 1, "10 missing")] {
        let Output { status, stdout, .. } = storm_that_resumes(prev);
        let text = String::from_utf8(stdout).unwrap();
        assert_eq!(status.code(), Some(code), "{text}");
        assert!(
            text.contains(says) && text.contains("10 with 10 missed events, 0 refused"),
            "{text}"
        );
    }
}

#[test]
fn slow_clients_do_not_count_and_the_others_do() {
    let url = server(|_, peer| {
        peer.subscribe();
        // The slow one is closed, as a good server does.
        peer.event(1, 1, 0);
        peer.wait();
    });
    let Output { status, stdout, .. } = command()
        .args(["slow", "--url", &url, "--connections", "10", "--duration", "1", "--quiet"])
        .args(["--slow-share", "50"])
        .output()
        .unwrap();
    let text = String::from_utf8(stdout).unwrap();
    assert_eq!(status.code(), Some(0), "{text}");
}

#[test]
fn a_compressing_server_that_shares_no_code() {
    let server = PythonServer::start(None);
    let (code, report, stderr) = run(&server.url, &["--connections", "20", "--compress"]);
    assert_eq!(code, Some(0), "{stderr}{report:#}");
    let totals = &report["totals"];
    assert_eq!((&totals["deliveries"], &totals["gaps"]), (&400.into(), &0.into()));
    let (received, plain) = (&totals["received_bytes"], &totals["message_bytes"]);
    assert!(received.as_u64().unwrap() < plain.as_u64().unwrap() / 3, "{totals}");
}

#[test]
fn a_server_with_tls() {
    let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    std::fs::write(&certificate, signed.cert.pem()).unwrap();
    std::fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
    let server = PythonServer::start(Some((&certificate, &key)));
    let ca_file = certificate.to_str().unwrap();
    for trust in [&["--ca-file", ca_file][..], &["--insecure"]] {
        let arguments = [&["--connections", "10", "--compress"], trust].concat();
        let (code, report, stderr) = run(&server.url, &arguments);
        assert_eq!(code, Some(0), "{stderr}{report:#}");
        assert_eq!(report["totals"]["deliveries"], 200);
    }
    let (code, report, _) = run(&server.url, &["--connections", "2"]);
    assert_eq!((code, &report["failures"][0]["cause"]), (Some(1), &"tls_error".into()));
}

#[test]
fn wrong_arguments_are_told_at_once_and_hopeless_targets_refused() {
    let Output { status, stderr, .. } = command()
        .args(["fanout", "--url", "http://a", "--duration", "soon", "--ramp-rate", "0"])
        .output()
        .unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(2));
    for part in ["--url", "--duration", "--ramp-rate", "--nats-url"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (code, report, stderr) = run("ws://127.0.0.1:1/", &["--connections", "50000000"]);
    assert_eq!((code, report), (Some(1), Value::Null));
    assert!(stderr.contains("ulimit -n") && stderr.contains("--force"), "{stderr}");
}

#[test]
fn clients_come_from_the_addresses_that_were_given() {
    let url = server(|_, peer| {
        let ip = peer.stream.peer_addr().unwrap().ip().to_string();
        if ["127.0.0.2", "127.0.0.3"].contains(&ip.as_str()) {
            peer.subscribe();
            peer.wait();
        }
    });
    let sources = ["--connections", "10", "--source-ips", "127.0.0.2,127.0.0.3"];
    let (code, report, stderr) = run(&url, &sources);
    assert_eq!((code, &report["totals"]["succeeded"]), (Some(0), &10.into()), "{stderr}");
    let (code, _, _) = run(&url, &["--connections", "10", "--source-ips", "127.0.0.4"]);
    assert_eq!(code, Some(1));
}

#[test]
fn the_server_and_a_real_broker_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (_broker, nats_url) = nats(directory.path());
    let (_server, url, pid) = odin_ws(&nats_url);
    let publishing = ["--nats-url", &nats_url, "--channels", "10", "--rate", "40"];
    let more = ["--connections", "200", "--subscriptions", "3", "--server-pid", &pid.to_string()];
    let of = |scenario: &str, duration: &str| {
        let report = directory.path().join("report.json");
        let Output { status, stdout, .. } = command()
            .args([scenario, "--url", &url, "--duration", duration, "--quiet", "--json"])
            .arg(&report)
            .args(publishing)
            .args(more)
            .output()
            .unwrap();
        assert_eq!(status.code(), Some(0), "{}", String::from_utf8_lossy(&stdout));
        serde_json::from_slice::<Value>(&std::fs::read(&report).unwrap()).unwrap()
    };
    let report = of("sustained", "2");
    let totals = &report["totals"];
    let published = totals["published"].as_u64().unwrap();
    // 600 subscriptions of 10 channels that take turns.
    assert!(published >= 60 && totals["deliveries"] == published * 60, "{totals}");
    assert_eq!(report["delivery"]["count"], totals["deliveries"]);
    assert!(totals["server_cpu_us"].is_u64(), "{totals}");
    let report = of("storm", "1");
    assert_eq!(report["storm"]["returned"], 200, "{:#}", report["storm"]);
    assert_eq!(report["totals"]["gaps"], 0);
}

#[test]
fn the_server_beside_a_bare_sender() {
    let directory = tempfile::tempdir().unwrap();
    let (_broker, nats_url) = nats(directory.path());
    let (_server, url, pid) = odin_ws(&nats_url);
    let (json, html) = (directory.path().join("report.json"), directory.path().join("report.html"));
    let Output { status, stdout, .. } = command()
        .args(["floor", "--url", &url, "--nats-url", &nats_url, "--server-pid", &pid.to_string()])
        .args(["--connections", "100", "--channels", "20", "--subscriptions", "4", "--quiet"])
        .args(["--delivery-rates", "500,1000", "--rounds", "1", "--duration", "1"])
        .args([&"--json".as_ref(), &json.as_os_str(), &"--html".as_ref(), &html.as_os_str()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&stdout);
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(text.contains("bare sender") && text.contains("median"), "{text}");
    assert!(std::fs::read_to_string(&html).unwrap().contains("bare sender"));
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let rates = report["floor"]["rates"].as_array().unwrap();
    assert_eq!(rates.len(), 2);
    for rate in rates {
        assert!(rate["server_to_bare"].as_f64().unwrap() > 0.0, "{rate:#}");
        let rounds = rate["rounds"].as_array().unwrap();
        assert_eq!(rounds.len(), 1);
        for round in rounds {
            let [server, bare] = ["server", "bare"].map(|side| &round[side]);
            assert!(server["deliveries"].as_u64().unwrap() > 0, "{round:#}");
            assert!(bare["deliveries"].as_u64().unwrap() > 0, "{round:#}");
            let bytes = |side: &Value| side["frame_bytes"].as_f64().unwrap();
            assert!(
                bytes(server) > 600.0 && (bytes(server) - bytes(bare)).abs() < 2.0,
                "{round:#}"
            );
        }
    }
    assert_eq!(report["totals"]["gaps"], 0);
}

#[test]
fn a_server_is_started_for_the_run() {
    let start = |command_line: &str| {
        let Output { status, stderr, .. } = command()
            .args(["capacity", "--url", "ws://127.0.0.1:1/", "--connections", "1"])
            .args(["--server-cmd", command_line])
            .output()
            .unwrap();
        assert_eq!(status.code(), Some(1));
        String::from_utf8(stderr).unwrap()
    };
    assert!(start("/nowhere/at-all x").contains("/nowhere/at-all"));
    assert!(start("false").contains("ended at once"));
}

#[test]
fn hostile_clients_are_told_apart_by_how_they_ended() {
    // Five ordinary clients come first, then the kinds in turn.
    let url = server(|number, peer| match number.checked_sub(5).map(|number| number % 4) {
        Some(0) => peer.say(b"HTTP/1.1 408 Too slow\r\nConnection: close\r\n\r\n"),
        Some(1) => {
            peer.accept();
            peer.say(&[0x88, 2, 0x03, 0xE9]);
        }
        Some(2) => {}
        _ => {
            peer.subscribe();
            peer.wait();
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("report.json");
    let Output { status, stdout, .. } = command()
        .args(["loris", "--url", &url, "--connections", "5", "--duration", "2", "--quiet"])
        .args(["--loris", "8", "--json"])
        .arg(&json)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&stdout);
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(text.contains("hostile clients"), "{text}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let kinds = report["loris"]["kinds"].as_array().unwrap();
    let how = |kind: &Value| {
        let end = kind["ends"][0]["how"].as_str().unwrap_or("open").to_owned();
        (kind["connections"].as_u64(), kind["ended"].as_u64(), end)
    };
    let of = |ended, end: &str| (Some(2), Some(ended), end.to_owned());
    let expected = [of(2, "http_408"), of(2, "close_1001"), of(2, "closed"), of(0, "open")];
    assert_eq!(kinds.iter().map(how).collect::<Vec<_>>(), expected, "{text}");
    assert!(kinds[0]["after"]["p50_ms"].is_u64() && kinds[3]["after"].is_null(), "{text}");
}
