//! The protocol over real sockets, on the built-in simulator: each statement of docs/protocol.md
//! about messages, commands and their errors.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::collections::HashMap;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Client, Server};
use tungstenite::Message;

fn server() -> Server {
    let server = Server::serve(&["--source", "sim", "--sim-tokens", "5", "--sim-rate", "200"]);
    server.wait_ready(200);
    server
}

fn rejection(answer: &Value, channel: &str) -> String {
    let rejected = answer["rejected"].as_array().unwrap();
    let entry = rejected.iter().find(|entry| entry["channel"] == channel);
    entry.unwrap_or_else(|| panic!("{channel} in {answer}"))["code"].as_str().unwrap().to_owned()
}

#[test]
fn welcome_tells_position_and_limits() {
    let server = server();
    let client = Client::connect(&server);
    let welcome = &client.welcome;
    for member in ["connection_id", "instance", "epoch"] {
        assert!(welcome[member].is_string(), "{member} in {welcome}");
    }
    assert!(welcome["server_time"].as_u64().unwrap() > 1_700_000_000_000);
    assert_eq!(welcome["heartbeat_interval_ms"], 25_000);
    assert_eq!(welcome["idle_timeout_ms"], 60_000);
    assert_eq!(
        welcome["limits"],
        json!({"message_bytes": 65_536, "commands_per_second": 50, "channels": 1_024,
               "channel_bytes": 256, "replay_messages": 100, "queue_messages": 256,
               "queue_bytes": 262_144, "batch_ms": 0, "resume_messages": 6_000})
    );
    let other = Client::connect(&server);
    assert_ne!(other.welcome["connection_id"], client.welcome["connection_id"]);
}

#[test]
fn events_are_numbered_ordered_and_chained() {
    let server = server();
    let mut client = Client::connect(&server);
    client.subscribe(&["odin.token.>", "odin.global.>"]);
    let mut newest: HashMap<String, u64> = HashMap::new();
    let mut pos_before = 0;
    for seq in 1..=300 {
        let event = client.next_event();
        assert_eq!(event["seq"], seq);
        let (pos, prev) = (event["pos"].as_u64().unwrap(), event["prev"].as_u64().unwrap());
        assert!(pos > pos_before, "{pos} after {pos_before}");
        pos_before = pos;
        let channel = event["channel"].as_str().unwrap().to_owned();
        if let Some(before) = newest.insert(channel.clone(), pos) {
            assert_eq!(prev, before, "{channel}");
        } else {
            assert!(prev < pos);
        }
        assert!(event["ts"].as_u64().unwrap() > 1_700_000_000_000);
        assert!(event["data"].is_object());
        let kind = channel.rsplit('.').next().unwrap();
        let expected = match channel.starts_with("odin.global.") {
            true => "global_update".to_owned(),
            false => format!("token_{kind}"),
        };
        assert_eq!(event["type"], expected);
    }
}

#[test]
fn a_wildcard_gets_its_channels_and_a_double_match_comes_once() {
    let server = server();
    let mut client = Client::connect(&server);
    client.subscribe(&["odin.token.*.trade", "odin.token.BTC.>", "odin.token.BTC.trade"]);
    let mut both = 0;
    let mut pos_before = 0;
    while both < 10 {
        let event = client.next_event();
        let channel = event["channel"].as_str().unwrap();
        let is_trade = channel.ends_with(".trade");
        let is_btc = channel.starts_with("odin.token.BTC.");
        assert!(is_trade || is_btc, "{channel}");
        both += u32::from(is_trade && is_btc);
        let pos = event["pos"].as_u64().unwrap();
        assert!(pos > pos_before, "{pos} again");
        pos_before = pos;
    }
}

#[test]
fn a_subscription_is_confirmed_channel_by_channel() {
    let server = Server::serve(&["--source", "sim", "--max-channels", "6"]);
    let mut client = Client::connect(&server);
    let long = format!("odin.token.{}", "x".repeat(300));
    let channels = ["odin.token.BTC.trade", "a..b", &long, "market.>", ">", "odin.token.x y"];
    let answer = client.command(&json!({"type": "subscribe", "channels": channels, "id": "s1"}));
    assert_eq!(answer["type"], "subscribed");
    assert_eq!(answer["id"], "s1");
    assert_eq!(answer["channels"], json!(["odin.token.BTC.trade"]));
    assert_eq!(answer["total"], 1);
    assert!(answer["epoch"].is_string() && answer["pos"].is_u64() && answer["ts"].is_u64());
    assert!(answer.get("snapshot").is_none());
    assert_eq!(rejection(&answer, "a..b"), "invalid_channel");
    assert_eq!(rejection(&answer, "odin.token.x y"), "invalid_channel");
    assert_eq!(rejection(&answer, &long), "channel_too_long");
    assert_eq!(rejection(&answer, "market.>"), "channel_not_allowed");
    assert_eq!(rejection(&answer, ">"), "channel_not_allowed");

    let more = ["A", "B", "C", "D", "E", "F"].map(|token| format!("odin.token.{token}.x"));
    let more = more.each_ref().map(String::as_str);
    let answer = client.subscribe(&more);
    assert_eq!(answer["total"], 6);
    assert_eq!(rejection(&answer, "odin.token.F.x"), "too_many_channels");
    let answer = client.subscribe(&[&more[..], &["odin.token.G.x"]].concat());
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("too_many_channels")));
    assert_eq!(answer["limit"], 6);
    let again = client.subscribe(&["odin.token.A.x"]);
    assert_eq!(
        (again["channels"].clone(), again["total"].clone()),
        (json!(["odin.token.A.x"]), 6.into())
    );
}

#[test]
fn unsubscribe_ends_deliveries_and_names_what_was_not_subscribed() {
    let server = server();
    let mut client = Client::connect(&server);
    client.subscribe(&["odin.token.*.trade", "odin.token.*.update"]);
    client.next_events(3);
    let unsubscribe = json!({"type": "unsubscribe", "id": 5, "channels":
        ["odin.token.*.trade", "odin.token.*.update", "odin.token.BTC.trade"]});
    let answer = client.command(&unsubscribe);
    assert_eq!(answer["type"], "unsubscribed");
    assert_eq!(answer["id"], 5);
    assert_eq!(answer["channels"], json!(["odin.token.*.trade", "odin.token.*.update"]));
    assert_eq!(rejection(&answer, "odin.token.BTC.trade"), "not_subscribed");
    assert_eq!(answer["total"], 0);
    // Events that came before the answer are kept aside: drop them. Nothing may follow.
    let last = client.command(&json!({"type": "connection:status"}))["last_seq"].as_u64().unwrap();
    let mut seq = 3;
    while seq < last {
        seq = client.next_event()["seq"].as_u64().unwrap();
    }
    let mut other = Client::connect(&server);
    other.subscribe(&["odin.token.>"]);
    other.next_events(50);
    client.assert_quiet();
}

#[test]
fn subscriptions_are_listed() {
    let server = Server::serve(&["--source", "sim"]);
    let mut client = Client::connect(&server);
    let empty = client.command(&json!({"type": "subscriptions"}));
    assert_eq!(empty, json!({"type": "subscriptions", "channels": [], "total": 0}));
    client.subscribe(&["odin.token.T9.y", "odin.token.*.x"]);
    let answer = client.command(&json!({"type": "subscriptions", "id": -1}));
    let expected = json!({"type": "subscriptions", "channels":
        ["odin.token.*.x", "odin.token.T9.y"], "total": 2, "id": -1});
    assert_eq!(answer, expected);
}

#[test]
fn a_snapshot_comes_after_its_acknowledgement_in_order_and_before_live_events() {
    let server = server();
    let mut first = Client::connect(&server);
    first.subscribe(&["odin.token.>"]);
    first.next_events(400);
    let mut client = Client::connect(&server);
    let subscribe = json!({"type": "subscribe", "channels": ["odin.token.*.trade"],
        "snapshot": true});
    client.send(&subscribe);
    let answer = client.next();
    assert_eq!(answer["type"], "subscribed", "{answer}");
    assert_eq!(answer["snapshot"], json!({"messages": 5, "complete": true}));
    let newest = answer["pos"].as_u64().unwrap();
    let snapshot = client.next_events(5);
    let positions: Vec<u64> = snapshot.iter().map(|event| event["pos"].as_u64().unwrap()).collect();
    assert!(positions.is_sorted() && positions[4] <= newest, "{positions:?}");
    let mut channels: Vec<&str> =
        snapshot.iter().map(|event| event["channel"].as_str().unwrap()).collect();
    channels.sort_unstable();
    channels.dedup();
    assert_eq!(channels.len(), 5);
    let live = client.next_event();
    assert_eq!(live["seq"], 6);
    assert!(live["pos"].as_u64().unwrap() > newest);

    // What it has already is not sent again.
    let again = json!({"type": "subscribe", "channels": ["odin.token.BTC.trade"],
        "snapshot": true});
    let answer = client.command(&again);
    assert_eq!(answer["snapshot"], json!({"messages": 0, "complete": true}));
}

#[test]
fn heartbeat_answers_with_the_servers_time() {
    let server = Server::serve(&["--source", "sim"]);
    let mut client = Client::connect(&server);
    let answer = client.command(&json!({"type": "heartbeat", "ts": 123, "id": "h"}));
    assert_eq!((&answer["type"], &answer["ts"]), (&json!("heartbeat"), &json!(123)));
    assert_eq!(answer["id"], "h");
    assert!(answer["server_time"].as_u64().unwrap() > 1_700_000_000_000);
}

#[test]
fn status_counts_the_instances_clients_and_measures_latency() {
    let server = Server::serve(&["--source", "sim"]);
    let mut client = Client::connect(&server);
    let others = [Client::connect(&server), Client::connect(&server)];
    client.subscribe(&["odin.token.T9.x"]);
    let status = client.command(&json!({"type": "connection:status"}));
    assert_eq!(status["connected_clients"], 3);
    assert_eq!(status["subscriptions"], 1);
    assert_eq!(status["source"], "live");
    assert_eq!(status["last_seq"], 0);
    assert_eq!(status["connection_id"], client.welcome["connection_id"]);
    // The first one sent a ping, which this client answers when it reads again.
    loop {
        let status = client.command(&json!({"type": "connection:status"}));
        if status["latency_ms"].is_u64() {
            break;
        }
    }
    drop(others);
    loop {
        let status = client.command(&json!({"type": "connection:status"}));
        if status["connected_clients"] == 1 {
            break;
        }
        if let Some(retry_after_ms) = status["retry_after_ms"].as_u64() {
            // Who asks on and on is closed.
            std::thread::sleep(Duration::from_millis(retry_after_ms));
        }
    }
}

#[test]
fn replay_sends_the_same_events_again() {
    let server = Server::serve(&["--source", "sim", "--sim-rate", "500"]);
    let mut client = Client::connect(&server);
    let nothing = client.command(&json!({"type": "replay", "from_seq": 1, "to_seq": 1}));
    assert_eq!(nothing["code"], "range_not_available");
    assert_eq!((&nothing["first_seq"], &nothing["last_seq"]), (&json!(0), &json!(0)));

    client.subscribe(&["odin.token.>"]);
    let events = client.next_events(150);
    client.command(&json!({"type": "unsubscribe", "channels": ["odin.token.>"]}));
    let last = client.command(&json!({"type": "connection:status"}))["last_seq"].as_u64().unwrap();
    let mut events = events;
    while events.len() < last as usize {
        events.push(client.next_event());
    }
    let (from, to) = (last - 99, last);
    client.send(&json!({"type": "replay", "from_seq": from, "to_seq": to, "id": 9}));
    let answer = client.next();
    let expected = json!({"type": "replay", "from_seq": from, "to_seq": to, "count": 100, "id": 9});
    assert_eq!(answer, expected);
    assert_eq!(client.next_events(100), events[from as usize - 1..]);

    for (from, to) in [(last - 100, last), (last, last + 1), (last, last - 1), (0, 0)] {
        let answer = client.command(&json!({"type": "replay", "from_seq": from, "to_seq": to}));
        assert_eq!(answer["code"], "range_not_available", "{answer}");
        assert_eq!((&answer["first_seq"], &answer["last_seq"]), (&json!(last - 99), &json!(last)));
    }
}

#[test]
fn what_is_no_command_gets_a_stable_error() {
    let server = Server::serve(&["--source", "sim"]);
    let mut client = Client::connect(&server);
    let cases = [
        ("hello", "invalid_json"),
        ("{\"type\":", "invalid_json"),
        ("[]", "invalid_command"),
        ("{}", "invalid_command"),
        (r#"{"type":"subscribe"}"#, "invalid_command"),
        (r#"{"type":"subscribe","channels":[]}"#, "invalid_command"),
        (r#"{"type":"subscribe","channels":"odin.token.BTC.trade"}"#, "invalid_command"),
        (r#"{"type":"replay","from_seq":"1","to_seq":2}"#, "invalid_command"),
        (r#"{"type":"publish"}"#, "unknown_type"),
    ];
    for (text, code) in cases {
        client.send_text(text);
        let error = client.next_answer();
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)), "{text}");
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    client.send_text("[1]");
    assert_eq!(client.next_answer().get("id"), None);
    client.send_text(r#"{"type":"publish","id":"my-id"}"#);
    assert_eq!(client.next_answer()["id"], "my-id");
    client.assert_quiet();
}

#[test]
fn commands_over_the_rate_are_refused_with_a_time_to_wait() {
    let server = Server::serve(&["--source", "sim", "--max-commands-per-second", "5"]);
    let mut client = Client::connect(&server);
    let mut refused = None;
    for id in 0..20 {
        let answer = client.command(&json!({"type": "heartbeat", "id": id}));
        assert_eq!(answer["id"], id);
        if answer["type"] == "error" {
            refused = Some(answer);
        }
    }
    let refused = refused.expect("20 commands at once are over 5 per second");
    assert_eq!(refused["code"], "rate_limited");
    assert!((1..=1_000).contains(&refused["retry_after_ms"].as_u64().unwrap()));
}

#[test]
fn a_flood_of_commands_is_closed() {
    let server = Server::serve(&["--source", "sim", "--max-commands-per-second", "1"]);
    let mut client = Client::connect(&server);
    for _ in 0..600 {
        if client.socket.write(Message::text(r#"{"type":"heartbeat"}"#)).is_err() {
            break;
        }
    }
    client.socket.flush().unwrap_or_default();
    let frame = client.read_close().unwrap();
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1008, "too many commands"));
}

#[test]
fn a_message_over_the_limit_is_explained_and_closed() {
    let server = Server::serve(&["--source", "sim", "--max-message-bytes", "1000"]);
    let mut client = Client::connect(&server);
    let padding = " ".repeat(1_000 - r#"{"type":"heartbeat"}"#.len());
    client.send_text(&format!(r#"{{"type":"heartbeat"}}{padding}"#));
    assert_eq!(client.next_answer()["type"], "heartbeat");
    client.send_text(&" ".repeat(1_001));
    let error = client.next_answer();
    assert_eq!((&error["code"], &error["limit"]), (&json!("message_too_large"), &json!(1_000)));
    assert_eq!(u16::from(client.read_close().unwrap().code), 1009);
}

#[test]
fn a_binary_message_is_closed_with_1003() {
    let server = Server::serve(&["--source", "sim"]);
    let mut client = Client::connect(&server);
    client.socket.send(Message::binary(vec![1, 2, 3])).unwrap();
    assert_eq!(u16::from(client.read_close().unwrap().code), 1003);
}

#[test]
fn a_silent_client_is_pinged_then_closed() {
    let server = Server::serve(&[
        "--source",
        "sim",
        "--heartbeat-seconds",
        "1",
        "--idle-timeout-seconds",
        "4",
    ]);
    let mut client = Client::connect(&server);
    // tungstenite queues the pong when it reads the ping and sends it with the next read or write.
    let mut pings = 0;
    while pings < 3 {
        if let Message::Ping(_) = client.socket.read().unwrap() {
            pings += 1;
        }
    }
    let mut silent = server.connect();
    use std::io::{Read as _, Write as _};
    silent.write_all(support::client::UPGRADE.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    silent.read_to_end(&mut bytes).unwrap_or_default();
    let close = [&[0x88, 2 + 12][..], &1001_u16.to_be_bytes(), b"idle timeout"].concat();
    assert!(bytes.windows(close.len()).any(|window| window == close));
}
