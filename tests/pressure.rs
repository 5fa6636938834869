//! What holds the source back: full queues and rates. The backlog stays in the stream.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, Context};
use futures_util::TryStreamExt as _;
use odin_ws::ingest::{
    ConsumerMode, DurableSettings, JetStreamSettings, Publisher, Source, StreamSettings, run,
};
use odin_ws::testing::{FEED_CAPACITY, Feed, FeedReceiver, feed};
use serde_json::{Value, json};
use support::nats::NatsServer;
use support::source::nats_at;
use support::{Backend, Client, Nats, Server};
use tokio::sync::watch;

const SUBJECT: &str = "odin.token.BTC.trade";

/// What may be under way to a source that does not take it: a pull, and the next when half is
/// there.
const UNDER_WAY: u64 = 256 + 128;

async fn publish(context: &Context, count: u64) {
    let mut acknowledgements = Vec::new();
    for number in 0..count {
        let payload = number.to_string().into();
        acknowledgements.push(context.publish(SUBJECT, payload).await.unwrap());
    }
    for acknowledgement in acknowledgements {
        acknowledgement.await.unwrap();
    }
}

/// Takes events until `count` of them have come; their positions.
async fn take(receiver: &FeedReceiver, count: usize) -> Vec<u64> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let is_open = tokio::time::timeout(support::GUARD, receiver.ready()).await;
        assert!(is_open.expect("nothing comes any more"), "the source has ended");
        let mut items = Vec::new();
        receiver.take(&mut items, FEED_CAPACITY);
        taken.extend(items.iter().filter_map(|item| match item {
            Feed::Event(event) => Some(event.position().pos.0),
            _ => None,
        }));
    }
    taken
}

/// Messages that wait in the stream for the consumer that is behind most.
async fn backlog(context: &Context) -> u64 {
    let stream = context.get_stream("ODIN_TOKENS").await.unwrap();
    let consumers: Vec<jetstream::consumer::Info> = stream.consumers().try_collect().await.unwrap();
    consumers.iter().map(|info| info.num_pending).max().unwrap()
}

#[tokio::test]
async fn a_full_queue_stops_the_pull_and_the_other_shards_are_up_to_date() {
    const CAPACITY: usize = 50;
    const MESSAGES: u64 = 5_000;
    for mode in [ConsumerMode::Ordered, ConsumerMode::Durable(DurableSettings::default())] {
        let server = NatsServer::start();
        let mut context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
        // The last of many acknowledgements waits for all the others.
        context.set_timeout(support::GUARD);
        let stream = StreamSettings { max_age: Duration::from_secs(36_000), ..Default::default() };
        let config = jetstream::stream::Config {
            name: stream.name.clone(),
            subjects: stream.subjects.clone(),
            ..Default::default()
        };
        context.create_stream(config).await.unwrap();
        publish(&context, MESSAGES).await;

        let (blocked, blocked_end) = feed(CAPACITY);
        let (other, other_end) = feed(FEED_CAPACITY);
        let (_shutdown, flag) = watch::channel(false);
        let source = JetStreamSettings { nats: nats_at(&server.url()), stream, mode };
        let publisher = Publisher::new(vec![blocked, other]);
        tokio::spawn(run(Source::JetStream(source), publisher, flag));

        // The first queue also holds the status and the epoch.
        let pushed = CAPACITY - 2 + 1;
        let mut theirs = take(&other_end, pushed).await;
        assert_eq!(theirs, (1..=pushed as u64).collect::<Vec<u64>>());
        let backlog = backlog(&context).await;
        assert!(backlog >= MESSAGES - pushed as u64 - UNDER_WAY, "{backlog} are left");

        let all = MESSAGES as usize;
        let (ours, rest) = tokio::join!(take(&blocked_end, all), take(&other_end, all - pushed));
        theirs.extend(rest);
        let all: Vec<u64> = (1..=MESSAGES).collect();
        assert_eq!((ours == all, theirs == all), (true, true));
    }
}

#[test]
fn the_nats_rate_is_kept_and_the_backlog_stays_in_the_stream() {
    let nats = Nats::start();
    let mut server = Server::serve(&["--nats-url", &nats.url(), "--max-nats-rate", "40"]);
    server.wait_ready(200);
    let mut client = Client::connect(&server);
    client.subscribe(&["odin.token.>"]);
    let began = Instant::now();
    nats.publish_numbers(SUBJECT, 0..120);
    let first = client.next_event();
    let backlog: u64 = nats.with_jetstream(async |context| {
        let stream = context.get_stream("ODIN_TOKENS").await.unwrap();
        let consumers: Vec<jetstream::consumer::Info> =
            stream.consumers().try_collect().await.unwrap();
        consumers[0].num_pending
    });
    let rest = client.next_events(119);
    // No sooner, however fast the machine: a tenth of a second's worth may come at once.
    assert!(began.elapsed() >= Duration::from_millis(1_000 * (120 - 4) / 40 - 100));
    let events: Vec<Value> = std::iter::once(first).chain(rest).collect();
    let numbers: Vec<u64> =
        events.iter().map(|event| event["data"]["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..120).collect::<Vec<u64>>());
    assert!(backlog > 0, "everything was pulled");
    let metrics = server.metrics();
    assert_eq!(metrics["ws_source_messages_total"], 120.0);
    assert_eq!(metrics["ws_source_status{status=\"live\"}"], 1.0);
    assert!(metrics["ws_source_paused_seconds_total{cause=\"nats_rate\"}"] > 1.0);
    assert!(metrics["ws_source_paused_seconds_total{cause=\"broadcast_rate\"}"] < 0.1);
}

#[test]
fn the_broadcast_rate_holds_for_every_source() {
    let arguments = ["--source", "sim", "--sim-rate", "1000", "--max-broadcast-rate", "50"];
    let mut server = Server::serve(&arguments);
    let mut client = Client::connect(&server);
    client.subscribe(&["odin.token.>", "odin.global.>"]);
    let events = client.next_events(120);
    // The simulator stamps an event when it hands it over.
    let ts = |event: &Value| event["ts"].as_u64().unwrap();
    let took_ms = ts(&events[119]) - ts(&events[0]);
    assert!(took_ms >= 1_000 * (119 - 5) / 50 - 100, "{took_ms} ms");
    assert!(server.metrics()["ws_source_paused_seconds_total{cause=\"broadcast_rate\"}"] > 1.0);
}

#[test]
fn the_broadcast_rate_holds_within_an_answer_of_a_backend() {
    let backend = Backend::start();
    let arguments =
        ["--source", "http", "--http-source-url", &backend.url(), "--max-broadcast-rate", "50"];
    let mut server = Server::serve(&arguments);
    server.wait_ready(200);
    let mut client = Client::connect(&server);
    client.subscribe(&["odin.token.>"]);
    let began = Instant::now();
    for number in 0..120 {
        backend.publish(json!({"ticker": "BTC", "n": number}));
    }
    let numbers: Vec<u64> =
        client.next_events(120).iter().map(|event| event["data"]["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..120).collect::<Vec<u64>>());
    assert!(began.elapsed() >= Duration::from_millis(1_000 * (120 - 5) / 50 - 100));
    assert!(server.metrics()["ws_source_paused_seconds_total{cause=\"broadcast_rate\"}"] > 1.0);
    // With changes at hand, and in the middle of a wait.
    (0..120).for_each(|number| backend.publish(json!({"ticker": "BTC", "n": number})));
    client.next_event();
    server.signal("TERM");
    assert!(server.wait_exit().success());
}

#[test]
fn a_rate_of_one_a_second_ends_at_once_when_told() {
    let mut server =
        Server::serve(&["--source", "sim", "--sim-rate", "1000", "--max-broadcast-rate", "1"]);
    let mut client = Client::connect(&server);
    client.subscribe(&["odin.token.>", "odin.global.>"]);
    client.next_event();
    server.signal("TERM");
    assert!(server.wait_exit().success());
}
