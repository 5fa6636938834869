//! A client that follows the rules of docs/protocol.md, and what it was promised.
//!
//! It keeps a position as the rules say, and remembers for each subscription from where on every
//! message was promised. [`super::invariants`] says what is checked at each step.

use serde_json::Value;

use super::driver::epoch;
use super::stream::{Set, Stream, one};
use crate::shard::ConnId;

/// What clients subscribe to, with the channels that it matches.
pub(super) const PATTERNS: [(&str, u8); 6] = [
    ("t.A.x", 0b001),
    ("t.B.x", 0b010),
    ("t.C.y", 0b100),
    ("t.*.x", 0b011),
    ("t.>", 0b111),
    ("t.B.>", 0b010),
];

/// The life of a stream and a position in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    pub life: i128,
    pub pos: u64,
    pub ts: u64,
}

/// From where on messages were promised.
#[derive(Debug, Clone, Copy)]
pub(super) struct Promise {
    /// After this position.
    pub after: Option<At>,
    /// What had been published up to it, if it was resumed.
    pub passed: Option<Set>,
    /// But for these, which the stream had removed before.
    pub gone: Set,
    /// What was published from this number on.
    pub published_from: usize,
}

/// What a snapshot brings.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    /// Events that are still to come.
    pub left: usize,
    /// The answer's position; 0 if there is none.
    pub to: u64,
    /// The newest message of each channel that it has to bring, or a newer one.
    pub wanted: Vec<(usize, u64)>,
    /// What it brought.
    pub brought: Vec<(usize, u64)>,
}

/// A connected client.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub instance: usize,
    pub id: ConnId,
    pub bytes: Vec<u8>,
    /// Its subscriptions, by their numbers in [`PATTERNS`]; those that were answered have a promise.
    pub subscriptions: Vec<(usize, Option<Promise>)>,
    /// The resume that was asked for and not answered yet.
    pub resumes_from: Option<At>,
    pub life: Option<i128>,
    pub is_live: bool,
    /// The newest position that came live or was resumed, since the last `resync`.
    pub newest: u64,
    pub snapshot: Snapshot,
    pub is_snapshot_complete: bool,
}

/// A client, connected or not.
#[derive(Debug, Clone, Default)]
pub(super) struct Client {
    pub link: Option<Link>,
    /// Where it stands.
    pub position: Option<At>,
    /// What it was subscribed to when it lost its connection.
    pub wants: Vec<usize>,
    /// What it has received since it loaded.
    pub received: Set,
}

impl Link {
    pub(super) fn new(instance: usize, id: ConnId) -> Self {
        Self {
            instance,
            id,
            bytes: Vec::new(),
            subscriptions: Vec::new(),
            resumes_from: None,
            life: None,
            is_live: true,
            newest: 0,
            snapshot: Snapshot::default(),
            is_snapshot_complete: false,
        }
    }

    /// Whether a message was promised.
    pub(super) fn is_promised(&self, stream: &Stream, number: usize) -> bool {
        let message = &stream.all[number];
        self.subscriptions.iter().any(|(pattern, promise)| {
            let Some(promise) = promise else { return false };
            let is_after = promise.after.is_some_and(|after| {
                // On another branch an older position may follow, too.
                let is_passed = promise.passed.is_none_or(|it| it & one(number) != 0);
                let is_behind = stream.branch & one(number) != 0 && !is_passed;
                message.life > after.life
                    || message.life == after.life && (message.seq > after.pos || is_behind)
            });
            let is_after = is_after && promise.gone & one(number) == 0;
            matches(*pattern, message.channel) && (is_after || number >= promise.published_from)
        })
    }

    /// It was told that something is missing, and has loaded anew.
    pub(super) fn told(&mut self, stream: &Stream) {
        for (_, promise) in &mut self.subscriptions {
            let told =
                Promise { after: None, passed: None, gone: 0, published_from: stream.all.len() };
            *promise = promise.map(|_| told);
        }
        self.newest = 0;
    }

    /// The messages that came.
    pub(super) fn take_messages(&mut self) -> Vec<Value> {
        let mut rest = &self.bytes[..];
        if rest.starts_with(b"HTTP") {
            let Some(end) = rest.windows(4).position(|it| it == b"\r\n\r\n") else {
                return Vec::new();
            };
            rest = &rest[end + 4..];
        }
        let mut messages = Vec::new();
        loop {
            let (header, length) = match rest {
                [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
                [_, length, ..] if *length < 126 => (2, usize::from(*length)),
                _ => break,
            };
            let payload = &rest[header..header + length];
            assert_eq!(rest[0], 0x81, "{}", String::from_utf8_lossy(payload));
            messages.push(serde_json::from_slice(payload).unwrap());
            rest = &rest[header + length..];
        }
        self.bytes = rest.to_vec();
        messages
    }
}

/// Whether a subscription takes a channel.
pub(super) fn matches(pattern: usize, channel: usize) -> bool {
    PATTERNS[pattern].1 & (1 << channel) != 0
}

/// The life that an epoch names.
pub(super) fn life(value: &Value) -> Option<i128> {
    let life: i128 = value.as_str()?.strip_prefix("S-")?.parse().unwrap();
    assert_eq!(value.as_str(), Some(&*epoch(life)));
    Some(life)
}

/// A position as a message names it.
pub(super) fn position(value: &Value) -> Option<At> {
    let life = life(&value["epoch"])?;
    Some(At { life, pos: value["pos"].as_u64()?, ts: value["ts"].as_u64()? })
}

impl Client {
    /// Forgets what it had, and loads anew.
    pub(super) fn begin(&mut self) {
        self.position = None;
        self.received = 0;
    }
}
