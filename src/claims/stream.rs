//! A JetStream stream and its consumers, as far as readers can tell them from real ones.
//!
//! It remembers everything that was ever published and acknowledged, so that the model knows what
//! is missing. A restore ends every consumer: nothing that a broker sends comes from two branches.
//! Bounds: [`MESSAGES_MAX`] messages in a history.

use std::collections::VecDeque;

use crate::ingest::StreamState;
use crate::position::Kept;

/// Messages of a history.
pub(super) const MESSAGES_MAX: usize = 120;

/// Channels that messages are published on; the last one is not served.
pub(super) const CHANNELS: [&str; 4] = ["t.A.x", "t.B.x", "t.C.y", "f.z"];

/// A set of messages, by their numbers.
pub(super) type Set = u128;

/// The set of one message.
pub(super) fn one(number: usize) -> Set {
    1 << number
}

/// The messages of a set, oldest first.
pub(super) fn each(mut set: Set) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (set != 0).then(|| {
            let number = set.trailing_zeros() as usize;
            set &= set - 1;
            number
        })
    })
}

/// A message that was published and acknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Published {
    /// When its stream was created.
    pub life: i128,
    pub seq: u64,
    pub stored_nanos: i128,
    pub channel: usize,
    /// No consumer can bring it.
    pub is_unreadable: bool,
    /// The messages that had the positions before it, removed ones too.
    pub before: Set,
}

impl Published {
    pub(super) fn stored_ms(&self) -> u64 {
        (self.stored_nanos / 1_000_000) as u64
    }
}

/// What a restore brings back.
#[derive(Debug, Clone, Copy)]
struct Backup {
    last: u64,
    last_stored_nanos: i128,
    branch: Set,
    retained: Set,
}

/// The stream.
#[derive(Debug)]
pub(super) struct Stream {
    /// Everything that was ever published, by its number.
    pub all: Vec<Published>,
    /// What was published in this life and not lost in a restore.
    pub branch: Set,
    /// What it holds.
    pub retained: Set,
    pub life: i128,
    pub last: u64,
    last_stored_nanos: i128,
    pub messages_max: u64,
    pub per_channel_max: u64,
    backup: Option<Backup>,
    /// What it had removed, and has again since a restore.
    pub brought_back: Set,
    now_ms: i128,
    /// How often its consumers were ended.
    pub broken: u64,
}

impl Stream {
    pub(super) fn new() -> Self {
        Self {
            all: Vec::new(),
            branch: 0,
            retained: 0,
            life: 1_000,
            last: 0,
            last_stored_nanos: -1,
            messages_max: 0,
            per_channel_max: 0,
            backup: None,
            brought_back: 0,
            now_ms: 1_700_000_000_000,
            broken: 0,
        }
    }

    /// What it says of itself.
    pub(super) fn state(&self) -> StreamState {
        let first = each(self.retained).map(|number| self.all[number].seq).min();
        let empty = if self.last == 0 { 0 } else { self.last + 1 };
        StreamState {
            created_nanos: self.life,
            first: first.unwrap_or(empty),
            last: self.last,
            last_stored_nanos: self.last_stored_nanos,
            kept: match self.per_channel_max {
                0 => Kept::All,
                count => Kept::PerChannel(count),
            },
        }
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now_ms += i128::from(ms);
    }

    /// Stores a message, and discards what is over a limit.
    pub(super) fn publish(&mut self, channel: usize, is_unreadable: bool) {
        if self.all.len() >= MESSAGES_MAX {
            return;
        }
        self.last += 1;
        self.now_ms += i128::from(self.last % 2);
        self.last_stored_nanos = self.now_ms * 1_000_000 + i128::from(self.last);
        let number = self.all.len();
        self.all.push(Published {
            life: self.life,
            seq: self.last,
            stored_nanos: self.last_stored_nanos,
            channel,
            is_unreadable,
            before: self.branch,
        });
        self.branch |= one(number);
        self.retained |= one(number);
        self.keep_to_limits();
    }

    pub(super) fn keep_to_limits(&mut self) {
        for channel in 0..CHANNELS.len() {
            self.purge(
                Some(channel),
                match self.per_channel_max {
                    0 => u64::MAX,
                    max => max,
                },
            );
        }
        if self.messages_max > 0 {
            self.purge(None, self.messages_max);
        }
    }

    /// Removes all but the newest `keep` messages of a channel, or of all.
    pub(super) fn purge(&mut self, channel: Option<usize>, keep: u64) {
        let of = |number: &usize| channel.is_none_or(|it| self.all[*number].channel == it);
        let held: Vec<usize> = each(self.retained).filter(of).collect();
        let excess = (held.len() as u64).saturating_sub(keep) as usize;
        for number in &held[..excess] {
            self.retained &= !one(*number);
        }
    }

    /// Removes the messages before a position.
    pub(super) fn purge_to(&mut self, seq: u64) {
        for number in each(self.retained).filter(|number| self.all[*number].seq < seq) {
            self.retained &= !one(number);
        }
    }

    /// Removes one of the messages that it holds, counted from the newest.
    pub(super) fn delete(&mut self, from_newest: usize) {
        let held: Vec<usize> = each(self.retained).collect();
        if !held.is_empty() {
            self.retained &= !one(held[held.len() - 1 - from_newest % held.len()]);
        }
    }

    pub(super) fn save(&mut self) {
        self.backup = Some(Backup {
            last: self.last,
            last_stored_nanos: self.last_stored_nanos,
            branch: self.branch,
            retained: self.retained,
        });
    }

    /// Goes back to what was saved, if anything was in this life.
    pub(super) fn restore(&mut self) {
        let Some(backup) = self.backup.filter(|backup| backup.last < self.last) else { return };
        self.last = backup.last;
        self.last_stored_nanos = backup.last_stored_nanos;
        self.branch = backup.branch;
        self.brought_back |= backup.retained & !self.retained;
        self.retained = backup.retained;
        self.break_consumers();
        self.keep_to_limits();
    }

    /// Loses its newest positions.
    pub(super) fn lose_tail(&mut self, count: u64) {
        self.last = self.last.saturating_sub(count);
        let all = &self.all;
        let is_left = |number: &usize| all[*number].seq <= self.last;
        self.branch = each(self.branch).filter(is_left).map(one).fold(0, |sum, it| sum | it);
        self.retained &= self.branch;
        let newest = each(self.branch).last();
        self.last_stored_nanos = newest.map_or(-1, |number| all[number].stored_nanos);
        if self.backup.is_some_and(|backup| backup.last > self.last) {
            self.backup = None;
        }
        self.break_consumers();
    }

    /// Is deleted, and made again.
    pub(super) fn recreate(&mut self) {
        self.life += 1_000;
        (self.last, self.last_stored_nanos) = (0, -1);
        (self.branch, self.retained, self.backup) = (0, 0, None);
        self.break_consumers();
    }

    fn break_consumers(&mut self) {
        self.broken += 1;
        // Its clocks go on meanwhile: no store time is given out twice.
        self.now_ms += 2;
    }

    /// The message that it holds at a position.
    pub(super) fn at(&self, seq: u64) -> Option<usize> {
        each(self.retained).find(|number| self.all[*number].seq == seq)
    }

    /// The message that follows a position.
    pub(super) fn next(&self, from: u64) -> Option<usize> {
        let held = each(self.retained).filter(|number| self.all[*number].seq >= from);
        held.min_by_key(|number| self.all[*number].seq)
    }

    /// How many messages it holds from a position on.
    pub(super) fn pending(&self, from: u64) -> u64 {
        each(self.retained).filter(|number| self.all[*number].seq >= from).count() as u64
    }

    /// The newest message of each served channel that it holds.
    pub(super) fn newest(&self) -> VecDeque<usize> {
        let of = |channel| each(self.retained).filter(move |it| self.all[*it].channel == channel);
        (0..CHANNELS.len() - 1).filter_map(|channel| of(channel).last()).collect()
    }

    /// The message that a client names.
    pub(super) fn find(&self, life: i128, pos: u64, ts_ms: u64) -> Option<usize> {
        self.all.iter().rposition(|it| (it.life, it.seq, it.stored_ms()) == (life, pos, ts_ms))
    }
}

/// What a consumer has sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub number: usize,
    pub consumer: u64,
    /// How many messages it had still to send then.
    pub pending: u64,
}

/// A consumer of the whole stream.
#[derive(Debug, Clone)]
pub(super) struct Consumer {
    next: u64,
    /// Its own sequence of the last message that it sent.
    pub sent: u64,
    pub flight: VecDeque<Sent>,
    broken: u64,
}

impl Consumer {
    /// One that has sent `sent` messages before, and goes on from a position.
    pub(super) fn new(stream: &Stream, start: u64, sent: u64) -> Self {
        let next = start.min(stream.last + 1);
        Self { next, sent, flight: VecDeque::new(), broken: stream.broken }
    }

    pub(super) fn is_gone(&self, stream: &Stream) -> bool {
        self.broken != stream.broken
    }

    pub(super) fn pending(&self, stream: &Stream) -> u64 {
        stream.pending(self.next)
    }

    /// Sends the next message, if there is one.
    pub(super) fn send(&mut self, stream: &Stream) -> bool {
        let next = if self.is_gone(stream) { None } else { stream.next(self.next) };
        let Some(number) = next else { return false };
        self.next = stream.all[number].seq + 1;
        self.sent += 1;
        let pending = self.pending(stream);
        self.flight.push_back(Sent { number, consumer: self.sent, pending });
        true
    }

    /// Sends the next message to somebody else.
    pub(super) fn send_elsewhere(&mut self, stream: &Stream) {
        if self.send(stream) {
            self.flight.pop_back();
        }
    }
}
