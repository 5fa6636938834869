//! The recent log of a shard: the one order of everything that it delivers, and what a client that
//! comes back is given of it.
//!
//! Bounds: messages, bytes and age (`WS_LOG_*`). Each entry names the one before it on its channel,
//! so that what a client missed is found without reading what it did not subscribe to.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;

use super::logged::LoggedEvent;
use crate::channel::Pattern;
use crate::heap::allocation_bytes;
use crate::position::{Base, Position, StreamPos};
use crate::shard::limits::{FORGOTTEN_PER_CALL_MAX, Limits};
use crate::shard::scan_budget::ScanBudget;

#[derive(Debug)]
struct Entry {
    event: Rc<LoggedEvent>,
    arrived_ms: u64,
    /// The number of the entry before it on its channel; 0 if there was none.
    before: u64,
}

/// Where a position of a client stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// There, and everything after it is held: the number of the first entry after it.
    Before(u64),
    /// After everything that has arrived.
    Ahead,
    /// Before everything that is held.
    TooOld,
    /// Messages after it may be missing, and clients may not have been told.
    NotProvable,
    /// The log has another message there, or none.
    Other,
}

/// Everything that arrived lately, in order. Entries are numbered from 1 and keep their numbers.
#[derive(Debug, Default)]
pub(super) struct RecentLog {
    entries: VecDeque<Entry>,
    /// Entries that were forgotten.
    forgotten: u64,
    /// The number of the newest entry of each channel that has one.
    channels: BTreeMap<Arc<str>, u64>,
    bytes: usize,
    newest: Position,
    /// The position after which nothing is missing; `None` if it is not known.
    base: Option<Position>,
    /// After this position nothing is missing between two entries; before it something may be.
    whole_from: StreamPos,
}

impl RecentLog {
    /// An empty log that goes on after this one, of whose first entries as much is known.
    pub(super) fn after_loss(&self, base: Base) -> Self {
        // What was lost does not follow: the newest position lies behind it, of unknown time.
        let lost_to = Position { pos: StreamPos(base.whole_from.0.saturating_sub(1)), ts_ms: 0 };
        let newest = if lost_to.pos > self.newest.pos { lost_to } else { self.newest };
        let newest = base.after.unwrap_or(newest);
        Self { newest, ..Self::new(base) }
    }

    /// An empty log, of whose first entries as much is known.
    pub(super) fn new(base: Base) -> Self {
        let Base { after, whole_from } = base;
        Self { base: after, newest: after.unwrap_or_default(), whole_from, ..Self::default() }
    }

    /// Appends `event` and forgets what is over a bound.
    pub(super) fn push(&mut self, event: &Rc<LoggedEvent>, now_ms: u64, limits: &Limits) {
        self.bytes += event.event().memory_bytes();
        self.newest = event.event().position();
        let number = self.forgotten + self.entries.len() as u64 + 1;
        let channel = event.channel();
        let before = match self.channels.get_mut(channel) {
            Some(newest) => std::mem::replace(newest, number),
            None => self.channels.insert(Arc::clone(channel), number).unwrap_or_default(),
        };
        self.entries.push_back(Entry { event: Rc::clone(event), arrived_ms: now_ms, before });
        while self.entries.len() > limits.log_messages || self.bytes > limits.log_bytes {
            self.forget_oldest();
        }
        self.expire(now_ms, limits);
    }

    /// Forgets what is too old, [`FORGOTTEN_PER_CALL_MAX`] events at most.
    pub(super) fn expire(&mut self, now_ms: u64, limits: &Limits) {
        for _ in 0..FORGOTTEN_PER_CALL_MAX {
            let Some(oldest) = self.entries.front() else { return };
            if now_ms.saturating_sub(oldest.arrived_ms) <= limits.log_ms {
                return;
            }
            self.forget_oldest();
        }
    }

    /// The newest position seen in this epoch, also after its event was forgotten.
    pub(super) fn newest(&self) -> Position {
        self.newest
    }

    /// Where `position` stands. Its store time has to agree, or it is the position of another
    /// message, given out again by a broker that had lost the first.
    pub(super) fn place_of(&self, position: Position) -> Place {
        // The message before the first of a whole run names the run as well.
        if let Some(base) = self.base
            && position.pos == base.pos
            && position.pos.0 + 1 >= self.whole_from.0
        {
            let is_same = position.ts_ms == base.ts_ms;
            return if is_same { Place::Before(self.forgotten + 1) } else { Place::Other };
        }
        if position.pos > self.newest.pos {
            let is_ahead = position.pos >= self.whole_from;
            return if is_ahead { Place::Ahead } else { Place::NotProvable };
        }
        let is_whole = position.pos >= self.whole_from;
        match self.entries.binary_search_by_key(&position.pos.0, |entry| entry.event.pos()) {
            Ok(index) if self.entries[index].event.event().position() != position => Place::Other,
            _ if !is_whole => Place::NotProvable,
            Ok(index) => Place::Before(self.forgotten + index as u64 + 2),
            Err(0) if self.base.is_none_or(|base| position.pos < base.pos) => Place::TooOld,
            Err(_) => Place::Other,
        }
    }

    /// Whether an event of this position is among what was forgotten.
    pub(super) fn has_forgotten(&self, pos: u64) -> bool {
        self.base.is_some_and(|base| pos <= base.pos.0)
    }

    /// Calls `each` with the events from entry `first` on that `pattern` matches, in no order,
    /// until it returns false. Cost: for a channel its events; for a wildcard also either the
    /// channels that share its literal prefix or all events from `first` on, whichever are fewer.
    /// Each takes one step of `budget`; when that is used up the walk ends.
    pub(super) fn for_each_from(
        &self,
        first: u64,
        pattern: &Pattern,
        budget: &mut ScanBudget,
        mut each: impl FnMut(&Rc<LoggedEvent>) -> bool,
    ) {
        if !pattern.is_wildcard() {
            if let Some(&newest) = self.channels.get(pattern.as_str()) {
                self.for_each_of_channel(first, newest, budget, &mut each);
            }
            return;
        }
        let skipped = first.saturating_sub(self.forgotten + 1) as usize;
        if self.entries.len().saturating_sub(skipped) <= self.channels.len() {
            for entry in self.entries.iter().skip(skipped) {
                let is_match = pattern.matches(entry.event.channel());
                if !budget.take() || (is_match && !each(&entry.event)) {
                    return;
                }
            }
            return;
        }
        let prefix = pattern.literal_prefix();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        for (channel, &newest) in self.channels.range::<str, _>(from) {
            if !channel.starts_with(prefix) || !budget.take() {
                return;
            }
            if newest >= first
                && pattern.matches(channel)
                && !self.for_each_of_channel(first, newest, budget, &mut each)
            {
                return;
            }
        }
    }

    /// The events of a channel, newest first; false if `each` wanted no more.
    fn for_each_of_channel(
        &self,
        first: u64,
        newest: u64,
        budget: &mut ScanBudget,
        each: &mut impl FnMut(&Rc<LoggedEvent>) -> bool,
    ) -> bool {
        let mut number = newest;
        while number >= first && number > self.forgotten {
            let entry = &self.entries[(number - self.forgotten - 1) as usize];
            if !budget.take() || !each(&entry.event) {
                return false;
            }
            number = entry.before;
        }
        true
    }

    /// Heap of the log itself; the events are counted elsewhere. A B-tree's nodes have 11 places
    /// for a name and a number, 24 bytes in all, and are two thirds full.
    pub(super) fn memory_bytes(&self) -> usize {
        const CHANNEL_BYTES: usize = 24 * 3 / 2 + 2;
        allocation_bytes(self.entries.capacity() * size_of::<Entry>())
            + self.channels.len() * CHANNEL_BYTES
    }

    /// Messages held.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes held.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.entries.pop_front() else { return };
        self.forgotten += 1;
        let event = oldest.event.event();
        self.bytes -= event.memory_bytes();
        self.base = Some(event.position());
        if self.channels.get(event.channel()) == Some(&self.forgotten) {
            self.channels.remove(event.channel());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::history::logged::tests::logged;
    use crate::shard::simulation::limits;

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

    fn positions(log: &RecentLog, first: u64, text: &str, steps: usize) -> (Vec<u64>, bool) {
        let (mut found, mut budget) = (Vec::new(), ScanBudget::new(steps));
        let pattern = Pattern::parse(text, 256).unwrap();
        log.for_each_from(first, &pattern, &mut budget, |event| {
            found.push(event.pos());
            true
        });
        found.sort_unstable();
        (found, budget.is_exceeded())
    }

    #[test]
    fn what_came_after_a_position_is_found_by_channel_and_pattern() {
        let limits = Limits { log_messages: 12, ..limits() };
        let mut log = RecentLog::default();
        for pos in 1..=20 {
            log.push(&logged(["t.A.x", "t.B.x", "u.A.x"][pos as usize % 3], pos * 10), 0, &limits);
        }
        // Held are 90 to 200, numbered 9 to 20.
        assert_eq!(log.base.unwrap().pos, StreamPos(80));
        let found = |first, text| positions(&log, first, text, 100).0;
        assert_eq!(found(9, "t.A.x"), [90, 120, 150, 180]);
        assert_eq!(found(14, "t.A.x"), [150, 180]);
        assert_eq!(found(19, "t.A.x"), [0; 0]);
        assert_eq!(found(14, "t.*.x"), [150, 160, 180, 190], "by channel");
        assert_eq!(found(19, "t.*.x"), [190], "by entry");
        assert_eq!(found(19, ">"), [190, 200]);
        assert_eq!(found(9, "v.>"), [0; 0]);
        assert!(positions(&log, 14, "t.*.x", 1).1, "by channel");
        assert!(positions(&log, 19, "t.*.x", 1).1, "by entry");
        log.expire(1_000_000, &limits);
        assert!(log.channels.is_empty() && log.entries.is_empty());
    }

    #[test]
    fn a_position_is_found_only_if_its_message_is_the_same() {
        let limits = Limits { log_messages: 3, ..limits() };
        let after = Some(Position { pos: StreamPos(5), ts_ms: 5 });
        let mut log = RecentLog::new(Base { after, ..Base::default() });
        let place =
            |log: &RecentLog, pos, ts_ms| log.place_of(Position { pos: StreamPos(pos), ts_ms });
        assert_eq!(place(&log, 5, 5), Place::Before(1));
        assert_eq!(place(&log, 5, 6), Place::Other);
        assert_eq!(place(&log, 4, 4), Place::TooOld);
        assert_eq!(place(&log, 6, 6), Place::Ahead);
        for pos in [10, 20, 30, 40, 50] {
            log.push(&logged("a", pos), 0, &limits);
        }
        let cases = [
            (20, 20, Place::Before(3)),
            (20, 21, Place::Other),
            (30, 30, Place::Before(4)),
            (30, 31, Place::Other),
            (35, 35, Place::Other),
            (50, 50, Place::Before(6)),
            (51, 51, Place::Ahead),
            (19, 19, Place::TooOld),
            (10, 10, Place::TooOld),
        ];
        for (pos, ts_ms, expected) in cases {
            assert_eq!(place(&log, pos, ts_ms), expected, "{pos} {ts_ms}");
        }
        assert!(log.has_forgotten(20) && !log.has_forgotten(30));
        log.expire(1_000_000, &limits);
        assert_eq!(place(&log, 50, 50), Place::Before(6), "a quiet market");
        assert_eq!(place(&log, 40, 40), Place::TooOld);
        let unknown = RecentLog::default();
        assert_eq!(place(&unknown, 0, 0), Place::TooOld);
        let mut torn = RecentLog::new(Base { after: None, whole_from: StreamPos(20) });
        for pos in [10, 20, 30] {
            torn.push(&logged("a", pos), 0, &limits);
        }
        assert_eq!(place(&torn, 10, 10), Place::NotProvable);
        assert_eq!(place(&torn, 20, 20), Place::Before(3));
    }
}
