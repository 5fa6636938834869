//! The last events of one connection, by `seq`: what a client may ask for again, and, for a connection that is not blocked, the queue of what is not sent yet.
//!
//! Bound: `capacity` references (at least [`FRAMES_PER_SEND`], which a send may need), 8 bytes
//! each, taken as events arrive; the payloads are shared.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::heap::allocation_bytes;
use crate::shard::history::LoggedEvent;
use crate::shard::limits::FRAMES_PER_SEND;

/// A contiguous run of events that ends with the newest numbered one.
#[derive(Debug, Default)]
pub(super) struct ReplayRing {
    events: VecDeque<Rc<LoggedEvent>>,
    last_seq: u64,
}

impl ReplayRing {
    /// Numbers `event` and keeps it, forgetting the oldest beyond `capacity`; returns its `seq`.
    #[inline]
    pub(super) fn push(&mut self, event: &Rc<LoggedEvent>, capacity: usize) -> u64 {
        let capacity = capacity.max(FRAMES_PER_SEND);
        while self.events.len() >= capacity {
            self.events.pop_front();
        }
        if self.events.len() == self.events.capacity() {
            let grown = (self.events.len() * 2).clamp(4, capacity);
            self.events.reserve_exact(grown - self.events.len());
        }
        self.events.push_back(Rc::clone(event));
        self.last_seq += 1;
        self.last_seq
    }

    /// The newest `seq` given out; 0 before the first.
    pub(super) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// The oldest `seq` held; 0 if nothing is.
    pub(super) fn first_seq(&self) -> u64 {
        if self.events.is_empty() { 0 } else { self.last_seq - self.events.len() as u64 + 1 }
    }

    /// The newest `count` events with their `seq`, oldest first.
    pub(super) fn newest(&self, count: usize) -> impl Iterator<Item = (u64, &Rc<LoggedEvent>)> {
        let count = count.min(self.events.len());
        let first = self.last_seq - count as u64 + 1;
        (first..).zip(self.events.range(self.events.len() - count..))
    }

    /// The events from `from_seq` to `to_seq`, or `None` if not all of them are held.
    pub(super) fn range(
        &self,
        from_seq: u64,
        to_seq: u64,
    ) -> Option<impl Iterator<Item = (u64, &Rc<LoggedEvent>)>> {
        let first = self.first_seq();
        if first == 0 || from_seq < first || to_seq > self.last_seq || from_seq > to_seq {
            return None;
        }
        let start = (from_seq - first) as usize;
        let end = (to_seq - first) as usize;
        Some((from_seq..).zip(self.events.range(start..=end)))
    }

    /// Heap that the references take.
    pub(super) fn memory_bytes(&self) -> usize {
        allocation_bytes(self.events.capacity() * size_of::<Rc<LoggedEvent>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::history::tests::logged;

    #[test]
    fn holds_the_newest_by_seq() {
        let mut ring = ReplayRing::default();
        assert_eq!((ring.first_seq(), ring.last_seq()), (0, 0));
        assert!(ring.range(0, 0).is_none());
        assert!(ring.range(1, 1).is_none());
        for pos in 1..=250 {
            assert_eq!(ring.push(&logged("a", pos * 10), 100), pos);
            assert!(ring.memory_bytes() <= 100 * 8 + 16, "{}", ring.memory_bytes());
        }
        assert_eq!((ring.first_seq(), ring.last_seq()), (151, 250));
        let found: Vec<_> =
            ring.range(151, 153).unwrap().map(|(seq, event)| (seq, event.pos())).collect();
        assert_eq!(found, [(151, 1510), (152, 1520), (153, 1530)]);
        for (from, to) in [(150, 160), (249, 251), (200, 199), (0, 0)] {
            assert!(ring.range(from, to).is_none(), "{from}..{to}");
        }
        let newest: Vec<_> = ring.newest(2).map(|(seq, event)| (seq, event.pos())).collect();
        assert_eq!(newest, [(249, 2490), (250, 2500)]);
    }
}
