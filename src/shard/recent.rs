//! The recent log of a shard and the newest event of each channel.
//!
//! The log is the one order of everything that this shard delivers. Bounds: messages, bytes and
//! age for the log (`WS_LOG_*`); [`NEWEST_CHANNELS_MAX`] channels and [`NEWEST_BYTES_MAX`] bytes
//! for the newest events, of which the least recently updated is forgotten first.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;

use super::limits::{Limits, NEWEST_BYTES_MAX, NEWEST_CHANNELS_MAX};
use crate::channel::Pattern;
use crate::event::{Event, Position, Tail};
use crate::heap::allocation_bytes;
use crate::protocol::extension::Deflate;

/// An event in this shard's hands: counted by the shard alone, without atomics.
#[derive(Debug)]
pub struct LoggedEvent {
    event: Arc<Event>,
    alive: Rc<Cell<usize>>,
}

impl LoggedEvent {
    /// Takes the shared event into the shard, which counts in `alive` how many it has.
    pub fn new(event: Arc<Event>, alive: &Rc<Cell<usize>>) -> Self {
        alive.set(alive.get() + 1);
        Self { event, alive: Rc::clone(alive) }
    }

    /// Heap of `count` of them, each behind its `Rc`; the payloads are shared between shards.
    pub fn memory_bytes(count: usize) -> usize {
        count * allocation_bytes(2 * size_of::<usize>() + size_of::<Self>())
    }

    /// The shared event.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// What a connection that agreed to `deflate` is sent of it.
    pub fn tail_for(&self, deflate: Option<Deflate>) -> Tail<'_> {
        self.event.tail_for(deflate)
    }

    /// The stream position as a number.
    pub fn pos(&self) -> u64 {
        self.event.position().pos.0
    }
}

impl Drop for LoggedEvent {
    fn drop(&mut self) {
        self.alive.set(self.alive.get() - 1);
    }
}

#[derive(Debug)]
struct Entry {
    event: Rc<LoggedEvent>,
    arrived_ms: u64,
}

/// Everything that arrived lately, in order.
#[derive(Debug, Default)]
pub struct RecentLog {
    entries: VecDeque<Entry>,
    bytes: usize,
    newest: Position,
}

impl RecentLog {
    /// Appends `event` and forgets what is over a bound.
    pub fn push(&mut self, event: &Rc<LoggedEvent>, now_ms: u64, limits: &Limits) {
        self.bytes += event.event().memory_bytes();
        self.newest = event.event().position();
        self.entries.push_back(Entry { event: Rc::clone(event), arrived_ms: now_ms });
        while self.entries.len() > limits.log_messages || self.bytes > limits.log_bytes {
            self.forget_oldest();
        }
        self.expire(now_ms, limits);
    }

    /// Forgets what is too old.
    pub fn expire(&mut self, now_ms: u64, limits: &Limits) {
        while self
            .entries
            .front()
            .is_some_and(|oldest| now_ms.saturating_sub(oldest.arrived_ms) > limits.log_ms)
        {
            self.forget_oldest();
        }
    }

    /// The newest position seen in this epoch, also after its event was forgotten.
    pub fn newest(&self) -> Position {
        self.newest
    }

    /// Heap of the log itself; the events are counted elsewhere.
    pub fn memory_bytes(&self) -> usize {
        allocation_bytes(self.entries.capacity() * size_of::<Entry>())
    }

    /// Messages held.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes held.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.entries.pop_front() {
            self.bytes -= oldest.event.event().memory_bytes();
        }
    }
}

/// How many newest events may still be looked at.
#[derive(Debug)]
pub struct Looks {
    left: usize,
    taken: usize,
    is_exceeded: bool,
}

impl Looks {
    /// So many, and no more.
    pub fn new(left: usize) -> Self {
        Self { left, taken: 0, is_exceeded: false }
    }

    /// Takes one; false if none is left.
    fn take(&mut self) -> bool {
        if self.left == 0 {
            self.is_exceeded = true;
            return false;
        }
        self.left -= 1;
        self.taken += 1;
        true
    }

    /// How many were taken.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Whether one was wanted and not to be had.
    pub fn is_exceeded(&self) -> bool {
        self.is_exceeded
    }
}

/// The newest event of each channel, for `snapshot`.
#[derive(Debug, Default)]
pub struct NewestEvents {
    by_channel: BTreeMap<Arc<str>, Rc<LoggedEvent>>,
    /// Updates in order; an entry is stale if its channel has been updated since.
    order: VecDeque<Rc<LoggedEvent>>,
    bytes: usize,
}

impl NewestEvents {
    /// Makes `event` the newest of its channel.
    pub fn update(&mut self, event: &Rc<LoggedEvent>) {
        self.bytes += event.event().memory_bytes();
        let channel = Arc::clone(event.event().channel());
        if let Some(before) = self.by_channel.insert(channel, Rc::clone(event)) {
            self.bytes -= before.event().memory_bytes();
        }
        self.order.push_back(Rc::clone(event));
        while self.by_channel.len() > NEWEST_CHANNELS_MAX || self.bytes > NEWEST_BYTES_MAX {
            self.forget_oldest();
        }
        if self.order.len() > 2 * self.by_channel.len() + 1_024 {
            let by_channel = &self.by_channel;
            self.order.retain(|event| is_newest(by_channel, event));
        }
    }

    /// Calls `each` with the newest events of the channels that `pattern` matches, in order of
    /// channel name. Cost: the channels that share the pattern's literal prefix, each of which
    /// takes one of `looks`; when these are used up it ends.
    pub fn for_each_match(
        &self,
        pattern: &Pattern,
        looks: &mut Looks,
        mut each: impl FnMut(&Rc<LoggedEvent>),
    ) {
        if !pattern.is_wildcard() {
            if looks.take()
                && let Some(event) = self.by_channel.get(pattern.as_str())
            {
                each(event);
            }
            return;
        }
        let prefix = pattern.literal_prefix();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        for (channel, event) in self.by_channel.range::<str, _>(from) {
            if !channel.starts_with(prefix) || !looks.take() {
                return;
            }
            if pattern.matches(channel) {
                each(event);
            }
        }
    }

    /// Heap of the table itself; the events are counted elsewhere. A B-tree's nodes have 11 places
    /// for a name and a reference, 24 bytes in all, and are two thirds full.
    pub fn memory_bytes(&self) -> usize {
        const ENTRY_BYTES: usize = 24 * 3 / 2 + 2;
        let order = allocation_bytes(self.order.capacity() * size_of::<Rc<LoggedEvent>>());
        self.by_channel.len() * ENTRY_BYTES + order
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.order.pop_front() else { return };
        if is_newest(&self.by_channel, &oldest) {
            self.by_channel.remove(oldest.event().channel());
            self.bytes -= oldest.event().memory_bytes();
        }
    }
}

fn is_newest(by_channel: &BTreeMap<Arc<str>, Rc<LoggedEvent>>, event: &Rc<LoggedEvent>) -> bool {
    by_channel.get(event.event().channel()).is_some_and(|newest| Rc::ptr_eq(newest, event))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::event::{Incoming, StreamPos};
    use crate::shard::simulation::limits;

    pub(crate) fn logged(channel: &str, pos: u64) -> Rc<LoggedEvent> {
        let position = Position { pos: StreamPos(pos), ts_ms: pos };
        let incoming = Incoming { subject: channel, payload: b"{}", position };
        let event = Arc::new(Event::new(&incoming, channel.into(), StreamPos(0)));
        Rc::new(LoggedEvent::new(event, &Rc::default()))
    }

    #[test]
    fn the_log_keeps_within_each_bound() {
        let size = logged("a", 1).event().memory_bytes();
        let cases = [
            (Limits { log_messages: 3, ..limits() }, 3),
            (Limits { log_bytes: 2 * size, ..limits() }, 2),
            (Limits { log_ms: 40, ..limits() }, 5),
        ];
        for (limits, expected) in cases {
            let mut log = RecentLog::default();
            for pos in 1..=9 {
                log.push(&logged("a", pos), pos * 10, &limits);
            }
            assert_eq!(log.len(), expected);
            assert_eq!(log.bytes(), expected * size);
            assert_eq!(log.newest().pos, StreamPos(9));
        }
    }

    #[test]
    fn a_quiet_log_expires_but_remembers_its_position() {
        let mut log = RecentLog::default();
        let limits = Limits { log_ms: 50, ..limits() };
        log.push(&logged("a", 7), 100, &limits);
        log.expire(1_000, &limits);
        assert_eq!((log.len(), log.bytes(), log.newest().pos), (0, 0, StreamPos(7)));
    }

    #[test]
    fn newest_events_are_found_by_name_and_pattern() {
        let mut newest = NewestEvents::default();
        let names = ["t.A.x", "t.A.y", "t.B.x", "t.AB.x", "u.A.x"];
        for pos in 1..=50 {
            newest.update(&logged(names[pos as usize % 5], pos));
        }
        let look = |text: &str, looks: usize| {
            let pattern = Pattern::parse(text, 256).unwrap();
            let (mut found, mut looks) = (Vec::new(), Looks::new(looks));
            newest.for_each_match(&pattern, &mut looks, |event| found.push(event.pos()));
            (found, looks.is_exceeded())
        };
        let found = |text: &str| look(text, 100).0;
        assert_eq!(found("t.A.x"), [50]);
        assert_eq!(found("t.A.>"), [50, 46]);
        assert_eq!(found("t.*.x"), [50, 48, 47]);
        assert_eq!(found("nothing"), [0; 0]);
        assert_eq!(found(">").len(), 5);
        assert_eq!(look(">", 5), (vec![50, 46, 48, 47, 49], false));
        assert_eq!(look(">", 2), (vec![50, 46], true));
        assert_eq!(look("t.A.x", 0), (vec![], true));
    }

    #[test]
    fn the_least_recently_updated_channel_is_forgotten_first() {
        let mut newest = NewestEvents::default();
        for pos in 0..=NEWEST_CHANNELS_MAX as u64 {
            newest.update(&logged(&format!("c{pos}"), pos + 1));
            newest.update(&logged("often", pos + 1));
        }
        assert_eq!(newest.by_channel.len(), NEWEST_CHANNELS_MAX);
        assert!(newest.order.len() <= 2 * NEWEST_CHANNELS_MAX + 1_024);
        let has = |name: &str| newest.by_channel.contains_key(name);
        assert!(has("often") && !has("c0") && !has("c1") && has("c2"));
        let bytes: usize = newest.by_channel.values().map(|e| e.event().memory_bytes()).sum();
        assert_eq!(newest.bytes, bytes);
    }
}
