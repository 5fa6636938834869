//! What it costs to deflate the tail of an event, at which ratio, per level; and to inflate a
//! command.
//!
//! `cargo bench --bench deflate`
#![allow(clippy::unwrap_used, missing_docs, reason = "a failure here is a failed benchmark")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flate2::{Compress, Compression, FlushCompress};
use odin_ws::testing::Deflater;
use odin_ws::testing::encode_tail;
use odin_ws::testing::{Incoming, Position, StreamPos};
use odin_ws::testing::{InflateLimits, Inflater};

const LEVELS: [u32; 4] = [1, 3, 6, 9];
const SIZES: [usize; 2] = [600, 800];
const EVENTS: u64 = 64;

/// A generator of numbers, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn hex(&mut self, digits: usize) -> String {
        (0..digits).map(|_| char::from_digit(self.below(16) as u32, 16).unwrap()).collect()
    }
}

/// The tail of a trade: names that repeat, numbers and identifiers that do not.
fn tail(numbers: &mut Numbers, bytes: usize) -> Vec<u8> {
    let mut payload = format!(
        "{{\"id\":\"{}\",\"token\":\"{}\",\"user\":\"{}-{}\",\"side\":\"{}\",\"price\":{}.{:06},\
         \"amount_token\":{},\"amount_btc\":{},\"slippage\":0.0{},\"bonded\":{},\"time\":\"2025-06-\
         {:02}T{:02}:{:02}:{:02}.{:03}Z\",\"history\":[",
        numbers.hex(16),
        numbers.hex(4),
        numbers.hex(8),
        numbers.hex(27),
        if numbers.below(2) == 0 { "buy" } else { "sell" },
        numbers.below(90_000),
        numbers.below(1_000_000),
        numbers.below(1 << 40),
        numbers.below(1 << 30),
        numbers.below(90),
        numbers.below(2) == 0,
        1 + numbers.below(28),
        numbers.below(24),
        numbers.below(60),
        numbers.below(60),
        numbers.below(1_000)
    );
    while payload.len() + 150 < bytes {
        let separator = if payload.ends_with('[') { "" } else { "," };
        payload.push_str(&format!(
            "{separator}{{\"price\":{},\"volume\":{},\"trades\":{}}}",
            numbers.below(100_000_000),
            numbers.below(1 << 32),
            numbers.below(5_000)
        ));
    }
    payload.push_str("]}");
    let position = Position {
        pos: StreamPos(numbers.below(1 << 30)),
        ts_ms: 1_748_000_000_000 + numbers.below(1 << 31),
    };
    let incoming =
        Incoming { subject: "odin.token.2jjj.trade", payload: payload.as_bytes(), position };
    encode_tail(&incoming, StreamPos(numbers.below(1 << 30)))
}

fn tails(bytes: usize) -> Vec<Vec<u8>> {
    let mut numbers = Numbers(7);
    (0..EVENTS).map(|_| tail(&mut numbers, bytes)).collect()
}

fn deflate_at(stream: &mut Compress, tail: &[u8], out: &mut Vec<u8>) {
    stream.reset();
    out.clear();
    stream.compress_vec(tail, out, FlushCompress::Sync).unwrap();
}

fn levels(c: &mut Criterion) {
    let mut group = c.benchmark_group("deflate_tail");
    for size in SIZES {
        let tails = tails(size);
        let plain: usize = tails.iter().map(Vec::len).sum();
        let mut out = Vec::with_capacity(4_096);
        group.throughput(Throughput::Bytes((plain / tails.len()) as u64));
        for level in LEVELS {
            let mut stream = Compress::new(Compression::new(level), false);
            let mut deflated = 0;
            for tail in &tails {
                deflate_at(&mut stream, tail, &mut out);
                deflated += out.len() - 4;
            }
            println!(
                "level {level}: {} bytes to {}, {:.3}",
                plain / tails.len(),
                deflated / tails.len(),
                deflated as f64 / plain as f64
            );
            let mut next = tails.iter().cycle();
            group.bench_function(BenchmarkId::new(format!("level {level}"), size), |b| {
                b.iter(|| {
                    deflate_at(&mut stream, next.next().unwrap(), &mut out);
                    black_box(out.len())
                });
            });
        }
        let mut deflater = Deflater::default();
        let mut next = tails.iter().cycle();
        group.bench_function(BenchmarkId::new("as built", size), |b| {
            b.iter(|| black_box(deflater.deflate_tail(next.next().unwrap())));
        });
    }
}

fn commands(c: &mut Criterion) {
    let names: Vec<String> = (0..40).map(|n| format!("\"odin.token.{n}.trade\"")).collect();
    let one = "{\"type\":\"heartbeat\",\"ts\":1748000000000}".to_owned();
    let many = format!("{{\"type\":\"subscribe\",\"channels\":[{}]}}", names.join(","));
    let limits = InflateLimits { output_bytes_max: 65_536, ratio_max: 100 };
    let mut group = c.benchmark_group("inflate");
    for text in [one, many] {
        let compressed = Deflater::default().deflate_tail(text.as_bytes());
        let mut inflater = Inflater::default();
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(text.len()), |b| {
            b.iter(|| black_box(inflater.inflate(&compressed, limits).unwrap().len()));
        });
    }
}

criterion_group!(benches, levels, commands);
criterion_main!(benches);
