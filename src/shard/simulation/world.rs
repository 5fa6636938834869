//! A seeded simulation of one shard with many clients that subscribe, read slowly, stop reading,
//! reset and come again, checked against a model. A failure names its seed.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use super::client::Client;
use super::{PEER, REQUEST, Sockets, client_frame, limits, shard};
use crate::channel::Pattern;
use crate::event::Event;
use crate::feed::{Feed, SourceStatus};
use crate::position::{Base, Epoch, Incoming, Position, StreamPos};
use crate::protocol::command::BATCH_MS_MAX;
use crate::shard::engine::Shard;
use crate::shard::limits::ClientLimits;
use crate::shard::limits::Limits;
use crate::shard::{ConnId, Now};

pub(super) struct World {
    pub rng: SmallRng,
    pub shard: Shard,
    pub wire: Sockets,
    pub now: Now,
    pos: u64,
    previous: HashMap<String, u64>,
    newest: BTreeMap<String, u64>,
    history: Vec<(u64, String)>,
    pub resumed: usize,
    pub clients: Vec<Client>,
    closed_slow: usize,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let client = ClientLimits { queue_messages: 40, queue_bytes: 16_384, ..limits().client };
        let mut world = Self {
            rng: SmallRng::seed_from_u64(seed),
            shard: shard(Limits { client, ..limits() }),
            wire: Sockets::default(),
            now: Now { monotonic_us: 1_000_000, unix_ms: 1_700_000_000_000 },
            pos: 0,
            previous: HashMap::new(),
            newest: BTreeMap::new(),
            history: Vec::new(),
            resumed: 0,
            clients: Vec::new(),
            closed_slow: 0,
        };
        let base = Base { after: Some(Position::default()), ..Base::default() };
        let epoch = Feed::Epoch { epoch: Epoch("e".into()), base };
        world.feed([epoch, Feed::Status(SourceStatus::Live)].into());
        world
    }

    pub(super) fn connect(&mut self) {
        let offer = self.rng.random_bool(0.5);
        self.connect_with(if offer { "permessage-deflate; server_max_window_bits=9" } else { "" });
    }

    /// Connects with this offer of extensions.
    pub(super) fn connect_with(&mut self, offer: &str) {
        let id = self.shard.accept(PEER, self.now);
        let end = format!("\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n");
        let mut request = [REQUEST.strip_suffix(b"\r\n\r\n").unwrap(), end.as_bytes()].concat();
        let cut = self.rng.random_range(0..request.len());
        let (first, second) = request.split_at_mut(cut);
        if !first.is_empty() {
            self.shard.receive(id, first, self.now, &mut self.wire);
        }
        self.shard.receive(id, second, self.now, &mut self.wire);
        let window = match offer {
            "" => 0,
            _ if offer.contains("bits=9") => 512,
            _ => 32_768,
        };
        self.clients.push(Client {
            id,
            bytes: Vec::new(),
            frames: Vec::new(),
            patterns: BTreeSet::new(),
            expected: BTreeMap::new(),
            next_seq: 1,
            checked: 0,
            seen: BTreeMap::new(),
            position: 0,
            recovers: None,
            replaying: 0,
            compressed: 0,
            window,
        });
    }

    pub(super) fn send(&mut self, client: usize, text: &str) {
        let mut frame = client_frame(1, text.as_bytes());
        let id = self.clients[client].id;
        let cut = self.rng.random_range(0..=frame.len());
        let (first, second) = frame.split_at_mut(cut);
        self.receive(id, first);
        self.receive(id, second);
        self.read_on();
    }

    /// What the first client was sent since the last call, events too, past the model.
    pub(super) fn take_messages(&mut self) -> Vec<Value> {
        self.flush();
        let client = &mut self.clients[0];
        client.bytes.extend(self.wire.sent.remove(&client.id).unwrap_or_default());
        client.take_frames();
        let frames = client.frames.split_off(client.checked);
        let texts = frames.iter().filter(|(opcode, _)| *opcode == 1);
        texts.map(|(_, text)| serde_json::from_slice(text).unwrap()).collect()
    }

    /// Publishes one event to every client.
    pub(super) fn publish_text(&mut self, channel: &str, text: &str) {
        self.pos += 1;
        for client in &mut self.clients {
            client.expected.insert(client.next_seq, self.pos);
            client.next_seq += 1;
        }
        let position = Position { pos: StreamPos(self.pos), ts_ms: self.pos };
        let payload = format!("\"{text}\"");
        let incoming = Incoming { subject: channel, payload: payload.as_bytes(), position };
        let event = Event::new(&incoming, channel.into(), StreamPos(0), 0);
        self.feed([Feed::Event(Arc::new(event))].into());
        self.flush();
    }

    /// Publishes one event on each of `channels` in one batch, past the model.
    pub(super) fn publish_on<'a>(&mut self, channels: impl Iterator<Item = &'a str>) {
        let mut feed: VecDeque<Feed> = VecDeque::new();
        for channel in channels {
            self.pos += 1;
            let position = Position { pos: StreamPos(self.pos), ts_ms: self.pos };
            let incoming = Incoming { subject: channel, payload: b"1", position };
            let event = Event::new(&incoming, channel.into(), StreamPos(0), 0);
            feed.push_back(Feed::Event(Arc::new(event)));
        }
        self.feed(feed);
        self.flush();
    }

    fn random_pattern(&mut self) -> String {
        let tokens = ["t", ["A", "B", "*"].choose(&mut self.rng).unwrap(), "x"];
        match self.rng.random_range(0..4) {
            0 => format!("{}.{}.>", tokens[0], tokens[1]),
            1 => format!("{}.{}.*", tokens[0], tokens[1]),
            _ => {
                format!("{}.{}.{}", tokens[0], tokens[1], ["x", "y"].choose(&mut self.rng).unwrap())
            }
        }
    }

    fn matches(client: &Client, channel: &str) -> bool {
        client.patterns.iter().any(|text| Pattern::parse(text, 256).unwrap().matches(channel))
    }

    fn subscribe(&mut self, client: usize) {
        let text = self.random_pattern();
        let snapshot = self.rng.random_bool(0.4);
        let state = &mut self.clients[client];
        if snapshot {
            let pattern = Pattern::parse(&text, 256).unwrap();
            let mut wanted: Vec<u64> = self
                .newest
                .iter()
                .filter(|(channel, _)| pattern.matches(channel) && !Self::matches(state, channel))
                .map(|(_, pos)| *pos)
                .collect();
            wanted.sort_unstable();
            for pos in wanted {
                state.expected.insert(state.next_seq, pos);
                state.next_seq += 1;
            }
        }
        state.patterns.insert(text.clone());
        let command =
            format!(r#"{{"type":"subscribe","channels":["{text}"],"snapshot":{snapshot}}}"#);
        self.send(client, &command);
    }

    fn unsubscribe(&mut self, client: usize) {
        let texts: Vec<String> = self.clients[client].patterns.iter().cloned().collect();
        let Some(text) = texts.choose(&mut self.rng) else { return };
        self.clients[client].patterns.remove(text);
        self.send(client, &format!(r#"{{"type":"unsubscribe","channels":["{text}"]}}"#));
    }

    /// A client loses its connection and comes back.
    fn resume(&mut self, client: usize) {
        let left = self.clients.swap_remove(client);
        self.shard.lost(left.id);
        self.wire.sent.remove(&left.id);
        self.connect();
        let index = self.clients.len() - 1;
        let state = &mut self.clients[index];
        state.patterns = left.patterns;
        let forgotten = &self.history[..self.history.len() - self.shard.history.log_messages()];
        let recovers = forgotten.last().is_none_or(|(pos, _)| *pos <= left.position);
        state.recovers = Some(recovers);
        state.position = left.position;
        if recovers {
            for (pos, channel) in &self.history {
                if *pos > left.position && Self::matches(state, channel) {
                    state.expected.insert(state.next_seq, *pos);
                    state.next_seq += 1;
                }
            }
            self.resumed += 1;
        }
        let channels: Vec<&String> = state.patterns.iter().collect();
        let resume = json!({"epoch": "e", "pos": left.position, "ts": left.position});
        let command = json!({"type": "subscribe", "channels": channels, "resume": resume});
        self.send(index, &command.to_string());
    }

    /// Whether a client is sent what it missed: the model does not say then which `seq` the
    /// events get that a command asks for.
    fn is_catching_up(&self, client: usize) -> bool {
        let connection = self.shard.connections.get(self.clients[client].id);
        connection.is_some_and(|connection| connection.delivery.has_backlog())
    }

    fn replay(&mut self, client: usize) {
        let state = &mut self.clients[client];
        let last = state.next_seq - 1;
        let first = last.saturating_sub(99).max(1);
        if last == 0 {
            return;
        }
        let from = self.rng.random_range(first..=last);
        let to = self.rng.random_range(from..=last);
        state.replaying += to - from + 1;
        self.send(client, &format!(r#"{{"type":"replay","from_seq":{from},"to_seq":{to}}}"#));
    }

    fn publish(&mut self) {
        let mut feed = VecDeque::new();
        for _ in 0..self.rng.random_range(1..60) {
            self.pos += self.rng.random_range(1..4);
            let token = ["A", "B", "C"].choose(&mut self.rng).unwrap();
            let channel = format!("t.{token}.{}", ["x", "y"].choose(&mut self.rng).unwrap());
            let payload = format!("\"{}\"", "x".repeat(self.rng.random_range(0..900)));
            let position = Position { pos: StreamPos(self.pos), ts_ms: self.pos };
            let prev = self.previous.insert(channel.clone(), self.pos).unwrap_or(0);
            let incoming = Incoming { subject: &channel, payload: payload.as_bytes(), position };
            let event = Event::new(&incoming, channel.as_str().into(), StreamPos(prev), 0);
            feed.push_back(Feed::Event(Arc::new(event)));
            self.newest.insert(channel.clone(), self.pos);
            self.history.push((self.pos, channel.clone()));
            for client in &mut self.clients {
                if Self::matches(client, &channel) {
                    client.expected.insert(client.next_seq, self.pos);
                    client.next_seq += 1;
                }
            }
        }
        self.feed(feed);
    }

    /// Sets how much each socket takes, and writes to the blocked ones as the IO layer does.
    fn drain(&mut self, generous: bool) {
        for index in 0..self.clients.len() {
            let id = self.clients[index].id;
            let room = match self.rng.random_range(0..3) {
                _ if generous => usize::MAX,
                0 => 0,
                1 => self.rng.random_range(1..40),
                _ => self.rng.random_range(1..60_000),
            };
            self.wire.room.insert(id, room);
            if room > 0 && self.wire.blocked.remove(&(id.index, id.generation)) {
                self.writable(id);
            }
        }
    }

    /// Publishes all of `feed` and sends some of what that causes, as a busy executor does.
    pub(super) fn feed(&mut self, mut feed: VecDeque<Feed>) {
        while !feed.is_empty() {
            self.shard.publish(&mut feed, self.now, &mut self.wire);
            let some = self.rng.random_range(0..20);
            self.shard.release_held(self.now);
            self.shard.step(some, self.now, &mut self.wire);
        }
    }

    /// Sends what is left and due.
    pub(super) fn flush(&mut self) {
        self.shard.release_held(self.now);
        while self.shard.step(3, self.now, &mut self.wire) {}
        self.read_on();
    }

    /// What the connections are charged is what they take.
    fn check_charges(&self) {
        let (mut queue, mut replay, mut partial) = (0, 0, 0);
        for connection in self.shard.connections.iter() {
            let memory = connection.charged;
            // What an event adds is charged when it is sent.
            assert!(connection.marks.is_waiting() || memory == connection.memory());
            queue += memory.queue as usize;
            replay += memory.replay as usize;
            partial += memory.partial as usize;
        }
        let charged = self.shard.memory();
        assert_eq!((charged.queue, charged.replay, charged.partial), (queue, replay, partial));
    }

    /// Reads what arrived and checks each event against the model.
    pub(super) fn check(&mut self) {
        self.check_charges();
        for client in &mut self.clients {
            client.bytes.extend(self.wire.sent.remove(&client.id).unwrap_or_default());
            client.take_frames();
            while let Some((opcode, payload)) = client.frames.get(client.checked) {
                client.checked += 1;
                if *opcode != 1 {
                    continue;
                }
                let message: Value = serde_json::from_slice(payload).unwrap();
                if let Some(recovered) = message.get("recovered") {
                    assert_eq!(recovered.as_bool(), client.recovers, "{message}");
                }
                let Some(seq) = message.get("seq").and_then(Value::as_u64) else { continue };
                let pos = message["pos"].as_u64().unwrap();
                client.position = client.position.max(pos);
                assert_eq!(client.expected.get(&seq), Some(&pos), "seq {seq}");
                match client.seen.insert(seq, pos) {
                    None => assert_eq!(client.seen.len() as u64, seq, "behind a hole"),
                    Some(_) => {
                        assert!(client.replaying > 0, "seq {seq} came twice unasked");
                    }
                }
            }
        }
    }

    fn reap(&mut self) {
        let closed =
            |client: &&Client| client.frames.last().is_some_and(|(opcode, _)| *opcode == 8);
        let answering: Vec<ConnId> =
            self.clients.iter().filter(closed).map(|client| client.id).collect();
        for id in answering {
            let mut close = client_frame(8, &1000_u16.to_be_bytes());
            self.shard.receive(id, &mut close, self.now, &mut self.wire);
        }
        let gone = std::mem::take(&mut self.wire.gone);
        for (id, how) in gone {
            let Some(index) = self.clients.iter().position(|client| client.id == id) else {
                continue;
            };
            let client = self.clients.swap_remove(index);
            if how == "finished" {
                let (opcode, payload) = client.frames.last().unwrap();
                assert_eq!(*opcode, 8);
                assert_eq!(payload[..2], 1008_u16.to_be_bytes());
            }
            self.closed_slow += 1;
            self.shard.lost(id);
        }
    }

    fn step(&mut self) {
        let elapsed = self.rng.random_range(0..100);
        self.pass(elapsed);
        if self.clients.is_empty() || (self.clients.len() < 12 && self.rng.random_bool(0.1)) {
            self.connect();
        }
        let client = self.rng.random_range(0..self.clients.len());
        match self.rng.random_range(0..20) {
            0..9 if self.is_catching_up(client) => self.publish(),
            0..6 => self.subscribe(client),
            6..8 => self.unsubscribe(client),
            8 => self.replay(client),
            9 => {
                let ms = self.rng.random_range(0..200);
                self.send(client, &format!(r#"{{"type":"batch","ms":{ms}}}"#));
            }
            10 if self.rng.random_bool(0.2) => {
                let id = self.clients.swap_remove(client).id;
                self.shard.lost(id);
            }
            11 if self.rng.random_bool(0.1) => {
                let id = self.clients[client].id;
                self.wire.broken.insert((id.index, id.generation));
            }
            12 if !self.clients[client].patterns.is_empty() => self.resume(client),
            _ => self.publish(),
        }
        let generous = self.rng.random_bool(0.3);
        self.drain(generous);
        self.check();
        self.reap();
    }

    /// Every client reads everything: those that are not closed have it all.
    fn settle(&mut self) {
        self.wire.broken.clear();
        self.pass(u64::from(BATCH_MS_MAX));
        self.flush();
        assert_eq!(self.shard.next_due_ms(), None);
        self.drain(true);
        self.check();
        self.reap();
        for client in &self.clients {
            assert_eq!(client.seen, client.expected);
        }
    }
}

#[test]
fn many_clients_see_what_the_model_says() {
    let (mut slow, mut delivered, mut compressed) = (0, 0, 0);
    let (mut resumed, mut missed) = (0, 0);
    let (mut slow_closed, mut postponed, mut dropped) = (0, 0, 0);
    for seed in 0..150 {
        let result = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..250 {
                world.step();
            }
            world.settle();
            let compressed: usize = world.clients.iter().map(|client| client.compressed).sum();
            (world.closed_slow, world.shard.stats(), compressed, world.resumed)
        });
        let (closed, stats, inflated, back) =
            result.unwrap_or_else(|_| panic!("the simulation failed, seed {seed}"));
        slow += closed;
        compressed += inflated;
        resumed += back;
        missed += stats.resumed_messages;
        slow_closed += stats.slow_closed;
        postponed += stats.postponed;
        dropped += stats.dropped;
        delivered += stats.deliveries;
    }
    // A simulation in which nothing happens proves nothing.
    let counts = format!("{slow} {delivered} {compressed} {postponed} {dropped}");
    assert!(slow > 10 && delivered > 10_000 && compressed > 1_000, "{counts}");
    // Whoever is closed as slow had three; the others came after all.
    let came = postponed.saturating_sub(3 * slow_closed);
    assert!(came > 50 && dropped > 100, "{counts} {slow_closed}");
    assert!(resumed > 500 && missed > 5_000, "{resumed} {missed}");
}
