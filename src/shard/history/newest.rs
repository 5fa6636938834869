//! The newest event of each channel, for `snapshot`, and whether it is known to be the newest.
//!
//! After a loss each event held is doubtful: a newer one of its channel may be among what is lost.
//! It is known again when its channel is updated, or when the source has read it again. A table is
//! whole when the source has given the newest event of every channel, and none was forgotten since.
//!
//! Bounds: [`NEWEST_CHANNELS_MAX`] channels and [`NEWEST_BYTES_MAX`] bytes, of which the least
//! recently updated is forgotten first. An event that is not the newest of its channel any more is
//! not held here.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;

use super::logged::LoggedEvent;
use crate::channel::Pattern;
use crate::heap::allocation_bytes;
use crate::shard::limits::{NEWEST_BYTES_MAX, NEWEST_CHANNELS_MAX};
use crate::shard::scan_budget::ScanBudget;

/// Updates that may be out of date, beside as many as there are channels, before they are swept.
const STALE_UPDATES_MAX: usize = 1_024;

/// The newest event of a channel.
#[derive(Debug)]
struct Newest {
    event: Rc<LoggedEvent>,
    /// The number of the update that brought it.
    update: u64,
}

/// A channel that was updated. It names no event, so that it keeps none alive.
#[derive(Debug)]
struct Update {
    number: u64,
    channel: Arc<str>,
}

/// The newest event of each channel, for `snapshot`.
#[derive(Debug, Default)]
pub(super) struct NewestEvents {
    by_channel: BTreeMap<Arc<str>, Newest>,
    /// Updates in order; one is stale if its channel has been updated since.
    updates: VecDeque<Update>,
    updated: u64,
    bytes: usize,
    /// Events that came by this update, or before, are doubtful.
    doubtful_to: u64,
    /// The source has given all since the last doubt.
    is_given: bool,
    /// Some channel was forgotten for a bound.
    is_cut: bool,
}

impl NewestEvents {
    /// Makes `event` the newest of its channel.
    pub(super) fn update(&mut self, event: &Rc<LoggedEvent>) {
        self.updated += 1;
        self.bytes += event.event().memory_bytes();
        let newest = Newest { event: Rc::clone(event), update: self.updated };
        match self.by_channel.get_mut(&**event.channel()) {
            Some(before) => {
                let before = std::mem::replace(before, newest);
                self.bytes -= before.event.event().memory_bytes();
            }
            None => {
                self.by_channel.insert(Arc::clone(event.channel()), newest);
            }
        }
        let channel = Arc::clone(event.channel());
        self.updates.push_back(Update { number: self.updated, channel });
        while self.by_channel.len() > NEWEST_CHANNELS_MAX || self.bytes > NEWEST_BYTES_MAX {
            self.forget_oldest();
        }
        if self.updates.len() > 2 * self.by_channel.len() + STALE_UPDATES_MAX {
            let by_channel = &self.by_channel;
            self.updates.retain(|update| is_newest(by_channel, update));
        }
    }

    /// Takes in the newest event of a channel that the source has read again.
    pub(super) fn confirm(&mut self, event: &Rc<LoggedEvent>) {
        match self.by_channel.get(&**event.channel()).map(|known| Rc::clone(&known.event)) {
            Some(known) if known.pos() == event.pos() => self.update(&known),
            // What is known was removed from the stream: whether a newer one was is not known.
            Some(known) if known.pos() > event.pos() => {}
            Some(_) | None => self.update(event),
        }
    }

    /// Messages may be lost: of no event is it known any more that it is the newest.
    pub(super) fn doubt(&mut self) {
        self.doubtful_to = self.updated;
        self.is_given = false;
    }

    /// The source has given the newest event of every channel since the last doubt.
    pub(super) fn set_given(&mut self) {
        self.is_given = true;
    }

    /// Calls `each` with the newest events of the channels that `pattern` matches, in order of
    /// channel name; whether they are known to be the newest, and all. Cost: the channels that share
    /// the pattern's literal prefix, each of which takes one step of `budget`, as `each` may; when
    /// it is used up the walk ends.
    pub(super) fn for_each_match(
        &self,
        pattern: &Pattern,
        budget: &mut ScanBudget,
        mut each: impl FnMut(&Rc<LoggedEvent>, &mut ScanBudget),
    ) -> bool {
        let is_whole = self.is_given && !self.is_cut;
        if !pattern.is_wildcard() {
            if !budget.take() {
                return false;
            }
            return match self.by_channel.get(pattern.as_str()) {
                None => is_whole,
                Some(newest) => {
                    each(&newest.event, budget);
                    !self.is_doubtful(newest)
                }
            };
        }
        let prefix = pattern.literal_prefix();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let mut is_known = is_whole;
        for (channel, newest) in self.by_channel.range::<str, _>(from) {
            if !channel.starts_with(prefix) {
                break;
            }
            if !budget.take() {
                return false;
            }
            if pattern.matches(channel) {
                each(&newest.event, budget);
                is_known &= !self.is_doubtful(newest);
            }
        }
        is_known
    }

    fn is_doubtful(&self, newest: &Newest) -> bool {
        newest.update <= self.doubtful_to
    }

    /// Heap of the table itself; the events are counted elsewhere. A B-tree's nodes have 11 places
    /// for a name, a reference and a number, 32 bytes in all, and are two thirds full.
    pub(super) fn memory_bytes(&self) -> usize {
        const ENTRY_BYTES: usize = 32 * 3 / 2 + 2;
        let updates = allocation_bytes(self.updates.capacity() * size_of::<Update>());
        self.by_channel.len() * ENTRY_BYTES + updates
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.updates.pop_front() else { return };
        if is_newest(&self.by_channel, &oldest)
            && let Some(forgotten) = self.by_channel.remove(&oldest.channel)
        {
            self.bytes -= forgotten.event.event().memory_bytes();
            self.is_cut = true;
        }
    }
}

fn is_newest(by_channel: &BTreeMap<Arc<str>, Newest>, update: &Update) -> bool {
    by_channel.get(&update.channel).is_some_and(|newest| newest.update == update.number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::history::logged::tests::logged;

    #[test]
    fn newest_events_are_found_by_name_and_pattern() {
        let mut newest = NewestEvents::default();
        let names = ["t.A.x", "t.A.y", "t.B.x", "t.AB.x", "u.A.x"];
        for pos in 1..=50 {
            newest.update(&logged(names[pos as usize % 5], pos));
        }
        let scan = |text: &str, steps: usize| {
            let pattern = Pattern::parse(text, 256).unwrap();
            let (mut found, mut budget) = (Vec::new(), ScanBudget::new(steps));
            newest.for_each_match(&pattern, &mut budget, |event, _| found.push(event.pos()));
            (found, budget.is_exceeded())
        };
        let found = |text: &str| scan(text, 100).0;
        assert_eq!(found("t.A.x"), [50]);
        assert_eq!(found("t.A.>"), [50, 46]);
        assert_eq!(found("t.*.x"), [50, 48, 47]);
        assert_eq!(found("nothing"), [0; 0]);
        assert_eq!(found(">").len(), 5);
        assert_eq!(scan(">", 5), (vec![50, 46, 48, 47, 49], false));
        assert_eq!(scan(">", 2), (vec![50, 46], true));
        assert_eq!(scan("t.A.x", 0), (vec![], true));
    }

    fn is_known(newest: &NewestEvents, text: &str) -> bool {
        let pattern = Pattern::parse(text, 256).unwrap();
        newest.for_each_match(&pattern, &mut ScanBudget::new(100), |_, _| {})
    }

    #[test]
    fn what_is_held_is_known_to_be_the_newest_until_messages_may_be_lost() {
        let mut newest = NewestEvents::default();
        for (pos, name) in (1..).zip(["t.A.x", "t.B.x", "t.C.x"]) {
            newest.update(&logged(name, pos));
        }
        let known = |newest: &NewestEvents, of: &[&str]| -> Vec<bool> {
            of.iter().map(|text| is_known(newest, text)).collect()
        };
        let of = ["t.A.x", "t.D.x", "t.*.x"];
        assert_eq!(known(&newest, &of), [true, false, false], "there may be more");
        newest.set_given();
        assert_eq!(known(&newest, &of), [true, true, true]);
        newest.doubt();
        newest.update(&logged("t.A.x", 9));
        assert_eq!(known(&newest, &of), [true, false, false]);
        newest.confirm(&logged("t.A.x", 4));
        newest.confirm(&logged("t.B.x", 2));
        newest.set_given();
        assert_eq!(
            known(&newest, &["t.B.x", "t.C.x", "t.*.x", "t.D.x"]),
            [true, false, false, true]
        );
        newest.confirm(&logged("t.C.x", 7));
        assert_eq!(known(&newest, &["t.C.x", "t.*.x"]), [true, true]);
        let found = |newest: &NewestEvents| {
            let mut found = Vec::new();
            let all = Pattern::parse(">", 256).unwrap();
            newest.for_each_match(&all, &mut ScanBudget::new(9), |it, _| found.push(it.pos()));
            found
        };
        assert_eq!(found(&newest), [9, 2, 7]);
        while !newest.is_cut {
            newest.forget_oldest();
        }
        assert_eq!(known(&newest, &["t.C.x", "t.*.x"]), [true, false], "some were forgotten");
    }

    #[test]
    fn the_least_recently_updated_channel_is_forgotten_first() {
        let mut newest = NewestEvents::default();
        for pos in 0..=NEWEST_CHANNELS_MAX as u64 {
            newest.update(&logged(&format!("c{pos}"), pos + 1));
            newest.update(&logged("often", pos + 1));
        }
        assert_eq!(newest.by_channel.len(), NEWEST_CHANNELS_MAX);
        assert!(newest.updates.len() <= 2 * NEWEST_CHANNELS_MAX + STALE_UPDATES_MAX);
        let has = |name: &str| newest.by_channel.contains_key(name);
        assert!(has("often") && !has("c0") && !has("c1") && has("c2"));
        let bytes: usize =
            newest.by_channel.values().map(|it| it.event.event().memory_bytes()).sum();
        assert_eq!(newest.bytes, bytes);
    }

    #[test]
    fn an_event_that_is_not_the_newest_any_more_is_not_held() {
        let mut newest = NewestEvents::default();
        let events: Vec<Rc<LoggedEvent>> = (1..=3_000).map(|pos| logged("t.A.x", pos)).collect();
        for event in &events {
            newest.update(event);
        }
        let held = events.iter().filter(|event| Rc::strong_count(event) > 1).count();
        assert_eq!(held, 1);
    }
}
