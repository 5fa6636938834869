//! The server on a real nats-server with JetStream, killed and restarted for real.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::time::Duration;

use async_nats::jetstream::stream::{Config, StorageType};
use serde_json::{Value, json};
use support::{Client, Nats, Server};

const ALL: &[&str] = &["odin.token.>", "odin.global.>"];

fn serve(nats: &Nats) -> Server {
    let server = Server::serve(&["--nats-url", &nats.url()]);
    server.wait_ready(200);
    server
}

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["data"]["n"].as_u64().unwrap()).collect()
}

fn positions(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["pos"].as_u64().unwrap()).collect()
}

/// Subscribes to everything with a snapshot of nothing, so that the stream is known to be read.
fn follower(server: &Server) -> Client {
    let mut client = Client::connect(server);
    assert_eq!(client.subscribe(ALL)["total"], 2);
    client
}

#[test]
fn envelopes_carry_stream_position_store_time_and_payload() {
    let nats = Nats::start();
    let server = serve(&nats);
    let mut client = follower(&server);
    let first = nats.publish("odin.token.BTC.trade", r#"{"price": 1.50}"#);
    nats.publish("odin.token.ETH.trade", r#"{"type":"swap","data":{"a":[1]}}"#);
    nats.publish("odin.token.BTC.trade", "plain text");
    nats.publish_bytes("odin.global.trending", vec![0xFF, 0x00]);
    let events = client.next_events(4);
    assert_eq!(positions(&events), [first, first + 1, first + 2, first + 3]);
    assert_eq!(
        (&events[0]["type"], &events[0]["data"]),
        (&json!("token_trade"), &json!({"price": 1.5}))
    );
    assert_eq!((&events[1]["type"], &events[1]["data"]), (&json!("swap"), &json!({"a": [1]})));
    assert_eq!(
        (&events[2]["encoding"], &events[2]["data"]),
        (&json!("base64"), &json!("cGxhaW4gdGV4dA=="))
    );
    assert_eq!((&events[3]["type"], &events[3]["data"]), (&json!("global_update"), &json!("/wA=")));
    assert_eq!((&events[2]["prev"], &events[1]["prev"]), (&json!(first), &json!(0)));
    let stored_ms = nats.with_jetstream(async |context| {
        let stream = context.get_stream("ODIN_TOKENS").await.unwrap();
        stream.get_raw_message(first).await.unwrap().time.unix_timestamp_nanos() / 1_000_000
    });
    assert_eq!(events[0]["ts"].as_i64().map(i128::from), Some(stored_ms));
}

#[test]
fn the_stream_is_created_as_documented() {
    let nats = Nats::start();
    let _server = serve(&nats);
    let config = nats.with_jetstream(async |context| {
        context.get_stream("ODIN_TOKENS").await.unwrap().cached_info().config.clone()
    });
    assert_eq!(config.subjects, ALL);
    assert_eq!(config.max_age, Duration::from_secs(30));
    assert_eq!((config.max_messages, config.max_bytes), (100_000, 52_428_800));
    assert_eq!((config.storage, config.num_replicas), (StorageType::File, 1));
}

#[test]
fn a_stream_with_other_settings_is_used_as_it_is_and_changed_only_on_request() {
    let nats = Nats::start();
    let max_messages = async |context: async_nats::jetstream::Context| {
        context.get_stream("ODIN_TOKENS").await.unwrap().cached_info().config.max_messages
    };
    nats.with_jetstream(async |context| {
        let config = Config {
            name: "ODIN_TOKENS".into(),
            subjects: vec!["odin.>".into()],
            max_messages: 7,
            ..Config::default()
        };
        context.create_stream(config).await.unwrap();
    });
    let mut server = serve(&nats);
    let warning = server.wait_for_log("the stream has other settings");
    for part in [
        "subjects: has odin.>, configured odin.global.>,odin.token.>",
        "max_msgs: has 7, configured 100000",
        "max_age: has 0ns, configured 30s",
        "JS_STREAM_UPDATE",
    ] {
        assert!(warning.contains(part), "{part} in {warning}");
    }
    assert_eq!(nats.with_jetstream(max_messages), 7);
    // The stream holds more than what is served: the rest does not come.
    let mut client = follower(&server);
    nats.publish("odin.other.x", "1");
    nats.publish("odin.token.BTC.trade", r#"{"n":1}"#);
    assert_eq!(client.next_event()["channel"], "odin.token.BTC.trade");

    let changing = Server::serve(&["--nats-url", &nats.url(), "--js-stream-update"]);
    changing.wait_ready(200);
    assert_eq!(nats.with_jetstream(max_messages), 100_000);
}

#[test]
fn order_is_kept_through_many_publishers_and_two_instances_get_everything() {
    let nats = Nats::start();
    let servers = [serve(&nats), serve(&nats)];
    let mut clients = servers.each_ref().map(follower);
    std::thread::scope(|scope| {
        for token in 0..4 {
            let url = nats.url();
            scope.spawn(move || publish_apart(&url, &format!("odin.token.T{token}.trade")));
        }
    });
    let seen = clients.each_mut().map(|client| client.next_events(400));
    assert_eq!(positions(&seen[0]), positions(&seen[1]));
    assert!(positions(&seen[0]).is_sorted());
    for token in 0..4 {
        let channel = format!("odin.token.T{token}.trade");
        let own: Vec<Value> =
            seen[0].iter().filter(|event| event["channel"] == channel).cloned().collect();
        assert_eq!(numbers(&own), (0..100).collect::<Vec<u64>>());
        let chain: Vec<u64> = own.iter().map(|event| event["prev"].as_u64().unwrap()).collect();
        assert_eq!(chain[1..], positions(&own)[..99]);
    }
    assert_eq!(clients[0].welcome["epoch"], clients[1].welcome["epoch"]);
}

/// Publishes 0..100 from a connection and thread of its own.
fn publish_apart(url: &str, subject: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(url).await.unwrap();
        let context = async_nats::jetstream::new(client);
        for number in 0..100 {
            let payload = format!("{{\"n\":{number}}}").into();
            context.publish(subject.to_owned(), payload).await.unwrap().await.unwrap();
        }
    });
}

#[test]
fn filters_and_wildcards_get_their_channels_only() {
    let nats = Nats::start();
    let server = serve(&nats);
    let mut exact = Client::connect(&server);
    let mut wild = Client::connect(&server);
    exact.subscribe(&["odin.token.BTC.trade"]);
    wild.subscribe(&["odin.token.*.trade", "odin.token.BTC.>"]);
    for (number, subject) in
        ["BTC.trade", "ETH.trade", "BTC.update", "ETH.update", "BTC.trade"].iter().enumerate()
    {
        nats.publish(&format!("odin.token.{subject}"), &format!("{{\"n\":{number}}}"));
    }
    assert_eq!(numbers(&exact.next_events(2)), [0, 4]);
    assert_eq!(numbers(&wild.next_events(4)), [0, 1, 2, 4]);
    exact.assert_quiet();
    wild.assert_quiet();
}

#[test]
fn an_instance_that_starts_later_reads_the_retained_window_first() {
    let nats = Nats::start();
    let _first = serve(&nats);
    nats.publish_numbers("odin.token.BTC.trade", 0..50);
    nats.publish_numbers("odin.token.ETH.trade", 0..3);
    let later = serve(&nats);
    let mut client = Client::connect(&later);
    assert_eq!(client.welcome["pos"], 53);
    let subscribe = json!({"type": "subscribe", "channels": ["odin.token.>"], "snapshot": true});
    let answer = client.command(&subscribe);
    assert_eq!(answer["snapshot"], json!({"messages": 2, "complete": true}));
    assert_eq!(numbers(&client.next_events(2)), [49, 2]);
}

#[test]
fn a_killed_and_restarted_broker_loses_nothing_and_repeats_nothing() {
    let mut nats = Nats::start();
    let server = serve(&nats);
    let mut client = follower(&server);
    nats.publish_numbers("odin.token.BTC.trade", 0..100);
    let mut events = client.next_events(100);
    for round in 1..=3 {
        nats.kill();
        assert_eq!(client.next_answer()["type"], "source_stale");
        server.wait_ready(503);
        nats.launch();
        assert_eq!(client.next_answer()["type"], "source_live");
        server.wait_ready(200);
        nats.publish_numbers("odin.token.BTC.trade", round * 100..round * 100 + 100);
        events.extend(client.next_events(100));
    }
    assert_eq!(numbers(&events), (0..400).collect::<Vec<u64>>());
    assert_eq!(positions(&events), (1..=400).collect::<Vec<u64>>());
    client.assert_quiet();
}

#[test]
fn what_is_published_while_the_server_cannot_read_arrives_afterwards() {
    let mut nats = Nats::start();
    let server = serve(&nats);
    let mut client = follower(&server);
    nats.publish_numbers("odin.token.BTC.trade", 0..10);
    nats.kill();
    nats.launch();
    // At once: the server has not connected again, or just.
    nats.publish_numbers("odin.token.BTC.trade", 10..60);
    let mut events = Vec::new();
    while events.len() < 60 {
        let message = client.next();
        if message.get("seq").is_some() {
            events.push(message);
        }
    }
    assert_eq!(numbers(&events), (0..60).collect::<Vec<u64>>());
}

#[test]
fn a_deleted_consumer_is_made_again_without_a_gap() {
    let nats = Nats::start();
    let server = serve(&nats);
    let mut client = follower(&server);
    nats.publish_numbers("odin.token.BTC.trade", 0..10);
    client.next_events(10);
    nats.with_jetstream(async |context| {
        use futures_util::TryStreamExt as _;
        let stream = context.get_stream("ODIN_TOKENS").await.unwrap();
        let names: Vec<String> = stream.consumer_names().try_collect().await.unwrap();
        assert_eq!(names.len(), 1, "one consumer per instance");
        stream.delete_consumer(&names[0]).await.unwrap();
    });
    nats.publish_numbers("odin.token.BTC.trade", 10..20);
    // Another consumer takes over at once: nobody has to be told.
    assert_eq!(numbers(&client.next_events(10)), (10..20).collect::<Vec<u64>>());
    client.assert_quiet();
}

#[test]
fn a_stream_that_was_deleted_is_made_again_with_a_new_epoch() {
    let nats = Nats::start();
    let server = serve(&nats);
    let mut client = follower(&server);
    nats.publish_numbers("odin.token.BTC.trade", 0..10);
    client.next_events(10);
    let before = client.welcome["epoch"].clone();
    nats.with_jetstream(async |context| {
        context.delete_stream("ODIN_TOKENS").await.unwrap();
    });
    let resync = loop {
        let message = client.next_answer();
        if message["type"] == "resync" {
            break message;
        }
    };
    assert_eq!(resync["reason"], "stream_recreated");
    assert_ne!(resync["epoch"], before);
    server.wait_ready(200);
    nats.publish_numbers("odin.token.BTC.trade", 77..78);
    let event = loop {
        let message = client.next();
        if message.get("seq").is_some() {
            break message;
        }
    };
    assert_eq!(
        (&event["data"]["n"], &event["pos"], &event["prev"]),
        (&json!(77), &json!(1), &json!(0))
    );
    assert_eq!(event["seq"], 11);
    assert_eq!(Client::connect(&server).welcome["epoch"], resync["epoch"]);
}

#[test]
fn messages_that_were_lost_are_told_of() {
    let mut nats = Nats::start();
    let server = serve(&nats);
    let mut client = follower(&server);
    nats.publish_numbers("odin.token.BTC.trade", 0..10);
    client.next_events(10);
    // The server cannot connect again while it is stopped; meanwhile the stream moves on.
    server.signal("STOP");
    nats.kill();
    nats.launch();
    nats.publish_numbers("odin.token.BTC.trade", 10..20);
    nats.with_jetstream(async |context| {
        let stream = context.get_stream("ODIN_TOKENS").await.unwrap();
        stream.purge().sequence(16).await.unwrap();
    });
    server.signal("CONT");
    let resync = loop {
        let message = client.next_answer();
        if message["type"] == "resync" {
            break message;
        }
    };
    let expected =
        json!({"type": "resync", "epoch": client.welcome["epoch"], "reason": "history_lost"});
    assert_eq!(resync, expected);
    assert_eq!(client.next_answer()["type"], "source_live");
    nats.publish_numbers("odin.token.BTC.trade", 20..21);
    let events = client.next_events(6);
    assert_eq!(numbers(&events), [15, 16, 17, 18, 19, 20]);
    assert_eq!((&events[0]["prev"], &events[1]["prev"]), (&json!(0), &json!(16)));
}

#[test]
fn a_broker_that_is_absent_at_the_start_is_waited_for() {
    let mut nats = Nats::absent();
    let server = Server::serve(&["--nats-url", &nats.url()]);
    server.wait_ready(503);
    assert!(server.get("/ready").contains("\"source\":\"connecting\""));
    let mut client = Client::connect(&server);
    assert_eq!((&client.welcome["epoch"], &client.welcome["pos"]), (&Value::Null, &json!(0)));
    let stale = client.next();
    assert_eq!((&stale["type"], &stale["epoch"]), (&json!("source_stale"), &Value::Null));
    assert_eq!(client.subscribe(ALL)["type"], "subscribed");
    nats.launch();
    server.wait_ready(200);
    let [named, live] = [client.next(), client.next()];
    assert_eq!((&named["type"], &live["type"]), (&json!("source_stale"), &json!("source_live")));
    assert!(named["epoch"].is_string() && named["epoch"] == live["epoch"], "{named} {live}");
    nats.publish_numbers("odin.token.BTC.trade", 0..5);
    assert_eq!(numbers(&client.next_events(5)), [0, 1, 2, 3, 4]);
}

#[test]
fn the_core_source_has_its_own_positions_and_both_hierarchies() {
    let mut nats = Nats::start();
    let arguments = ["--source", "core", "--nats-url", &nats.url()];
    let server = Server::serve(&arguments);
    server.wait_ready(200);
    let mut client = Client::connect(&server);
    client.subscribe(&["odin.token.>", "odin.tokens.*.price", "token.*.update", "global.>"]);
    let subjects =
        ["odin.token.BTC.trade", "odin.tokens.7.price", "token.7.update", "global.trending"];
    for subject in subjects {
        nats.publish_core(subject, "{}");
    }
    // Each subject has a connection of its own: their order among each other is open.
    let events = client.next_events(4);
    assert_eq!(positions(&events), [1, 2, 3, 4]);
    let mut types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    types.sort_unstable();
    assert_eq!(types, ["global_update", "price:update", "token_trade", "token_update"]);
    nats.kill();
    assert_eq!(client.next_answer()["type"], "source_stale");
    nats.launch();
    assert_eq!(client.next_answer()["type"], "resync");
    assert_eq!(client.next_answer()["type"], "source_live");
    nats.publish_core("odin.token.BTC.trade", "{}");
    assert_eq!(client.next_event()["seq"], 5);
}

#[test]
fn simulate_publishes_what_it_says() {
    let nats = Nats::start();
    let server = serve(&nats);
    let mut client = follower(&server);
    let arguments = [
        "simulate",
        "--nats-url",
        &nats.url(),
        "--tokens",
        "20",
        "--rate",
        "500",
        "--count",
        "300",
    ];
    let (code, stdout, stderr) = support::server::run(&arguments, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.starts_with("published 300 in ") && stdout.contains(", failed 0"), "{stdout}");
    let events = client.next_events(300);
    assert_eq!(positions(&events), (1..=300).collect::<Vec<u64>>());
    assert!(events.iter().all(|event| event["data"]["sent_at"].is_u64()));
}
