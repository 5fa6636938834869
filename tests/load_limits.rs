//! WS_MEMORY_LIMIT and WS_CPU_LIMIT: near them the server takes in less.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::time::Instant;

use async_nats::jetstream::consumer::Info;
use futures_util::TryStreamExt as _;
use support::server::run;
use support::{Client, Nats, Server};

const SUBJECT: &str = "odin.token.BTC.trade";
const MEMORY_PAUSE: &str = "ws_source_paused_seconds_total{cause=\"memory\"}";
const CPU_PAUSE: &str = "ws_source_paused_seconds_total{cause=\"cpu\"}";

/// More than a server that pauses takes at once: 256 are let through, and a pull and a half is
/// under way.
const MESSAGES: u64 = 900;

/// Publishes numbered messages; how many wait in the stream then for the consumer that is behind
/// least.
fn publish(nats: &Nats, count: u64) -> u64 {
    nats.with_jetstream(async |context| {
        let mut acknowledgements = Vec::new();
        for number in 0..count {
            let payload = format!("{{\"n\":{number}}}").into();
            acknowledgements.push(context.publish(SUBJECT, payload).await.unwrap());
        }
        for acknowledgement in acknowledgements {
            acknowledgement.await.unwrap();
        }
        let stream = context.get_stream("ODIN_TOKENS").await.unwrap();
        let consumers: Vec<Info> = stream.consumers().try_collect().await.unwrap();
        consumers.iter().map(|info| info.num_pending).min().unwrap()
    })
}

/// Without memory to spare the backlog stays in the stream, and clients get everything all the same.
fn assert_trickle(mode: &str) {
    let nats = Nats::start();
    let url = nats.url();
    let arguments = ["--nats-url", &url, "--memory-limit", "1", "--js-consumer-mode", mode];
    let mut server = Server::serve(&arguments);
    server.wait_ready(200);
    let mut client = Client::connect(&server);
    client.subscribe(&["odin.token.>"]);
    let backlog = publish(&nats, MESSAGES);
    assert!(backlog > 0, "everything was pulled");
    let events = client.next_events(MESSAGES as usize);
    let numbers: Vec<u64> =
        events.iter().map(|event| event["data"]["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..MESSAGES).collect::<Vec<u64>>());
    let metrics = server.metrics();
    assert!(metrics[MEMORY_PAUSE] > 0.0);
    assert_eq!(metrics[CPU_PAUSE], 0.0);
    // A pause is no outage, and nothing is sent again after it.
    for (name, count) in [
        ("ws_source_connections_total", 1.0),
        ("ws_source_consumers_total", 1.0),
        ("ws_source_messages_total", MESSAGES as f64),
    ] {
        assert_eq!(metrics[name], count, "{name}");
    }
    drop(client);
    server.signal("TERM");
    assert!(server.wait_exit().success());
    let log = server.rest_of_log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("the source pauses")).collect();
    assert!(told.len() == 1 && told[0].contains("\"WS_MEMORY_LIMIT\""), "{log}");
}

#[test]
fn without_memory_an_ordered_consumer_keeps_the_backlog_and_everything_arrives() {
    assert_trickle("ordered");
}

#[test]
fn without_memory_a_durable_consumer_keeps_the_backlog_and_everything_arrives() {
    assert_trickle("durable");
}

#[test]
fn without_cpu_the_source_pauses_and_goes_on() {
    let arguments = ["--source", "sim", "--sim-rate", "100000", "--cpu-limit", "1"];
    let mut server = Server::serve(&arguments);
    let deadline = Instant::now() + support::GUARD;
    // Two pauses: the source went on after the first.
    let mut pauses: Vec<(f64, f64)> = Vec::new();
    while pauses.len() < 2 {
        assert!(Instant::now() < deadline, "no pause after {pauses:?}");
        let metrics = server.metrics();
        let now = (metrics[CPU_PAUSE], metrics["ws_source_events_total"]);
        let before = pauses.last().copied().unwrap_or_default();
        if now.0 > before.0 && now.1 > before.1 {
            pauses.push(now);
        }
    }
    assert_eq!(server.metrics()[MEMORY_PAUSE], 0.0);
    server.signal("TERM");
    assert!(server.wait_exit().success());
    assert!(server.rest_of_log().contains("\"WS_CPU_LIMIT\""));
}

#[test]
fn far_from_the_limits_nothing_is_paused() {
    let arguments = ["--source", "sim", "--sim-rate", "100", "--memory-limit", "1099511627776"];
    let mut server = Server::serve(&arguments);
    let mut client = Client::connect(&server);
    client.subscribe(&["odin.token.>", "odin.global.>"]);
    client.next_events(50);
    let metrics = server.metrics();
    assert_eq!((metrics[MEMORY_PAUSE], metrics[CPU_PAUSE]), (0.0, 0.0));
}

#[test]
fn limits_that_cannot_be_are_refused() {
    let environment = [("WS_CPU_LIMIT", "101"), ("WS_MEMORY_LIMIT", "x")];
    let (code, _, stderr) = run(&["serve", "--source", "sim"], &environment);
    assert_eq!(code, Some(2));
    for part in [
        "2 settings are wrong",
        "WS_CPU_LIMIT (--cpu-limit) is \"101\": must be a whole number from 0 to 100",
        "WS_MEMORY_LIMIT (--memory-limit) is \"x\": must be a whole number from 0 to",
    ] {
        assert!(stderr.contains(part), "{part} in {stderr}");
    }
}
