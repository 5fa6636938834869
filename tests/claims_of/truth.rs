//! Every message that a test published and the broker acknowledged, in order, also those that were
//! removed later.
//!
//! A payload is `{"n":number}`, and the numbers begin with 1: they say which message an event is,
//! even if the broker gave its position out twice.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

/// A message that the broker acknowledged.
#[derive(Debug, Clone)]
pub struct Message {
    pub channel: String,
    /// Its stream sequence. Without a stream: the position of the event, once one was seen.
    pub pos: Option<u64>,
    /// When the broker stored it, in Unix milliseconds, if that is known.
    ts: Option<u64>,
    /// The moment before it was published.
    pub sent: Instant,
    /// When the broker lost it together with everything that it stored later.
    undone: Option<Instant>,
}

/// What was published, in order.
#[derive(Debug, Default)]
pub struct Truth {
    messages: Vec<Message>,
}

impl Truth {
    /// The number that the next message will have.
    pub fn next_number(&self) -> usize {
        self.messages.len() + 1
    }

    /// Takes in a message that is about to be published; its number.
    pub fn send(&mut self, channel: &str) -> usize {
        let sent = Instant::now();
        let channel = channel.to_owned();
        self.messages.push(Message { channel, pos: None, ts: None, sent, undone: None });
        self.messages.len()
    }

    /// Takes in the broker's acknowledgement.
    pub fn acknowledge(&mut self, number: usize, pos: u64) {
        self.messages[number - 1].pos = Some(pos);
    }

    /// Takes in when the broker stored a message.
    pub fn stored(&mut self, number: usize, ts: u64) {
        self.messages[number - 1].ts = Some(ts);
    }

    /// The broker lost everything after `pos`.
    pub fn undo_after(&mut self, pos: u64) {
        let now = Instant::now();
        for message in &mut self.messages {
            if message.pos.is_some_and(|it| it > pos) && message.undone.is_none() {
                message.undone = Some(now);
            }
        }
    }

    /// The newest position that the broker gave out and did not lose.
    pub fn last_pos(&self) -> u64 {
        let kept = self.messages.iter().filter(|message| message.undone.is_none());
        kept.filter_map(|message| message.pos).max().unwrap_or_default()
    }

    pub fn message(&self, number: usize) -> Option<&Message> {
        number.checked_sub(1).and_then(|index| self.messages.get(index))
    }

    /// Learns from an event what no acknowledgement says.
    pub fn learn(&mut self, event: &Value) {
        let Some(number) = number(event) else { return };
        if let Some(message) = self.messages.get_mut(number.wrapping_sub(1)) {
            message.ts = event["ts"].as_u64();
            message.pos = message.pos.or(event["pos"].as_u64());
        }
    }

    /// The numbers of the messages of these channels that count for an instance which was started
    /// at this moment: it cannot know of what had been undone by then.
    pub fn numbers(&self, channels: &[String], started: Instant) -> Vec<usize> {
        let counts = |message: &Message| {
            message.undone.is_none_or(|at| at > started)
                && channels.iter().any(|pattern| matches(pattern, &message.channel))
        };
        let numbered = self.messages.iter().zip(1..);
        numbered.filter(|(message, _)| counts(message)).map(|(_, number)| number).collect()
    }

    /// For each message, the position of the message before it on its channel: `None` if there is
    /// none, `Some(None)` if it has no position.
    pub fn before(&self, started: Instant) -> Vec<Option<Option<u64>>> {
        let mut newest: BTreeMap<&str, Option<u64>> = BTreeMap::new();
        let mut before = Vec::with_capacity(self.messages.len());
        for message in &self.messages {
            before.push(newest.get(message.channel.as_str()).copied());
            if message.undone.is_none_or(|at| at > started) {
                newest.insert(&message.channel, message.pos);
            }
        }
        before
    }

    /// How many messages had been published at this moment.
    pub fn numbers_before(&self, at: Instant) -> usize {
        self.messages.partition_point(|message| message.sent < at)
    }

    /// How many messages had been published up to a position.
    pub fn numbers_up_to(&self, pos: u64, ts: u64) -> usize {
        let numbered = || self.messages.iter().zip(1..);
        let there: Vec<_> = numbered().filter(|(message, _)| message.pos == Some(pos)).collect();
        match there[..] {
            [(_, number)] => number,
            // Of a message that the broker made by itself, or of none.
            [] => {
                let is_before = |message: &Message| message.pos.is_some_and(|it| it < pos);
                let before = numbered().filter(|(message, _)| is_before(message));
                before.map(|(_, number)| number).max().unwrap_or(0)
            }
            // A time that is not known is that of a message which aged away too soon.
            _ => {
                let find = |ts: Option<u64>| there.iter().find(|(message, _)| message.ts == ts);
                let found = find(Some(ts)).or_else(|| find(None));
                found.unwrap_or_else(|| panic!("no message has position {pos} and time {ts}")).1
            }
        }
    }
}

/// Which message an event is.
pub fn number(event: &Value) -> Option<usize> {
    event["data"]["n"].as_u64().and_then(|number| usize::try_from(number).ok())
}

/// Whether a pattern with NATS wildcards covers a channel.
pub fn matches(pattern: &str, channel: &str) -> bool {
    let mut tokens = channel.split('.');
    for wanted in pattern.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}
