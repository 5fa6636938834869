//! The JetStream source against a real nats-server that is killed, frozen and tampered with.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use async_nats::jetstream::{self, Context, stream};
use odin_ws::ingest::{
    ConsumerMode, DurableSettings, JetStreamSettings, NatsSettings, Source, StreamSettings,
};
use odin_ws::testing::SourceStatus::{Live, Loading, Stale};
use support::nats::NatsServer;
use support::source::{RunningSource, Told, epochs, nats_at, positions};

const STREAM: &str = "ODIN_TOKENS";

/// Hours instead of 30 s: a slow machine must not age messages away.
fn settings() -> StreamSettings {
    StreamSettings { max_age: Duration::from_secs(36_000), ..Default::default() }
}

/// What holds for a source must hold in either mode.
fn modes() -> [ConsumerMode; 2] {
    [ConsumerMode::Ordered, ConsumerMode::Durable(DurableSettings::default())]
}

fn source_in(mode: &ConsumerMode, url: &str) -> Source {
    let (nats, stream, mode) = (nats_at(url), settings(), mode.clone());
    Source::JetStream(JetStreamSettings { nats, stream, mode })
}

fn source_at(url: &str) -> Source {
    source_in(&ConsumerMode::Ordered, url)
}

async fn client(server: &NatsServer) -> Context {
    jetstream::new(async_nats::connect(server.url()).await.unwrap())
}

/// Publishes the numbers as payloads, each acknowledged before the next.
async fn publish(context: &Context, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let ack = context.publish("odin.token.BTC.trade", number.to_string().into()).await.unwrap();
        ack.await.unwrap();
    }
}

/// Event `pos` whose payload is its own position.
fn event(pos: u64) -> Told {
    Told::Event(pos, "odin.token.BTC.trade".to_owned(), pos.to_string())
}

fn events(range: std::ops::RangeInclusive<u64>) -> Vec<Told> {
    range.map(event).collect()
}

#[tokio::test]
async fn every_name_that_the_settings_take_is_taken_by_the_server() {
    let server = NatsServer::start();
    for (number, name) in ["prices:eu", "Kurse-ä", "$a#1", &"é".repeat(32)].iter().enumerate() {
        let durable = DurableSettings { name: (*name).to_owned(), ..Default::default() };
        let mode = ConsumerMode::Durable(durable);
        let subjects = vec![format!("odin.token.T{number}.>")];
        let stream = StreamSettings { name: (*name).to_owned(), subjects, ..settings() };
        let settings = JetStreamSettings { nats: nats_at(&server.url()), stream, mode };
        let mut source = RunningSource::start(Source::JetStream(settings));
        source.epoch_once_live().await;
    }
}

#[tokio::test]
async fn the_retained_window_comes_first_and_then_what_is_published() {
    let server = NatsServer::start();
    let context = client(&server).await;
    let mut first = RunningSource::start(source_at(&server.url()));
    let epoch = first.epoch_once_live().await;
    publish(&context, 1..=5).await;
    assert_eq!(first.take(5).await, events(1..=5));

    let mut second = RunningSource::start(source_at(&server.url()));
    assert_eq!(second.next().await, Told::Status(Loading));
    assert_eq!(second.next().await, Told::Epoch(epoch), "the same on every instance");
    assert_eq!(second.take(5).await, events(1..=5));
    assert_eq!(second.next().await, Told::Status(Live));

    publish(&context, 6..=7).await;
    assert_eq!(first.take(2).await, events(6..=7));
    assert_eq!(second.take(2).await, events(6..=7));
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_killed_broker_costs_no_message_and_repeats_none() {
    for mode in modes() {
        let mut server = NatsServer::start();
        let mut source = RunningSource::start(source_in(&mode, &server.url()));
        source.epoch_once_live().await;
        let mut next = 1;
        for _ in 0..3 {
            publish(&client(&server).await, next..=next + 9).await;
            assert_eq!(source.take(10).await, events(next..=next + 9));
            server.kill();
            assert_eq!(source.next().await, Told::Status(Stale));
            server.restart();
            // The source connects again at some point in the midst of these.
            publish(&client(&server).await, next + 10..=next + 29).await;
            next += 30;
            let mut told = source.take(21).await;
            told.retain(|told| *told != Told::Status(Live));
            assert_eq!(told, events(next - 20..=next - 1));
        }
        source.stop().await;
    }
}

#[tokio::test]
async fn a_frozen_broker_is_noticed_and_nothing_is_lost() {
    for mode in modes() {
        let server = NatsServer::start();
        let mut source = RunningSource::start(source_in(&mode, &server.url()));
        source.epoch_once_live().await;
        publish(&client(&server).await, 1..=3).await;
        assert_eq!(source.take(3).await, events(1..=3));
        server.freeze();
        assert_eq!(source.next().await, Told::Status(Stale));
        server.thaw();
        assert_eq!(source.next().await, Told::Status(Live));
        publish(&client(&server).await, 4..=6).await;
        assert_eq!(source.take(3).await, events(4..=6));
        source.stop().await;
    }
}

#[tokio::test]
async fn a_deleted_consumer_is_replaced_without_a_word() {
    for mode in modes() {
        let server = NatsServer::start();
        let context = client(&server).await;
        let mut source = RunningSource::start(source_in(&mode, &server.url()));
        source.epoch_once_live().await;
        publish(&context, 1..=3).await;
        assert_eq!(source.take(3).await, events(1..=3));

        let stream = context.get_stream(STREAM).await.unwrap();
        let mut names = stream.consumer_names();
        while let Some(name) = futures_util::StreamExt::next(&mut names).await {
            stream.delete_consumer(&name.unwrap()).await.unwrap();
        }
        publish(&context, 4..=6).await;
        assert_eq!(source.take(3).await, events(4..=6));
        source.stop().await;
    }
}

#[tokio::test]
async fn a_deleted_stream_is_made_again_and_its_epoch_comes_before_its_events() {
    for mode in modes() {
        let server = NatsServer::start();
        let context = client(&server).await;
        let mut source = RunningSource::start(source_in(&mode, &server.url()));
        let old = source.epoch_once_live().await;
        publish(&context, 1..=3).await;
        assert_eq!(source.take(3).await, events(1..=3));

        context.delete_stream(STREAM).await.unwrap();
        // The broker may leave it to the missing heartbeats to say so.
        let new = loop {
            match source.next().await {
                Told::Epoch(epoch) => break epoch,
                Told::Status(_) => {}
                event => panic!("{event:?}"),
            }
        };
        assert_ne!(new, old);
        publish(&context, 1..=3).await;
        assert_eq!(positions(&source.until(&event(3)).await), [1, 2, 3]);
        source.stop().await;
    }
}

#[tokio::test]
async fn a_broker_that_lost_its_tail_starts_the_epoch_anew() {
    for mode in modes() {
        let mut server = NatsServer::start();
        let mut source = RunningSource::start(source_in(&mode, &server.url()));
        let epoch = source.epoch_once_live().await;
        publish(&client(&server).await, 1..=3).await;
        server.kill();
        server.save();
        server.restart();
        publish(&client(&server).await, 4..=6).await;
        source.until(&event(6)).await;
        // Positions 4 to 6 are given out again, to other messages, before the source is back.
        server.kill();
        server.load();
        server.restart();
        publish(&client(&server).await, 4..=9).await;
        let told = source.until(&event(9)).await;
        assert_eq!(epochs(&told), [epoch], "{told:?}");
        let from_epoch = told.iter().skip_while(|told| !matches!(told, Told::Epoch(_)));
        let after: Vec<Told> = from_epoch.cloned().collect();
        assert_eq!(positions(&after), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        source.stop().await;
    }
}

#[tokio::test]
async fn a_broker_that_lost_its_tail_is_believed_in_the_end() {
    for mode in modes() {
        let mut server = NatsServer::start();
        let mut source = RunningSource::start(source_in(&mode, &server.url()));
        let epoch = source.epoch_once_live().await;
        publish(&client(&server).await, 1..=3).await;
        server.kill();
        server.save();
        server.restart();
        publish(&client(&server).await, 4..=6).await;
        source.until(&event(6)).await;
        server.kill();
        server.load();
        server.restart();
        source.until(&Told::Epoch(epoch)).await;
        let told = source.until(&event(3)).await;
        assert_eq!(positions(&told), [1, 2, 3]);
        publish(&client(&server).await, 4..=5).await;
        assert_eq!(positions(&source.until(&event(5)).await), [4, 5]);
        source.stop().await;
    }
}

#[tokio::test]
async fn a_broker_that_is_absent_at_the_start_may_come_later() {
    let mut server = NatsServer::start();
    server.kill();
    let mut source = RunningSource::start(source_at(&server.url()));
    server.restart();
    assert_eq!(source.next().await, Told::Status(Loading));
    assert!(matches!(source.next().await, Told::Epoch(_)));
    assert_eq!(source.next().await, Told::Status(Live));
    publish(&client(&server).await, 1..=2).await;
    assert_eq!(source.take(2).await, events(1..=2));
    source.stop().await;
}

#[tokio::test]
async fn a_source_without_a_broker_ends_at_shutdown() {
    let mut server = NatsServer::start();
    server.kill();
    RunningSource::start(source_at(&server.url())).stop().await;
}

#[tokio::test]
async fn a_stream_with_other_settings_is_used_as_it_is_and_changed_only_on_request() {
    let server = NatsServer::start();
    let context = client(&server).await;
    let theirs = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["odin.>".to_owned()],
        max_messages: 7,
        ..Default::default()
    };
    context.create_stream(theirs).await.unwrap();
    let mut source = RunningSource::start(source_at(&server.url()));
    source.epoch_once_live().await;
    // The stream stores more than is configured here; that is filtered out.
    context.publish("odin.other", "0".into()).await.unwrap().await.unwrap();
    publish(&context, 2..=3).await;
    assert_eq!(source.take(2).await, events(2..=3));
    source.stop().await;
    let config = context.get_stream(STREAM).await.unwrap().cached_info().config.clone();
    assert_eq!((config.max_messages, &*config.subjects[0]), (7, "odin.>"));

    let stream = StreamSettings { update: true, ..settings() };
    let nats = nats_at(&server.url());
    let mut source = RunningSource::start(Source::JetStream(JetStreamSettings {
        nats,
        stream,
        mode: ConsumerMode::Ordered,
    }));
    source.epoch_once_live().await;
    let config = context.get_stream(STREAM).await.unwrap().cached_info().config.clone();
    assert_eq!((config.max_messages, config.max_age), (100_000, settings().max_age));
    assert_eq!(config.subjects, settings().subjects);
    source.stop().await;
}

/// A stream of 100 messages that others publish to as well.
async fn share_stream(context: &Context) {
    let shared = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["odin.>".to_owned()],
        max_messages: 100,
        ..Default::default()
    };
    context.create_stream(shared).await.unwrap();
}

/// A source of one of its subjects.
fn sharing_source(nats: NatsSettings, mode: ConsumerMode) -> Source {
    let stream = StreamSettings { subjects: vec!["odin.token.>".to_owned()], ..settings() };
    Source::JetStream(JetStreamSettings { nats, stream, mode })
}

async fn publish_others(context: &Context, count: u64) {
    for _ in 0..count {
        context.publish("odin.other", "0".into()).await.unwrap().await.unwrap();
    }
}

#[tokio::test]
async fn what_a_shared_stream_discards_before_it_is_read_is_told() {
    for mode in modes() {
        let server = NatsServer::start();
        let context = client(&server).await;
        share_stream(&context).await;
        // Few are under way when the others' messages push the rest out.
        let nats = NatsSettings { rate_max: 20, ..nats_at(&server.url()) };
        let mut source = RunningSource::start(sharing_source(nats, mode));
        source.epoch_once_live().await;
        publish(&context, 1..=60).await;
        source.until(&event(1)).await;
        publish_others(&context, 100).await;
        publish(&context, 161..=161).await;
        let told = source.until(&event(161)).await;
        let positions = positions(&told);
        assert!(positions[positions.len() - 2] < 60, "nothing was lost: {told:?}");
        let told: Vec<&Told> =
            told.iter().filter(|told| !matches!(told, Told::Event(..))).collect();
        assert!(matches!(told[..], [Told::Loss(_), Told::Notice, ..]), "{told:?}");
        publish_others(&context, 10).await;
        publish(&context, 172..=173).await;
        assert_eq!(source.take(2).await, events(172..=173));
        source.stop().await;
    }
}

#[tokio::test]
async fn a_loss_that_no_message_follows_is_told() {
    for mode in modes() {
        let server = NatsServer::start();
        let context = client(&server).await;
        // Few are under way when the rest is gone.
        let nats = NatsSettings { rate_max: 3, ..nats_at(&server.url()) };
        let source = JetStreamSettings { nats, stream: settings(), mode };
        let mut source = RunningSource::start(Source::JetStream(source));
        source.epoch_once_live().await;
        publish(&context, 1..=60).await;
        source.until(&event(1)).await;
        context.get_stream(STREAM).await.unwrap().purge().await.unwrap();
        let told = source.until(&Told::Notice).await;
        assert!(positions(&told).len() < 60, "nothing was lost: {told:?}");
        assert!(told.contains(&Told::Loss(61)), "{told:?}");
        publish(&context, 61..=62).await;
        assert_eq!(source.take(2).await, events(61..=62), "told once");
        source.stop().await;
    }
}

#[tokio::test]
async fn many_holes_are_told_together() {
    for mode in modes() {
        let server = NatsServer::start();
        let context = client(&server).await;
        // Most wait in the stream when every other one is taken away.
        let nats = NatsSettings { rate_max: 100, ..nats_at(&server.url()) };
        let source = JetStreamSettings { nats, stream: settings(), mode };
        let mut source = RunningSource::start(Source::JetStream(source));
        source.epoch_once_live().await;
        let mut acknowledgements = Vec::new();
        for number in 1..=800 {
            let payload = number.to_string().into();
            let publishing = context.publish("odin.token.BTC.trade", payload);
            acknowledgements.push(publishing.await.unwrap());
        }
        for acknowledgement in acknowledgements {
            acknowledgement.await.unwrap();
        }
        let stream = context.get_stream(STREAM).await.unwrap();
        for pos in (400..=800).rev().step_by(2) {
            stream.delete_message(pos).await.unwrap();
        }
        publish(&context, 801..=801).await;
        let told = source.until(&event(801)).await;
        let positions = positions(&told);
        let holes: Vec<u64> =
            positions.windows(2).filter(|pair| pair[1] > pair[0] + 1).map(|pair| pair[1]).collect();
        assert!(holes.len() > 50, "nothing was lost: {positions:?}");
        let losses: Vec<u64> = told
            .iter()
            .filter_map(|told| match told {
                Told::Loss(pos) => Some(*pos),
                _ => None,
            })
            .collect();
        assert_eq!(losses, holes, "each is taken back at once");
        let notices = told.iter().filter(|told| **told == Told::Notice).count();
        assert!(notices > 0 && notices < holes.len() / 10, "{notices} notices");
        source.stop().await;
    }
}

#[tokio::test]
async fn others_messages_that_age_away_cost_nobody_anything() {
    for mode in modes() {
        let mut server = NatsServer::start();
        let context = client(&server).await;
        share_stream(&context).await;
        let mut source = RunningSource::start(sharing_source(nats_at(&server.url()), mode));
        source.epoch_once_live().await;
        publish(&context, 1..=1).await;
        assert_eq!(source.take(1).await, events(1..=1));
        for _ in 0..4 {
            publish_others(&context, 60).await;
        }
        publish(&context, 242..=242).await;
        assert_eq!(source.take(1).await, events(242..=242));
        server.kill();
        server.restart();
        source.until(&Told::Status(Live)).await;
        let context = client(&server).await;
        publish_others(&context, 200).await;
        publish(&context, 443..=443).await;
        assert_eq!(source.take(1).await, events(443..=443), "and no loss");
        source.stop().await;
    }
}

#[tokio::test]
async fn messages_that_the_library_cannot_read_come_all_the_same() {
    for mode in modes() {
        let server = NatsServer::start();
        let context = client(&server).await;
        let mut source = RunningSource::start(source_in(&mode, &server.url()));
        source.epoch_once_live().await;
        publish(&context, 1..=1).await;
        server.publish_raw(b"PUB odin.token.\xff\xfe.trade 2\r\n{}\r\n");
        server.publish_raw(b"PUB odin.token.*.trade 2\r\n{}\r\n");
        server.publish_raw(b"PUB odin.token.BTC.trade 3\r\n\xff\x00\xfe\r\n");
        let status = "NATS/1.0 409 Consumer Deleted\r\nA: b\r\n\r\n";
        server.publish_raw(format!("HPUB odin.token.BTC.trade 39 39\r\n{status}\r\n").as_bytes());
        let headers: &[u8] = b"NATS/1.0\r\nA: \xff\r\n\r\n";
        let publish_headers = [b"HPUB odin.token.BTC.trade 18 18\r\n", headers, b"\r\n"].concat();
        server.publish_raw(&publish_headers);
        publish(&context, 7..=7).await;
        let told = source.until(&event(7)).await;
        // Of two the subject is no channel; of two the library cannot read the headers.
        assert_eq!(positions(&told), [1, 4, 5, 6, 7], "{told:?}");
        assert_eq!(told.iter().filter(|told| matches!(told, Told::Loss(_))).count(), 0, "{told:?}");
        source.stop().await;
    }
}
