//! Durable consumers: what the broker says of them, and processes that are really killed.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, Info};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use support::{Client, GUARD, Nats, Server};

const SUBJECT: &str = "odin.token.BTC.trade";

/// A server in durable mode; it need not be ready. Nothing ages away during a test.
fn start(nats: &Nats, instance: &str) -> Server {
    Server::serve(&[
        "--nats-url",
        &nats.url(),
        "--instance",
        instance,
        "--js-consumer-mode",
        "durable",
        "--js-consumer-inactive-threshold",
        "45s",
        "--js-stream-max-age",
        "10h",
    ])
}

fn serve(nats: &Nats, instance: &str) -> Server {
    let server = start(nats, instance);
    server.wait_ready(200);
    server
}

fn follower(server: &Server) -> Client {
    let mut client = Client::connect(server);
    assert_eq!(client.subscribe(&["odin.token.>"])["total"], 1);
    client
}

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["data"]["n"].as_u64().unwrap()).collect()
}

fn consumers(nats: &Nats) -> Vec<Info> {
    nats.with_jetstream(async |context| {
        let stream = context.get_stream("ODIN_TOKENS").await.unwrap();
        stream.consumers().try_collect().await.unwrap()
    })
}

/// Asks the broker until it says this of its only consumer.
fn wait_until(nats: &Nats, what: &str, is_true: impl Fn(&Info) -> bool) -> Info {
    let deadline = Instant::now() + GUARD;
    loop {
        let found = consumers(nats);
        if let [only] = &found[..]
            && is_true(only)
        {
            return only.clone();
        }
        assert!(Instant::now() < deadline, "not {what}: {found:#?}");
    }
}

#[test]
fn the_broker_knows_how_far_an_instance_is_and_when_to_forget_it() {
    let nats = Nats::start();
    let server = serve(&nats, "edge-1.eu");
    let mut client = follower(&server);
    nats.publish_numbers(SUBJECT, 0..20);
    assert_eq!(numbers(&client.next_events(20)), (0..20).collect::<Vec<u64>>());
    let info = wait_until(&nats, "acknowledged", |info| info.ack_floor.stream_sequence == 20);
    assert_eq!(info.name, "odin-ws-edge-1_eu");
    assert_eq!(info.config.durable_name.as_deref(), Some("odin-ws-edge-1_eu"));
    assert_eq!(info.config.ack_policy, AckPolicy::Explicit);
    assert_eq!(info.config.inactive_threshold, Duration::from_secs(45));
    assert_eq!((info.num_ack_pending, info.num_pending), (0, 0));
}

#[test]
fn every_instance_gets_everything() {
    let nats = Nats::start();
    let servers = [serve(&nats, "a"), serve(&nats, "b")];
    let mut clients = servers.each_ref().map(follower);
    nats.publish_numbers(SUBJECT, 0..300);
    for client in &mut clients {
        assert_eq!(numbers(&client.next_events(300)), (0..300).collect::<Vec<u64>>());
    }
    let mut names: Vec<String> = consumers(&nats).into_iter().map(|info| info.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["odin-ws-a", "odin-ws-b"]);
}

#[test]
fn a_second_process_of_the_same_name_is_told_and_waits_until_the_first_is_gone() {
    let nats = Nats::start();
    let mut first = serve(&nats, "same");
    let mut client = follower(&first);
    let mut second = start(&nats, "same");
    let told = second.wait_for_log("another process reads the durable consumer odin-ws-same");
    assert!(told.contains("WS_INSTANCE"), "{told}");
    second.wait_ready(503);
    nats.publish_numbers(SUBJECT, 0..50);
    assert_eq!(numbers(&client.next_events(50)), (0..50).collect::<Vec<u64>>());
    first.signal("TERM");
    first.wait_exit();
    second.wait_ready(200);
    assert_eq!(Client::connect(&second).welcome["pos"], 50);
}

#[test]
fn a_consumer_of_somebody_else_is_left_alone() {
    let nats = Nats::start();
    serve(&nats, "other");
    nats.with_jetstream(async |context| {
        let config = async_nats::jetstream::consumer::pull::Config {
            durable_name: Some("odin-ws-mine".into()),
            ..Default::default()
        };
        context.create_consumer_on_stream(config, "ODIN_TOKENS").await.unwrap();
    });
    let mut server = start(&nats, "mine");
    let told = server.wait_for_log("a consumer odin-ws-mine exists");
    assert!(told.contains("JS_CONSUMER_NAME"), "{told}");
    server.wait_ready(503);
}

#[test]
fn a_killed_instance_reads_the_window_first_and_drops_what_comes_again() {
    let nats = Nats::start();
    let mut server = serve(&nats, "edge");
    let mut client = follower(&server);
    nats.publish_numbers(SUBJECT, 0..10);
    client.next_events(10);
    let before = wait_until(&nats, "acknowledged", |info| info.ack_floor.stream_sequence == 10);
    // These are sent to a process that cannot read them any more.
    server.signal("STOP");
    nats.publish_numbers(SUBJECT, 10..60);
    wait_until(&nats, "under way", |info| info.num_ack_pending == 50);
    server.signal("KILL");
    server.wait_exit();

    let server = serve(&nats, "edge");
    let mut client = Client::connect(&server);
    assert_eq!(client.welcome["pos"], 60);
    let subscribe = json!({"type": "subscribe", "channels": [SUBJECT], "snapshot": true});
    assert_eq!(client.command(&subscribe)["pos"], 60);
    assert_eq!(client.next_event()["data"]["n"], 59);
    nats.publish_numbers(SUBJECT, 60..70);
    assert_eq!(numbers(&client.next_events(10)), (60..70).collect::<Vec<u64>>());
    let after = wait_until(&nats, "acknowledged", |info| info.ack_floor.stream_sequence == 70);
    assert_eq!(after.created, before.created, "the same consumer goes on");
    assert!(after.delivered.consumer_sequence >= 120, "nothing was sent again: {after:#?}");
    client.assert_quiet();
    nats.publish_numbers(SUBJECT, 70..71);
    let event = client.next_event();
    assert_eq!((&event["pos"], &event["prev"]), (&json!(71), &json!(70)));
}
