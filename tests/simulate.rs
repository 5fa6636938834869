//! The `simulate` command's engine against a real nats-server, and the same game in process.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashSet;

use async_nats::jetstream;
use odin_ws::ingest::{
    ConsumerMode, JetStreamSettings, SimSettings, SimulateSettings, Source, StreamSettings,
    simulate,
};
use odin_ws::testing::SourceStatus::{Live, Stale};
use support::nats::NatsServer;
use support::source::{RunningSource, Told, nats_at};
use tokio::sync::watch;

const STREAM: &str = "ODIN_TOKENS";

fn settings(url: &str, count: u64) -> SimulateSettings {
    SimulateSettings {
        nats: nats_at(url),
        stream: StreamSettings::default(),
        model: SimSettings { tokens: 100, events_per_second: Some(5_000), seed: 1 },
        outstanding_max: 500,
        count: Some(count),
        duration: None,
    }
}

#[tokio::test]
async fn what_is_published_arrives() {
    let server = NatsServer::start();
    let nats = nats_at(&server.url());
    let stream = StreamSettings::default();
    let mut source = RunningSource::start(Source::JetStream(JetStreamSettings {
        nats,
        stream,
        mode: ConsumerMode::Ordered,
    }));
    source.epoch_once_live().await;
    let (_shutdown, flag) = watch::channel(false);
    let publisher = tokio::spawn(simulate(settings(&server.url(), 1_000), flag));
    let mut channels = HashSet::new();
    for expected in 1..=1_000 {
        let Told::Event(pos, channel, _) = source.next().await else { panic!("no event") };
        assert_eq!(pos, expected);
        channels.insert(channel);
    }
    assert!(channels.len() > 100, "{}", channels.len());
    let summary = publisher.await.unwrap().unwrap();
    assert_eq!((summary.published_total, summary.failed_total), (1_000, 0));
    source.stop().await;
}

#[tokio::test]
async fn publishing_survives_the_broker_and_the_stream() {
    let mut server = NatsServer::start();
    let nats = nats_at(&server.url());
    let stream = StreamSettings::default();
    let mut source = RunningSource::start(Source::JetStream(JetStreamSettings {
        nats,
        stream,
        mode: ConsumerMode::Ordered,
    }));
    source.epoch_once_live().await;
    let (shutdown, flag) = watch::channel(false);
    let publisher = tokio::spawn(simulate(settings(&server.url(), u64::MAX), flag));
    assert!(matches!(source.next().await, Told::Event(1, ..)));
    server.kill();
    source.until(&Told::Status(Stale)).await;
    server.restart();
    source.until(&Told::Status(Live)).await;
    assert!(matches!(source.next().await, Told::Event(..)));
    let client = async_nats::connect(server.url()).await.unwrap();
    jetstream::new(client).delete_stream(STREAM).await.unwrap();
    while !matches!(source.next().await, Told::Epoch(_)) {}
    // The source may have to miss two heartbeats first, and says so.
    let mut first = source.next().await;
    while matches!(first, Told::Status(_)) {
        first = source.next().await;
    }
    assert!(matches!(first, Told::Event(1, ..)), "{first:?}");
    shutdown.send_replace(true);
    let summary = publisher.await.unwrap().unwrap();
    assert!(summary.published_total > 1, "{summary}");
    source.stop().await;
}

#[tokio::test]
async fn the_simulator_in_process_needs_nothing() {
    let model = SimSettings { tokens: 20, events_per_second: Some(10_000), seed: 1 };
    let mut source = RunningSource::start(Source::Sim(model));
    let epoch = source.epoch_once_live().await;
    assert!(epoch.starts_with("sim-"), "{epoch}");
    for expected in 1..=1_000 {
        assert!(matches!(source.next().await, Told::Event(pos, ..) if pos == expected));
    }
    source.stop().await;
}
