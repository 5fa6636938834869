//! The rules of one core without sockets: enveloping, matching, numbering, queueing, and the
//! bytes of every frame handed to a wire that takes them all.
//!
//! `cargo bench --bench shard`
#![allow(clippy::unwrap_used, missing_docs, reason = "a failure here is a failed benchmark")]

use std::collections::VecDeque;
use std::hint::black_box;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use odin_ws::testing::ClientLimits;
use odin_ws::testing::Compression;
use odin_ws::testing::Event;
use odin_ws::testing::Feed;
use odin_ws::testing::Pattern;
use odin_ws::testing::{
    Census, ConnId, Limits, Mode, Now, Shard, ShardSettings, SubscriptionIndex, Wire,
};
use odin_ws::testing::{HEADER_BYTES_MAX, Opcode, put_header};
use odin_ws::testing::{Incoming, Position, StreamPos};

const CHANNEL: &str = "odin.token.BTC.trade";

/// A wire that takes everything.
#[derive(Default)]
struct Sink {
    bytes: usize,
}

impl Wire for Sink {
    fn send(&mut self, _: ConnId, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len();
        Ok(bytes.len())
    }
    fn blocked(&mut self, _: ConnId) {}
    fn resume(&mut self, _: ConnId) {}
    fn finish(&mut self, _: ConnId) {}
    fn abort(&mut self, _: ConnId) {}
}

fn shard() -> Shard {
    let client = ClientLimits {
        message_bytes: 65_536,
        commands_per_second: 1_000,
        channels: 1_024,
        channel_bytes: 256,
        replay_messages: 100,
        queue_messages: 256,
        queue_bytes: 262_144,
        batch_ms: 0,
        resume_messages: 6_000,
    };
    let limits = Limits {
        client,
        connection_budget_bytes: 1 << 30,
        connections_max: u64::MAX,
        compression: Compression::Deflate,
        deflate_bytes_min: 128,
        inflate_ratio_max: 200,
        handshake_timeout_ms: 10_000,
        heartbeat_interval_ms: 25_000,
        idle_timeout_ms: 60_000,
        connection_age_ms: 0,
        close_timeout_ms: 5_000,
        log_messages: 100_000,
        log_bytes: 52_428_800,
        log_ms: 120_000,
    };
    let mode = Mode::Channels { allowed: [Pattern::parse("odin.>", 256).unwrap()].into() };
    let census = Census::new(1);
    let settings = ShardSettings { shard: 0, instance: "bench".into(), mode, limits, census };
    Shard::new(settings, Now::default())
}

const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50_000);

fn connect(shard: &mut Shard, wire: &mut Sink, channel: &str) -> ConnId {
    let id = shard.accept(PEER, Now::default());
    let mut request = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n"
        .to_vec();
    shard.receive(id, &mut request, Now::default(), wire);
    let text = format!("{{\"type\":\"subscribe\",\"channels\":[\"{channel}\"]}}");
    shard.receive(id, &mut frame(&text), Now::default(), wire);
    id
}

/// A text frame of a client. A masking key of zeros leaves the payload as it is.
fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        length if length < 126 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

fn payload() -> Vec<u8> {
    format!("{{\"price\":1.5,\"text\":\"{}\"}}", "x".repeat(570)).into_bytes()
}

fn event(pos: u64) -> Arc<Event> {
    let position = Position { pos: StreamPos(pos), ts_ms: pos };
    let payload = payload();
    let incoming = Incoming { subject: CHANNEL, payload: &payload, position };
    Arc::new(Event::new(&incoming, CHANNEL.into(), StreamPos(pos - 1), 0))
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let payload = payload();
    let position = Position { pos: StreamPos(812_345), ts_ms: 1_732_150_000_123 };
    let incoming = Incoming { subject: CHANNEL, payload: &payload, position };
    let channel: Arc<str> = CHANNEL.into();
    group.bench_function("event_of_600_bytes", |b| {
        b.iter(|| Event::new(black_box(&incoming), Arc::clone(&channel), StreamPos(1), 0));
    });
    group.bench_function("frame_header", |b| {
        let mut out = [0; HEADER_BYTES_MAX];
        b.iter(|| put_header(Opcode::Text, black_box(712), &mut out));
    });
    group.finish();
}

fn publish(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish_one_event");
    for subscribers in [1_u64, 100, 10_000] {
        let mut shard = shard();
        let mut wire = Sink::default();
        for _ in 0..subscribers {
            connect(&mut shard, &mut wire, CHANNEL);
        }
        let mut pos = 0;
        group.throughput(Throughput::Elements(subscribers));
        group.bench_function(format!("{subscribers}_subscribers"), |b| {
            b.iter_batched(
                || {
                    pos += 1;
                    VecDeque::from([Feed::Event(event(pos))])
                },
                |feed| publish_all(&mut shard, feed, &mut wire),
                BatchSize::SmallInput,
            );
        });
        black_box(wire.bytes);
    }
    group.finish();
}

/// Publishes and sends.
fn publish_all(shard: &mut Shard, mut feed: VecDeque<Feed>, wire: &mut Sink) {
    while !feed.is_empty() {
        shard.publish(&mut feed, Now::default(), wire);
        while shard.step(64, Now::default(), wire) {}
    }
}

/// Many events at once are one send per connection.
fn publish_batch(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish_16_events");
    let mut shard = shard();
    let mut wire = Sink::default();
    for _ in 0..1_000 {
        connect(&mut shard, &mut wire, CHANNEL);
    }
    let mut pos = 0;
    group.throughput(Throughput::Elements(16_000));
    group.bench_function("1000_subscribers", |b| {
        b.iter_batched(
            || {
                pos += 16;
                (0..16).map(|n| Feed::Event(event(pos + n))).collect::<VecDeque<Feed>>()
            },
            |feed| publish_all(&mut shard, feed, &mut wire),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// The dearest command: a client with 1,000 subscriptions asks for the newest of 60,000 channels.
fn snapshot(c: &mut Criterion) {
    let mut shard = shard();
    let mut wire = Sink::default();
    let mut feed: VecDeque<Feed> = (0..60_000).map(|number| event_on(&channel(number))).collect();
    while !feed.is_empty() {
        shard.publish(&mut feed, Now::default(), &mut wire);
    }
    let id = connect(&mut shard, &mut wire, CHANNEL);
    let names: Vec<String> = (0..1_000).map(|number| format!("\"{}\"", channel(number))).collect();
    let send = |shard: &mut Shard, wire: &mut Sink, second: u64, text: &str| {
        let now = Now { monotonic_us: second * 1_000_000, unix_ms: 0 };
        shard.receive(id, &mut frame(text), now, wire);
    };
    let own = format!("{{\"type\":\"subscribe\",\"channels\":[{}]}}", names.join(","));
    send(&mut shard, &mut wire, 1, &own);
    let mut second = 1;
    c.bench_function("snapshot_of_60000_channels_with_1000_subscriptions", |b| {
        b.iter_custom(|iterations| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..iterations {
                second += 60;
                let text = "{\"type\":\"subscribe\",\"channels\":[\"odin.>\"],\"snapshot\":true}";
                let began = Instant::now();
                send(&mut shard, &mut wire, second, text);
                elapsed += began.elapsed();
                let text = "{\"type\":\"unsubscribe\",\"channels\":[\"odin.>\"]}";
                send(&mut shard, &mut wire, second, text);
            }
            elapsed
        });
    });
    assert!(wire.bytes > 1_000_000, "the newest of 1,024 channels were sent");
}

fn channel(number: usize) -> String {
    format!("odin.token.T{number}.trade")
}

fn event_on(channel: &str) -> Feed {
    let position = Position { pos: StreamPos(1), ts_ms: 1 };
    let payload = payload();
    let incoming = Incoming { subject: channel, payload: &payload, position };
    Feed::Event(Arc::new(Event::new(&incoming, channel.into(), StreamPos(0), 0)))
}

/// The cost must not grow with the channel's size.
fn subscribe(c: &mut Criterion) {
    let mut group = c.benchmark_group("subscribe_and_unsubscribe");
    let pattern = Pattern::parse(CHANNEL, 256).unwrap();
    for subscribers in [0_u32, 100, 10_000, 100_000] {
        let mut index = SubscriptionIndex::default();
        for connection in 1..=subscribers {
            index.subscribe(connection, &pattern);
        }
        group.bench_function(format!("channel_of_{subscribers}"), |b| {
            b.iter(|| {
                index.subscribe(0, black_box(&pattern));
                index.unsubscribe(0, black_box(CHANNEL));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, encode, publish, publish_batch, snapshot, subscribe);
criterion_main!(benches);
