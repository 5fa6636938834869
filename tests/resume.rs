//! Clients that lost their connection go on where they were, on any instance, or are told at once
//! that they cannot.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};
use support::server::{command, wait};
use support::{Client, Nats, Server};

const CHANNEL: &str = "odin.token.BTC.trade";

fn serve_with(nats: &Nats, arguments: &[&str]) -> Server {
    let url = nats.url();
    let server = Server::serve(&[&["--nats-url", &url], arguments].concat());
    server.wait_ready(200);
    server
}

fn serve(nats: &Nats) -> Server {
    serve_with(nats, &[])
}

/// Where a client stands.
#[derive(Debug, Clone)]
struct Point(Value);

impl Point {
    /// After this message: an event of the stream's life `epoch`, or an answer.
    fn at(epoch: &Value, message: &Value) -> Self {
        Self(json!({"epoch": epoch, "pos": message["pos"], "ts": message["ts"]}))
    }
}

/// Subscribes where another connection ended; the answer.
fn resume(client: &mut Client, channels: &[&str], point: &Point) -> Value {
    client.command(&json!({"type": "subscribe", "channels": channels, "resume": point.0}))
}

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["data"]["n"].as_u64().unwrap()).collect()
}

#[track_caller]
fn assert_missed(client: &mut Client, answer: &Value, expected: std::ops::Range<u64>) {
    assert_eq!(answer["recovered"], true, "{answer}");
    let count = expected.end - expected.start;
    // What this instance has not read yet when it answers comes live.
    assert!(answer["resume"]["messages"].as_u64().unwrap() <= count, "{answer}");
    let events = client.next_events(count as usize);
    assert_eq!(numbers(&events), expected.collect::<Vec<u64>>());
    client.assert_quiet();
}

#[track_caller]
fn assert_refused(answer: &Value, reason: &str) {
    assert_eq!(answer["recovered"], false, "{answer}");
    assert_eq!(answer["resume"]["reason"], reason, "{answer}");
}

#[test]
fn a_client_goes_on_at_another_instance_also_one_that_has_just_started() {
    let nats = Nats::start();
    let servers = [serve(&nats), serve(&nats)];
    let mut client = Client::connect(&servers[0]);
    client.subscribe(&[CHANNEL]);
    nats.publish_numbers(CHANNEL, 0..10);
    let last = client.next_events(10).pop().unwrap();
    let point = Point::at(&client.welcome["epoch"], &last);
    drop(client);
    nats.publish_numbers("odin.token.ETH.trade", 0..7);
    nats.publish_numbers(CHANNEL, 10..30);
    let mut other = Client::connect(&servers[1]);
    let answer = resume(&mut other, &[CHANNEL], &point);
    assert_missed(&mut other, &answer, 10..30);
    nats.publish_numbers(CHANNEL, 30..31);
    assert_eq!(other.next_event()["seq"], 21);

    let fresh = serve(&nats);
    let mut third = Client::connect(&fresh);
    let answer = resume(&mut third, &["odin.token.BTC.>", "odin.token.*.comment"], &point);
    assert_missed(&mut third, &answer, 10..31);
    let prev: Vec<Value> = {
        nats.publish_numbers(CHANNEL, 31..33);
        third.next_events(2).iter().map(|event| event["prev"].clone()).collect()
    };
    assert_eq!(prev, [json!(38), json!(39)], "the chain goes on");
}

#[test]
fn an_instance_that_is_killed_costs_nothing() {
    let nats = Nats::start();
    let dying = serve(&nats);
    let staying = serve(&nats);
    let mut client = Client::connect(&dying);
    client.subscribe(&[CHANNEL]);
    nats.publish_numbers(CHANNEL, 0..5);
    let last = client.next_events(5).pop().unwrap();
    let epoch = client.welcome["epoch"].clone();
    dying.signal("KILL");
    assert!(client.socket.read().is_err());
    nats.publish_numbers(CHANNEL, 5..12);
    let mut again = Client::connect(&staying);
    assert_eq!(again.welcome["epoch"], epoch);
    let answer = resume(&mut again, &[CHANNEL], &Point::at(&epoch, &last));
    assert_missed(&mut again, &answer, 5..12);
}

#[test]
fn a_client_that_has_received_nothing_resumes_by_its_acknowledgement() {
    let nats = Nats::start();
    let server = serve(&nats);
    let mut client = Client::connect(&server);
    // The stream is new: position 0.
    let acknowledgement = client.subscribe(&[CHANNEL]);
    assert_eq!((&acknowledgement["pos"], &acknowledgement["ts"]), (&json!(0), &json!(0)));
    let first = Point::at(&acknowledgement["epoch"], &acknowledgement);
    nats.publish_numbers("odin.token.ETH.trade", 0..3);
    let mut other = Client::connect(&server);
    let mut second = Value::Null;
    while second["pos"] != 3 {
        second = other.subscribe(&[CHANNEL]);
    }
    let second = Point::at(&second["epoch"], &second);
    drop((client, other));
    nats.publish_numbers(CHANNEL, 0..4);
    for point in [first, second] {
        for server in [&server, &serve(&nats)] {
            let mut client = Client::connect(server);
            let answer = resume(&mut client, &[CHANNEL], &point);
            assert_missed(&mut client, &answer, 0..4);
        }
    }
}

#[test]
fn a_quiet_market_makes_nobody_reload() {
    let nats = Nats::start();
    let server = serve(&nats);
    let mut client = Client::connect(&server);
    client.subscribe(&[CHANNEL]);
    nats.publish_numbers(CHANNEL, 0..5);
    let events = client.next_events(5);
    let epoch = client.welcome["epoch"].clone();
    // Nothing is retained any more, as after a quiet minute.
    nats.with_jetstream(async |context| {
        context.get_stream("ODIN_TOKENS").await.unwrap().purge().await.unwrap();
    });
    let fresh = serve(&nats);
    let mut other = Client::connect(&fresh);
    assert_eq!((&other.welcome["pos"], &other.welcome["ts"]), (&json!(5), &events[4]["ts"]));
    let answer = resume(&mut other, &[CHANNEL], &Point::at(&epoch, &events[4]));
    assert_eq!((&answer["recovered"], &answer["resume"]), (&json!(true), &json!({"messages": 0})));
    let answer = resume(&mut other, &[CHANNEL], &Point::at(&epoch, &events[3]));
    assert_refused(&answer, "position_too_old");
    // The instance that saw them has them in its own log.
    let mut same = Client::connect(&server);
    let answer = resume(&mut same, &[CHANNEL], &Point::at(&epoch, &events[1]));
    assert_missed(&mut same, &answer, 2..5);
}

#[test]
fn a_window_that_ages_while_it_is_read_is_still_of_use() {
    let nats = Nats::start();
    // Makes the stream.
    drop(serve(&nats));
    nats.publish_numbers(CHANNEL, 0..100);
    // Few are under way when the first ones age away.
    let server = Server::serve(&["--nats-url", &nats.url(), "--max-nats-rate", "20"]);
    let mut client = Client::connect(&server);
    client.send(&json!({"type": "subscribe", "channels": [CHANNEL]}));
    // It is told that the source is loading, too.
    let mut next = || loop {
        let message = client.next();
        if message.get("seq").is_some() {
            return message;
        }
    };
    let mut read = vec![next()];
    nats.with_jetstream(async |context| {
        let stream = context.get_stream("ODIN_TOKENS").await.unwrap();
        stream.purge().sequence(61).await.unwrap();
    });
    while read.last().unwrap()["pos"] != 100 {
        read.push(next());
    }
    assert!(read.len() < 90, "nothing was lost");
    let kept = &read[read.len() - 20];
    server.wait_ready(200);
    let mut other = Client::connect(&server);
    let point = Point::at(&other.welcome["epoch"], kept);
    let answer = resume(&mut other, &[CHANNEL], &point);
    assert_missed(&mut other, &answer, 81..100);
}

#[test]
fn a_client_of_quiet_channels_goes_on_from_its_last_heartbeat() {
    let nats = Nats::start();
    let server = serve(&nats);
    let mut client = Client::connect(&server);
    let answer = client.subscribe(&[CHANNEL]);
    nats.publish_numbers("odin.token.ETH.trade", 0..5);
    // It may not have come to the server yet.
    let position = loop {
        let position = client.command(&json!({"type": "heartbeat"}))["position"].take();
        if position["pos"] == 5 {
            break position;
        }
    };
    // What the others said before has aged away, the rest has not.
    nats.with_jetstream(async |context| {
        let stream = context.get_stream("ODIN_TOKENS").await.unwrap();
        stream.purge().sequence(5).await.unwrap();
    });
    nats.publish_numbers(CHANNEL, 0..3);
    let fresh = serve(&nats);
    let mut other = Client::connect(&fresh);
    let epoch = client.welcome["epoch"].clone();
    let refused = resume(&mut other, &["odin.token.BTC.comment"], &Point::at(&epoch, &answer));
    assert_refused(&refused, "position_too_old");
    let answer = resume(&mut other, &[CHANNEL], &Point(position));
    assert_missed(&mut other, &answer, 0..3);
}

#[test]
fn positions_that_were_given_out_again_are_never_called_complete() {
    let mut nats = Nats::start();
    let server = serve(&nats);
    let mut client = Client::connect(&server);
    client.subscribe(&[CHANNEL]);
    nats.publish_numbers(CHANNEL, 0..3);
    let kept = client.next_events(3).pop().unwrap();
    nats.kill();
    nats.save();
    nats.launch();
    server.wait_ready(200);
    nats.publish_numbers(CHANNEL, 3..8);
    let mut lost = Vec::new();
    while lost.len() < 5 {
        let message = client.next();
        lost.extend(message.get("seq").is_some().then_some(message));
    }
    // The broker loses 3 to 7, and gives two of their positions to other messages.
    nats.kill();
    nats.load();
    nats.launch();
    nats.publish_numbers(CHANNEL, 100..102);
    let resync = loop {
        let message = client.next_answer();
        if message["type"] == "resync" {
            break message;
        }
    };
    assert_eq!(
        (&resync["reason"], &resync["epoch"]),
        (&json!("history_lost"), &client.welcome["epoch"])
    );
    server.wait_ready(200);
    let epoch = &client.welcome["epoch"];
    let fresh = serve(&nats);
    for server in [&server, &fresh] {
        let mut other = Client::connect(server);
        let answer = resume(&mut other, &[CHANNEL], &Point::at(epoch, &lost[0]));
        assert_refused(&answer, "position_mismatch");
        let mut other = Client::connect(server);
        let answer = resume(&mut other, &[CHANNEL], &Point::at(epoch, &lost[4]));
        assert_refused(&answer, "position_unknown");
    }
    // Who was away before misses what the broker lost, and the old instance had sent.
    let mut other = Client::connect(&server);
    let answer = resume(&mut other, &[CHANNEL], &Point::at(epoch, &kept));
    assert_refused(&answer, "not_provable");
    let mut other = Client::connect(&fresh);
    let answer = resume(&mut other, &[CHANNEL], &Point::at(epoch, &kept));
    assert_missed(&mut other, &answer, 100..102);
}

#[test]
fn a_position_that_is_given_out_again_while_a_resume_waits_for_it_is_seen() {
    let mut nats = Nats::start();
    let before = serve(&nats);
    let mut client = Client::connect(&before);
    client.subscribe(&[CHANNEL]);
    nats.publish_numbers(CHANNEL, 0..3);
    client.next_events(3);
    nats.kill();
    nats.save();
    nats.launch();
    before.wait_ready(200);
    nats.publish_numbers(CHANNEL, 3..4);
    let lost = loop {
        let message = client.next();
        if message.get("seq").is_some() {
            break message;
        }
    };
    drop(before);
    nats.kill();
    nats.load();
    nats.launch();
    let fresh = serve(&nats);
    let mut other = Client::connect(&fresh);
    let resume = json!({"epoch": client.welcome["epoch"], "pos": lost["pos"], "ts": lost["ts"]});
    other.send(&json!({"type": "subscribe", "channels": [CHANNEL], "resume": resume}));
    nats.publish_numbers(CHANNEL, 100..101);
    let answer = other.next_answer();
    // Either the other message came first, or it took too long: complete it is in neither case.
    assert_eq!(answer["recovered"], false, "{answer}");
}

#[test]
fn a_stream_that_was_made_again_has_no_past() {
    let nats = Nats::start();
    let server = serve(&nats);
    let mut client = Client::connect(&server);
    client.subscribe(&[CHANNEL]);
    nats.publish_numbers(CHANNEL, 0..3);
    let last = client.next_events(3).pop().unwrap();
    let point = Point::at(&client.welcome["epoch"], &last);
    nats.with_jetstream(async |context| {
        context.delete_stream("ODIN_TOKENS").await.unwrap();
    });
    while client.next_answer()["type"] != "resync" {}
    server.wait_ready(200);
    nats.publish_numbers(CHANNEL, 0..9);
    for server in [&server, &serve(&nats)] {
        let mut other = Client::connect(server);
        assert_refused(&resume(&mut other, &[CHANNEL], &point), "epoch_changed");
    }
}

#[test]
fn a_storm_of_resumes_gets_everything_in_order() {
    let nats = Nats::start();
    let server = serve_with(&nats, &["--shards", "1"]);
    let mut first = Client::connect(&server);
    let acknowledgement = first.subscribe(&[CHANNEL]);
    let point = Point::at(&acknowledgement["epoch"], &acknowledgement);
    nats.publish_numbers(CHANNEL, 0..400);
    first.next_events(400);
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        let command = json!({"type": "subscribe", "channels": ["odin.token.>"], "resume": point.0});
        client.send(&command);
    }
    nats.publish_numbers(CHANNEL, 400..450);
    for client in &mut clients {
        let answer = client.next_answer();
        assert_eq!(answer["recovered"], true, "{answer}");
        let events = client.next_events(450);
        assert_eq!(numbers(&events), (0..450).collect::<Vec<u64>>());
        let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, (1..=450).collect::<Vec<u64>>());
    }
    let mut server = server;
    let recovered = "ws_resumes_total{outcome=\"recovered\",shard=\"0\"}";
    // The report is at most a tick old.
    let metrics = loop {
        let metrics = server.metrics();
        if metrics[recovered] > 0.0 {
            break metrics;
        }
    };
    assert_eq!(metrics[recovered], 100.0, "{metrics:?}");
    assert!(metrics["ws_resumed_messages_total{shard=\"0\"}"] >= 40_000.0);
}

#[test]
fn more_than_may_be_sent_again_is_refused_with_its_reason() {
    let nats = Nats::start();
    let server = serve_with(&nats, &["--resume-messages", "5"]);
    let mut client = Client::connect(&server);
    assert_eq!(client.welcome["limits"]["resume_messages"], 5);
    let acknowledgement = client.subscribe(&[CHANNEL]);
    nats.publish_numbers(CHANNEL, 0..6);
    let events = client.next_events(6);
    let mut other = Client::connect(&server);
    let epoch = &acknowledgement["epoch"];
    let answer = resume(&mut other, &[CHANNEL], &Point::at(epoch, &acknowledgement));
    assert_refused(&answer, "too_many_messages");
    let mut other = Client::connect(&server);
    let answer = resume(&mut other, &[CHANNEL], &Point::at(epoch, &events[0]));
    assert_missed(&mut other, &answer, 1..6);
}

#[test]
fn the_core_source_resumes_on_the_same_instance_only() {
    let mut nats = Nats::start();
    let server = serve_with(&nats, &["--source", "core"]);
    let mut client = Client::connect(&server);
    let acknowledgement = client.subscribe(&[CHANNEL]);
    for number in 0..3 {
        nats.publish_core(CHANNEL, &format!("{{\"n\":{number}}}"));
    }
    client.next_events(3);
    let point = Point::at(&acknowledgement["epoch"], &acknowledgement);
    let mut again = Client::connect(&server);
    let answer = resume(&mut again, &[CHANNEL], &point);
    assert_missed(&mut again, &answer, 0..3);
    let other = serve_with(&nats, &["--source", "core"]);
    let mut elsewhere = Client::connect(&other);
    assert_refused(&resume(&mut elsewhere, &[CHANNEL], &point), "epoch_changed");
    nats.kill();
    while client.next_answer()["type"] != "source_stale" {}
    nats.launch();
    while client.next_answer()["type"] != "source_live" {}
    let mut after = Client::connect(&server);
    assert_refused(&resume(&mut after, &[CHANNEL], &point), "epoch_changed");
}

#[test]
fn tail_goes_on_where_it_was() {
    let nats = Nats::start();
    let start = |addr: &str| {
        let server = Server::start(&["serve", "--addr", addr, "--nats-url", &nats.url()]);
        server.wait_ready(200);
        server
    };
    let server = start(&Server::own_address());
    let (addr, url) = (server.addr.to_string(), format!("ws://{}/ws", server.addr));
    let mut tail = command(&["tail", CHANNEL, "--url", &url, "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(tail.stderr.take().unwrap()).lines();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    while !said.next().unwrap().unwrap().starts_with("subscribed") {}
    nats.publish_numbers(CHANNEL, 0..3);
    assert_eq!(numbers(&[next(), next(), next()]), [0, 1, 2]);
    server.signal("KILL");
    nats.publish_numbers(CHANNEL, 3..6);
    let _again = start(&addr);
    assert_eq!(numbers(&[next(), next(), next()]), [3, 4, 5]);
    while !said.next().unwrap().unwrap().contains("3 missed events follow") {}
    tail.kill().unwrap();
    wait(&mut tail);
}
