//! The newest event of each channel, for `snapshot`.
//!
//! Bounds: [`NEWEST_CHANNELS_MAX`] channels and [`NEWEST_BYTES_MAX`] bytes, of which the least
//! recently updated is forgotten first.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;

use super::limits::{NEWEST_BYTES_MAX, NEWEST_CHANNELS_MAX};
use super::recent::LoggedEvent;
use crate::channel::Pattern;
use crate::heap::allocation_bytes;

/// How many events or channels may still be looked at.
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
    pub fn take(&mut self) -> bool {
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
mod tests {
    use super::*;
    use crate::shard::recent::tests::logged;

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
