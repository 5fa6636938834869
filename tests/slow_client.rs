//! Clients that read slowly or not at all, and those beside them.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::time::Instant;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use support::{Client, GUARD, Nats, Server};
use tungstenite::{Error, Message};

/// A connection whose kernel takes little before the client reads it.
fn small_buffers(server: &Server) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(&server.addr.into()).unwrap();
    socket.into()
}

fn serve(nats: &Nats, arguments: &[&str]) -> Server {
    let url = nats.url();
    let common = ["--nats-url", &url, "--send-buffer-bytes", "4096"];
    let server = Server::serve(&[&common, arguments].concat());
    server.wait_ready(200);
    server
}

/// About 700 bytes of JSON.
fn publish(nats: &Nats, numbers: std::ops::Range<u64>) {
    let padding = "x".repeat(680);
    nats.with_jetstream(async |context| {
        for number in numbers {
            let payload = json!({"n": number, "padding": padding}).to_string();
            let stored = context.publish("odin.token.BTC.trade", payload.into()).await.unwrap();
            stored.await.unwrap();
        }
    });
}

#[test]
fn a_client_that_does_not_read_is_closed_with_1008_and_nobody_else_notices() {
    let nats = Nats::start();
    let server = serve(&nats, &["--shards", "1", "--queue-messages", "32"]);
    let mut stuck = Client::over(small_buffers(&server), server.addr);
    let mut good = Client::connect(&server);
    stuck.subscribe(&["odin.token.>"]);
    good.subscribe(&["odin.token.>"]);
    // Fewer at a time than the queue holds: the good one need not be fast, only reading.
    for first in (0..400).step_by(25) {
        publish(&nats, first..first + 25);
        for event in good.next_events(25) {
            let (seq, number) = (event["seq"].as_u64(), event["data"]["n"].as_u64());
            assert_eq!(seq, number.map(|number| number + 1));
        }
    }
    // What was on its way is there, in order, and then the close frame.
    let mut seq_before = 0;
    let frame = loop {
        match stuck.socket.read() {
            Ok(Message::Text(text)) => {
                let seq = serde_json::from_str::<Value>(&text).unwrap()["seq"].as_u64().unwrap();
                assert_eq!(seq, seq_before + 1);
                seq_before = seq;
            }
            Ok(Message::Close(frame)) => break frame.unwrap(),
            Ok(_) => {}
            // It did not read for longer than the closing handshake may take.
            Err(Error::Io(_)) => return,
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1008, "client reads too slowly"));
    assert!(seq_before < 300, "{seq_before} events cannot have been in the buffers");
}

/// A client that has read nothing while events of these sizes were published. However much the
/// kernel takes, the first waits if it is long: no socket buffer here holds so much.
fn behind(padding_bytes: &[usize]) -> (Client, (Nats, Server)) {
    let nats = Nats::start();
    let server = serve(
        &nats,
        &["--shards", "1", "--queue-bytes", "900000", "--conn-budget-bytes", "2000000"],
    );
    let mut client = Client::over(small_buffers(&server), server.addr);
    let mut witness = Client::connect(&server);
    client.subscribe(&["odin.token.>"]);
    witness.subscribe(&["odin.token.>"]);
    for (number, bytes) in padding_bytes.iter().enumerate() {
        let event = json!({"n": number, "padding": "x".repeat(*bytes)});
        nats.publish("odin.token.BTC.trade", &event.to_string());
        // The witness reads as they come.
        assert_eq!(witness.next_event()["data"]["n"], json!(number));
    }
    (client, (nats, server))
}

fn seqs(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}

/// The newest position among these events.
fn newest_pos(events: &[Value]) -> &Value {
    let newest = events.iter().max_by_key(|event| event["pos"].as_u64());
    &newest.unwrap()["pos"]
}

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["data"]["n"].as_u64().unwrap()).collect()
}

#[test]
fn a_client_that_is_cut_after_its_queue_was_full_resumes_and_misses_nothing() {
    // The second does not fit beside the first, and the third would.
    let (mut client, (nats, server)) = behind(&[600_000, 400_000, 100]);
    let mut seen = client.next_events(2);
    drop(client);
    let newest = newest_pos(&seen).clone();
    let mut client = Client::connect(&server);
    let event = seen.iter().find(|event| event["pos"] == newest).unwrap();
    let resume = json!({"epoch": client.welcome["epoch"], "pos": newest, "ts": event["ts"]});
    let subscribe = json!({"type": "subscribe", "channels": ["odin.token.>"], "resume": resume});
    assert_eq!(client.command(&subscribe)["recovered"], true);
    nats.publish("odin.token.BTC.trade", r#"{"n":3}"#);
    while numbers(&seen).last() != Some(&3) {
        seen.extend(client.next_events(1));
    }
    assert_eq!(numbers(&seen), [0, 1, 2, 3]);
}

#[test]
fn what_found_the_queue_full_comes_in_its_place_and_can_be_replayed() {
    let (mut client, _servers) = behind(&[600_000, 400_000, 100]);
    assert_eq!(seqs(&client.next_events(3)), [1, 2, 3]);
    let answer = client.command(&json!({"type": "replay", "from_seq": 2, "to_seq": 2}));
    assert_eq!((&answer["type"], &answer["count"]), (&json!("replay"), &json!(1)));
    let event = client.next_event();
    assert_eq!((&event["seq"], &event["data"]["n"]), (&json!(2), &json!(1)));
    client.assert_quiet();
}

#[test]
fn the_third_in_a_row_that_finds_the_queue_full_closes_the_client() {
    let (mut client, (_nats, mut server)) = behind(&[600_000, 400_000, 100, 100]);
    let (events, frame) = client.read_to_close();
    let frame = frame.unwrap();
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1008, "client reads too slowly"));
    let sent = events.len() as u64;
    assert_eq!(seqs(&events), (1..=sent).collect::<Vec<_>>());
    let total =
        |name: &str, metrics: &BTreeMap<String, f64>| metrics[&format!("{name}{{shard=\"0\"}}")];
    let deadline = Instant::now() + GUARD;
    let metrics = loop {
        let metrics = server.metrics();
        if total("ws_slow_client_disconnects_total", &metrics) > 0.0 {
            break metrics;
        }
        assert!(Instant::now() < deadline, "the shard reports every second");
    };
    assert_eq!(total("ws_messages_postponed_total", &metrics), 3.0);
    assert_eq!(total("ws_messages_dropped_total", &metrics), (4 - sent) as f64);
}
