//! The memory that the shards account for, beside the allocator's own figure.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::json;
use support::client::UPGRADE;
use support::{Client, GUARD, Nats, Server};

type Metrics = BTreeMap<String, f64>;

fn sum(metrics: &Metrics, start: &str) -> f64 {
    metrics.iter().filter(|(name, _)| name.starts_with(start)).map(|(_, value)| value).sum()
}

/// What the shards account for in the process: every class but the kernel's, and the payloads.
fn accounted(metrics: &Metrics) -> f64 {
    let classes = sum(metrics, "ws_shard_memory_bytes");
    let kernel: f64 = metrics
        .iter()
        .filter(|(name, _)| name.contains("kernel_send"))
        .map(|(_, value)| value)
        .sum();
    classes - kernel + metrics["ws_payload_bytes"]
}

/// Scrapes until `is_there`; reports are up to a second old.
fn wait_for(server: &mut Server, what: &str, is_there: impl Fn(&Metrics) -> bool) -> Metrics {
    let deadline = Instant::now() + GUARD;
    loop {
        let metrics = server.metrics_with_heap();
        if is_there(&metrics) {
            return metrics;
        }
        assert!(Instant::now() < deadline, "{what}: {metrics:#?}");
        std::thread::yield_now();
    }
}

fn has_reported(metrics: &Metrics) -> bool {
    let fixed = metrics.iter().filter(|(name, _)| name.contains("class=\"fixed\""));
    fixed.fold(true, |all, (_, value)| all && *value > 0.0)
}

/// Compares what both figures have grown by since `before`.
fn assert_within_a_tenth(what: &str, before: &Metrics, after: &Metrics) {
    let heap = after["ws_heap_bytes"] - before["ws_heap_bytes"];
    let sum = accounted(after) - accounted(before);
    println!("{what}: accounted {sum}, heap {heap}, ratio {:.3}", sum / heap);
    for (name, value) in after.iter().filter(|(name, _)| name.contains("bytes")) {
        let grown = value - before[name];
        if grown != 0.0 {
            println!("    {name} {grown}");
        }
    }
    assert!((sum / heap - 1.0).abs() < 0.1, "{what}: accounted {sum}, heap {heap}\n{after:#?}");
}

fn upgraded(server: &Server) -> TcpStream {
    let mut stream = server.connect();
    stream.write_all(UPGRADE.as_bytes()).unwrap();
    // To the end of the welcome message.
    let mut seen = Vec::new();
    let mut chunk = [0; 4_096];
    while !seen.windows(3).any(|window| window == b"}}}" || window.ends_with(b"}}")) {
        let count = stream.read(&mut chunk).unwrap();
        assert!(count > 0, "closed before the welcome");
        seen.extend_from_slice(&chunk[..count]);
    }
    stream
}

/// A masked text frame; the mask is zero, which leaves the text as it is.
fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend_from_slice(&(text.len() as u16).to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

#[test]
fn idle_connections_and_subscriptions() {
    let mut server = Server::serve(&["--source", "sim", "--sim-tokens", "1"]);
    let subscribe = json!({"type": "subscribe", "channels": ["odin.token.NONE.trade"]});
    let one = frame(&format!("{subscribe}{}", " ".repeat(100)));
    let subscribed = |server: &Server, count: usize| -> Vec<TcpStream> {
        let mut clients: Vec<TcpStream> = (0..count).map(|_| upgraded(server)).collect();
        for client in &mut clients {
            client.write_all(&one).unwrap();
        }
        clients
    };
    let subscriptions = |it: &Metrics| sum(it, "ws_subscriptions_current");
    // The first ones grow what is shared.
    let first = subscribed(&server, 64);
    wait_for(&mut server, "64 subscribed", |it| subscriptions(it) == 64.0);
    drop(first);
    let before = wait_for(&mut server, "the first ones gone", |it| {
        has_reported(it) && sum(it, "ws_connections_current") == 0.0
    });
    let mut clients = subscribed(&server, 3_000);
    let idle = wait_for(&mut server, "3,000 subscribed", |it| subscriptions(it) == 3_000.0);
    assert_eq!(sum(&idle, "ws_connections_current"), 3_000.0);
    assert_within_a_tenth("3,000 idle connections with one subscription", &before, &idle);

    // 300 of them with 100 channels each that nobody else has, every third a pattern.
    for (number, client) in clients.iter_mut().take(300).enumerate() {
        let channels: Vec<String> = (0..100)
            .map(|channel| match channel % 3 {
                0 => format!("odin.token.C{number}x{channel}.*"),
                _ => format!("odin.token.C{number}x{channel}.trade"),
            })
            .collect();
        let subscribe = json!({"type": "subscribe", "channels": channels}).to_string();
        client.write_all(&frame(&subscribe)).unwrap();
    }
    let many = wait_for(&mut server, "33,000 subscribed", |it| subscriptions(it) == 33_000.0);
    assert_within_a_tenth("30,000 subscriptions more", &idle, &many);
    drop(clients);
    let after = wait_for(&mut server, "all gone", |it| sum(it, "ws_connections_current") == 0.0);
    for class in ["queue", "replay", "partial"] {
        let of_class: f64 = after
            .iter()
            .filter(|(name, _)| name.contains(&format!("class=\"{class}\"")))
            .map(|(_, value)| value)
            .sum();
        assert_eq!(of_class, 0.0, "{class} is released");
    }
}

#[test]
fn replay_rings_and_incomplete_messages() {
    // Of a broker, so that nothing is published while figures of two moments are compared.
    let nats = Nats::start();
    let mut server = Server::serve(&["--nats-url", &nats.url()]);
    server.wait_ready(200);
    let read = |server: &Server, count: usize, numbers: std::ops::Range<u64>| -> Vec<Client> {
        let mut readers: Vec<Client> = (0..count).map(|_| Client::connect(server)).collect();
        for reader in &mut readers {
            reader.subscribe(&["odin.token.>"]);
        }
        let events = (numbers.end - numbers.start) as usize;
        nats.publish_numbers("odin.token.BTC.trade", numbers);
        for reader in &mut readers {
            reader.next_events(events);
        }
        readers
    };
    // The first ones grow what is shared.
    drop(read(&server, 16, 0..130));
    let connections = |it: &Metrics| sum(it, "ws_connections_current");
    let before = wait_for(&mut server, "the first ones gone", |it| {
        sum(it, "ws_deliveries_total") >= 16.0 * 130.0 && connections(it) == 0.0
    });
    let _readers = read(&server, 2_000, 130..260);
    let full =
        wait_for(&mut server, "full rings", |it| sum(it, "ws_deliveries_total") >= 2_016.0 * 130.0);
    assert_within_a_tenth("2,000 connections with a full replay ring", &before, &full);

    let mut writers: Vec<TcpStream> = (0..300).map(|_| upgraded(&server)).collect();
    let unfinished = &frame(&"x".repeat(60_000))[..50_000];
    for writer in &mut writers {
        writer.write_all(unfinished).unwrap();
    }
    let partial = |it: &Metrics| -> f64 {
        let of_class = it.iter().filter(|(name, _)| name.contains("class=\"partial\""));
        of_class.map(|(_, value)| value).sum()
    };
    let held = wait_for(&mut server, "incomplete", |it| partial(it) >= 300.0 * 49_900.0);
    assert_within_a_tenth("300 incomplete messages of 50,000 bytes", &full, &held);
}

#[test]
fn answers_that_nobody_reads() {
    let arguments = ["--source", "sim", "--sim-rate", "20", "--send-buffer-bytes", "4096"];
    let more = ["--max-commands-per-second", "100000"];
    let mut server = Server::serve(&[&arguments[..], &more].concat());
    let mut clients: Vec<TcpStream> = (0..200).map(|_| upgraded(&server)).collect();
    let idle = wait_for(&mut server, "200 idle", |it| {
        has_reported(it) && sum(it, "ws_connections_current") == 200.0
    });
    let heartbeat = json!({"type": "heartbeat", "id": "x".repeat(60)}).to_string();
    let many = frame(&format!("{heartbeat}{}", " ".repeat(60))).repeat(20_000);
    for client in &mut clients {
        client.set_nonblocking(true).unwrap();
        // As much as the server reads and the sockets hold.
        let mut written = 0;
        while let Some(rest) = many.get(written..).filter(|rest| !rest.is_empty()) {
            match client.write(rest) {
                Ok(count) => written += count,
                Err(_) => break,
            }
        }
    }
    let queued = |it: &Metrics| -> f64 {
        let of_class = it.iter().filter(|(name, _)| name.contains("class=\"queue\""));
        of_class.map(|(_, value)| value).sum()
    };
    // Heap and reports are not of one moment: both must have come to rest. The simulator's events
    // tell that reports go on.
    let newest = Cell::new((0.0, 0.0));
    let held = wait_for(&mut server, "full queues", |it| {
        let events = sum(it, "ws_events_total");
        let (bytes, since) = newest.get();
        if queued(it) != bytes {
            newest.set((queued(it), events));
        }
        queued(it) >= 200.0 * 65_536.0 && queued(it) == bytes && events >= since + 100.0
    });
    assert_within_a_tenth("200 clients that do not read their answers", &idle, &held);
    assert!(sum(&held, "ws_shard_memory_bytes{class=\"kernel_send\"") > 0.0);
    assert_eq!(sum(&held, "ws_over_budget_disconnects_total"), 0.0);
}
