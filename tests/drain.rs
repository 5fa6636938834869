//! How clients leave a server: at its end, one after the other, and at the age of their
//! connection; and that two instances can be restarted without a loss for anybody.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use support::{Client, GUARD, Nats, Server};

const ALL: &[&str] = &["odin.token.>", "odin.global.>"];

fn connect(server: &Server, count: usize) -> Vec<Client> {
    (0..count).map(|_| Client::connect(server)).collect()
}

/// The one `server_draining` among these, its place, and its two numbers.
fn told(messages: &[Value]) -> (usize, u64, u64) {
    let is_told = |message: &&Value| message["type"] == "server_draining";
    assert_eq!(messages.iter().filter(is_told).count(), 1, "{messages:?}");
    let place = messages.iter().position(|message| is_told(&message)).unwrap();
    let number = |name: &str| messages[place][name].as_u64().unwrap();
    (place, number("reconnect_after_ms"), number("deadline_ms"))
}

/// The sum over all shards of a figure in the line that each logs at its end.
fn sum_at_end(log: &str, name: &str) -> u64 {
    let lines = log.lines().filter(|line| line.contains("shard ended"));
    let figures = lines.map(|line| {
        let (_, rest) = line.split_once(&format!("{name}: ")).unwrap();
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().unwrap()
    });
    figures.sum()
}

#[test]
fn clients_are_told_moments_of_their_own_served_on_and_closed_with_1012() {
    let arguments = ["--source", "sim", "--sim-rate", "50", "--drain-seconds", "4"];
    let mut server = Server::serve(&[&arguments[..], &["--shards", "2"]].concat());
    let mut clients = connect(&server, 12);
    for client in &mut clients {
        client.subscribe(ALL);
    }
    server.signal("TERM");
    let mut moments = BTreeSet::new();
    for client in &mut clients {
        let (messages, close) = client.read_to_close();
        let (place, reconnect_after_ms, deadline_ms) = told(&messages);
        assert_eq!(deadline_ms, reconnect_after_ms + 400);
        assert!(reconnect_after_ms < 3_200, "{reconnect_after_ms}");
        moments.insert(reconnect_after_ms);
        let events: Vec<u64> =
            messages.iter().filter_map(|message| message["seq"].as_u64()).collect();
        assert!(events.iter().copied().eq(1..=events.len() as u64), "a hole in {events:?}");
        assert!(messages.len() > place + 1, "events come on");
        let close = close.unwrap();
        assert_eq!(u16::from(close.code), 1012);
        assert_eq!(close.reason.as_str(), "server is restarting, connect again");
    }
    // One shard has six at least, each in a sixth of its own.
    assert!(moments.last().unwrap() - moments.first().unwrap() > 2_000, "{moments:?}");
    assert!(moments.len() > 9, "{moments:?}");
    assert_eq!(server.wait_exit().code(), Some(0));
    let log = server.rest_of_log();
    assert_eq!(sum_at_end(&log, "drain_closed"), 12, "{log}");
}

#[test]
fn readiness_fails_before_the_listener_closes_and_the_end_comes_when_all_have_left() {
    let arguments = ["--source", "sim", "--drain-seconds", "20"];
    let mut server =
        Server::serve(&[&arguments[..], &["--drain-ready-delay-seconds", "4"]].concat());
    server.wait_ready(200);
    let early = Client::connect(&server);
    server.signal("TERM");
    server.wait_ready(503);
    let late = Client::connect(&server);
    let mut unfinished = server.connect();
    let response = server.get("/ready");
    assert!(response.ends_with("{\"ready\":false,\"draining\":true,\"source\":\"live\"}"));
    assert!(server.get("/health").starts_with("HTTP/1.1 200 "));
    let deadline = Instant::now() + GUARD;
    while server.metrics()["ws_draining{shard=\"0\"}"] != 1.0 {
        assert!(Instant::now() < deadline, "no metric tells of the drain");
    }
    for mut client in [early, late] {
        let message = client.next();
        let (_, _, deadline_ms) = told(&[message]);
        assert!(deadline_ms <= 16_000, "{deadline_ms}");
        client.socket.close(None).unwrap();
        client.read_close();
    }
    // It ends without a word.
    let ended = unfinished.read(&mut [0]);
    assert!(matches!(ended, Ok(0)) || ended.is_err(), "{ended:?}");
    assert_eq!(server.wait_exit().code(), Some(0));
    assert!(TcpStream::connect(server.addr).is_err());
    let log = server.rest_of_log();
    assert!(!log.contains("not all clients have left"), "{log}");
    assert_eq!(sum_at_end(&log, "drain_closed"), 0, "they left by themselves: {log}");
}

#[test]
fn while_clients_leave_nobody_new_comes_and_a_second_signal_ends_at_once() {
    let mut server = Server::serve(&["--source", "sim", "--drain-seconds", "600"]);
    let mut client = Client::connect(&server);
    server.signal("TERM");
    told(&[client.next()]);
    // Another shard may be a moment behind.
    let deadline = Instant::now() + GUARD;
    while TcpStream::connect(server.addr).is_ok() {
        assert!(Instant::now() < deadline, "the listener stays");
    }
    server.signal("TERM");
    assert_eq!(server.wait_exit().code(), Some(143), "{}", server.rest_of_log());
}

#[test]
fn who_is_left_at_the_deadline_is_closed_with_1001() {
    let arguments = ["--source", "sim", "--drain-seconds", "4"];
    let mut server = Server::serve(&arguments);
    let mut clients = connect(&server, 60);
    // A second server that nobody leaves tells when the time is over.
    let mut clock = Server::serve(&arguments);
    let _staying = Client::connect(&clock);
    server.signal("TERM");
    for client in &mut clients {
        assert_eq!(client.next()["type"], "server_draining");
    }
    server.signal("STOP");
    clock.signal("TERM");
    assert_eq!(clock.wait_exit().code(), Some(0));
    server.signal("CONT");
    let mut codes = BTreeMap::new();
    for client in &mut clients {
        let (_, close) = client.read_to_close();
        *codes.entry(u16::from(close.unwrap().code)).or_insert(0) += 1;
    }
    assert_eq!(server.wait_exit().code(), Some(0));
    assert!(codes.keys().all(|code| [1001, 1012].contains(code)), "{codes:?}");
    assert!(codes[&1001] > 10, "{codes:?}");
    let log = server.rest_of_log();
    assert!(log.contains("not all clients have left in time"), "{log}");
}

#[test]
fn old_connections_are_told_and_closed_and_the_server_goes_on() {
    let mut server = Server::serve(&["--source", "sim", "--max-connection-age", "2s"]);
    let mut clients = connect(&server, 8);
    let mut moments = BTreeSet::new();
    for client in &mut clients {
        let (messages, close) = client.read_to_close();
        let (_, reconnect_after_ms, deadline_ms) = told(&messages);
        assert!(reconnect_after_ms < 5_000 && deadline_ms > reconnect_after_ms, "{messages:?}");
        moments.insert(reconnect_after_ms);
        let close = close.unwrap();
        assert_eq!(u16::from(close.code), 1012);
        assert_eq!(close.reason.as_str(), "connection is old, connect again");
    }
    assert!(moments.len() > 1, "{moments:?}");
    server.wait_ready(200);
    Client::connect(&server).assert_quiet();
    let deadline = Instant::now() + GUARD;
    loop {
        let metrics = server.metrics();
        let shards =
            metrics.iter().filter(|(name, _)| name.starts_with("ws_age_disconnects_total"));
        let closed: f64 = shards.map(|(_, value)| value).sum();
        if closed >= 8.0 {
            break;
        }
        assert!(Instant::now() < deadline, "{closed} counted");
    }
}

/// How a client goes to the other instance when it is told to leave.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// After so many more events it subscribes there, and leaves when that one has taken over.
    Overlaps { after: usize },
    /// It stays until it is closed, and resumes there.
    Resumes,
}

/// A client of whichever instance serves.
struct Follower {
    addrs: [SocketAddr; 2],
    /// Which of them it is connected to.
    at: usize,
    client: Client,
    /// The position after which it has to see everything.
    start: u64,
    /// Where it stands: the newest event, or the answer to its subscription.
    last: Value,
    /// What it saw, by position.
    seen: BTreeMap<u64, Value>,
    manner: Manner,
    moves: usize,
}

impl Follower {
    fn start(addrs: [SocketAddr; 2], at: usize, manner: Manner) -> Self {
        let mut client = Client::connect_to(addrs[at]);
        let last = client.subscribe(ALL);
        let start = position(&last);
        Self { addrs, at, client, start, last, seen: BTreeMap::new(), manner, moves: 0 }
    }

    /// Follows until the message `"end"`.
    fn follow(mut self) -> Self {
        loop {
            let message = self.client.next();
            if message["type"] == "server_draining" {
                self.moves += 1;
                self.at = 1 - self.at;
                match self.manner {
                    Manner::Overlaps { after } => self.change_over(after),
                    Manner::Resumes => self.resume(),
                }
            } else if self.take(message) == "end" {
                return self;
            }
        }
    }

    /// Goes to the other instance. What this one has still to send is read until it has reached
    /// the position from which the other sends everything.
    fn change_over(&mut self, after: usize) {
        for _ in 0..after {
            let message = self.client.next();
            self.take(message);
        }
        let mut next = Client::connect_to(self.addrs[self.at]);
        let taken_over = position(&next.subscribe(ALL));
        while position(&self.last) < taken_over {
            let message = self.client.next();
            self.take(message);
        }
        self.client.socket.close(None).unwrap();
        self.client = next;
    }

    /// Goes on at the other instance where this one closes.
    fn resume(&mut self) {
        let (messages, close) = self.client.read_to_close();
        assert_eq!(u16::from(close.unwrap().code), 1012);
        assert!(!messages.is_empty(), "events come until the close");
        for message in messages {
            self.take(message);
        }
        let epoch = self.client.welcome["epoch"].clone();
        self.client = Client::connect_to(self.addrs[self.at]);
        let (pos, ts) = (&self.last["pos"], &self.last["ts"]);
        let answer = self.client.command(&json!({
            "type": "subscribe",
            "channels": ALL,
            "resume": {"epoch": epoch, "pos": pos, "ts": ts},
        }));
        assert_eq!(answer["recovered"], true, "{answer}");
    }

    fn take(&mut self, event: Value) -> Value {
        assert!(event.get("seq").is_some(), "not an event: {event}");
        let (pos, data) = (position(&event), event["data"].clone());
        self.seen.insert(pos, data.clone());
        if pos > position(&self.last) {
            self.last = event;
        }
        data
    }
}

fn position(message: &Value) -> u64 {
    message["pos"].as_u64().unwrap()
}

/// Says that the test is over, also when it has failed, or its threads would go on for ever.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Publishes numbers, a thousand at least, until it is told to stop, and then `"end"`; all by
/// their position.
fn publish_until(is_over: &AtomicBool, url: &str) -> BTreeMap<u64, Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let context = async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
        let mut published = BTreeMap::new();
        let mut payloads = (0..).map(|number: u64| json!(number));
        loop {
            let is_last = published.len() >= 1_000 && is_over.load(Ordering::Relaxed);
            let batch: Vec<Value> =
                if is_last { vec![json!("end")] } else { payloads.by_ref().take(10).collect() };
            let mut sent = Vec::new();
            for payload in batch {
                let subject = format!("odin.token.T{}.trade", sent.len() % 5);
                let receipt = context.publish(subject, payload.to_string().into()).await.unwrap();
                sent.push((receipt, payload));
            }
            for (receipt, payload) in sent {
                published.insert(receipt.await.unwrap().sequence, payload);
            }
            if is_last {
                return published;
            }
        }
    })
}

#[test]
fn two_instances_restarted_one_after_the_other_lose_nothing_for_anybody() {
    let nats = Nats::start();
    let url = nats.url();
    let start = |addr: &str| {
        let arguments = ["serve", "--addr", addr, "--nats-url", &url, "--drain-seconds", "6"];
        let server = Server::start(&arguments);
        server.wait_ready(200);
        server
    };
    let mut servers = [start(&Server::own_address()), start(&Server::own_address())];
    let addrs = servers.each_ref().map(|server| server.addr);
    let is_over = AtomicBool::new(false);
    let (published, followers) = std::thread::scope(|scope| {
        let over = Over(&is_over);
        let publisher = scope.spawn(|| publish_until(&is_over, &url));
        // Two of three begin where the first restart is.
        let follower = |number: usize| {
            let resumes = number.is_multiple_of(2);
            let manner = if resumes { Manner::Resumes } else { Manner::Overlaps { after: number } };
            Follower::start(addrs, usize::from(number.is_multiple_of(3)), manner)
        };
        let followers: Vec<Follower> = (0..9).map(follower).collect();
        let following: Vec<_> =
            followers.into_iter().map(|follower| scope.spawn(|| follower.follow())).collect();
        for server in &mut servers {
            server.signal("TERM");
            assert_eq!(server.wait_exit().code(), Some(0));
            let log = server.rest_of_log();
            assert!(!log.contains("not all clients have left"), "{log}");
            *server = start(&server.addr.to_string());
        }
        drop(over);
        let followers = following.into_iter().map(|thread| thread.join().unwrap());
        let followers: Vec<Follower> = followers.collect();
        (publisher.join().unwrap(), followers)
    });
    for (number, follower) in followers.into_iter().enumerate() {
        let due: BTreeMap<u64, Value> =
            published.range(follower.start + 1..).map(|(pos, data)| (*pos, data.clone())).collect();
        assert!(
            follower.seen == due,
            "client {number} saw {} of {}",
            follower.seen.len(),
            due.len()
        );
        // All are on the second instance when it goes.
        let moves = if number.is_multiple_of(3) { 1 } else { 2 };
        assert_eq!((follower.moves, follower.at), (moves, 0), "client {number}");
    }
}
