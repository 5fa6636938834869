//! One timer wheel for all deadlines of a shard (Varghese and Lauck, 1987): inserting and firing
//! cost O(1), and activity costs nothing, because a deadline is looked up again when it fires.
//!
//! A connection has at least one entry; the owner puts it back with the deadline that holds then.
//! Resolution [`TICK_MS`]: all that is due within a second is done in one wake, at the end of that
//! second. A deadline is never early and at most a tick late, if the wheel is looked at when
//! [`until_tick_ms`] says. Bound: one entry per insert, 8 bytes; deadlines beyond the wheel's span
//! fire early and are put back.

use super::id::ConnId;
use crate::heap::allocation_bytes;

/// Milliseconds per slot.
pub(super) const TICK_MS: u64 = 1_000;

const SLOTS: usize = 128;

/// How long it is from `now_ms` to the next tick: from 1 to [`TICK_MS`] milliseconds.
///
/// The caller of [`TimerWheel::advance`] waits so long each time: it then looks at the wheel just
/// after each tick. Waits of a whole tick would begin anywhere between two and drift, and what is due
/// would wait for up to a tick more.
pub(crate) const fn until_tick_ms(now_ms: u64) -> u64 {
    TICK_MS - now_ms % TICK_MS
}

/// The wheel. Times are milliseconds of the monotonic clock.
#[derive(Debug)]
pub(super) struct TimerWheel {
    slots: Vec<Vec<ConnId>>,
    tick: u64,
}

impl TimerWheel {
    /// An empty wheel that starts at `now_ms`.
    pub(super) fn new(now_ms: u64) -> Self {
        Self { slots: vec![Vec::new(); SLOTS], tick: now_ms / TICK_MS }
    }

    /// Heap of the wheel.
    pub(super) fn memory_bytes(&self) -> usize {
        let entries = |slot: &Vec<ConnId>| allocation_bytes(slot.capacity() * size_of::<ConnId>());
        self.slots.iter().map(entries).sum()
    }

    /// Fires `id` at the first tick at or after `deadline_ms`, or earlier if that is further away
    /// than the wheel's span; returns when.
    pub(super) fn insert(&mut self, id: ConnId, deadline_ms: u64) -> u64 {
        let due = deadline_ms.div_ceil(TICK_MS).max(self.tick + 1);
        let due = due.min(self.tick + SLOTS as u64 - 1);
        self.slots[(due % SLOTS as u64) as usize].push(id);
        due * TICK_MS
    }

    /// Moves to `now_ms` and appends everything due to `fired`.
    pub(super) fn advance(&mut self, now_ms: u64, fired: &mut impl Extend<ConnId>) {
        let target = now_ms / TICK_MS;
        let steps = target.saturating_sub(self.tick).min(SLOTS as u64);
        for step in 1..=steps {
            let slot = &mut self.slots[((self.tick + step) % SLOTS as u64) as usize];
            fired.extend(slot.drain(..));
            slot.shrink_to(1_024);
        }
        self.tick = self.tick.max(target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32) -> ConnId {
        ConnId { index, generation: 0 }
    }

    #[test]
    fn fires_at_or_after_the_deadline_and_never_late_by_more_than_a_tick() {
        // Whenever it began, and however late it is woken.
        for (began_ms, late_ms) in [(10_000, 0), (10_001, 3), (10_500, 12), (10_999, 999)] {
            let mut wheel = TimerWheel::new(began_ms);
            let deadline_of = |index: u32| began_ms + u64::from(index) * 731;
            for index in 0..100 {
                wheel.insert(id(index), deadline_of(index));
            }
            let (mut now_ms, mut seen, mut looks) = (began_ms, 0, 0);
            while now_ms < began_ms + 90_000 {
                now_ms += until_tick_ms(now_ms) + late_ms;
                looks += 1;
                let mut fired = Vec::new();
                wheel.advance(now_ms, &mut fired);
                for ConnId { index, .. } in fired {
                    let deadline_ms = deadline_of(index);
                    // What is over already is due at the next tick.
                    assert!(now_ms >= deadline_ms && now_ms <= deadline_ms + TICK_MS + late_ms);
                    seen += 1;
                }
            }
            assert_eq!(seen, 100);
            assert!(looks <= 91, "one look per tick");
        }
    }

    #[test]
    fn far_deadlines_fire_early_and_a_long_sleep_loses_nothing() {
        let mut wheel = TimerWheel::new(0);
        wheel.insert(id(1), 1_000_000_000);
        wheel.insert(id(2), 5_000);
        let mut fired = Vec::new();
        wheel.advance(10_000_000, &mut fired);
        fired.sort_by_key(|id| id.index);
        assert_eq!(fired, [id(1), id(2)]);
        wheel.insert(id(3), 10_001_000);
        fired.clear();
        wheel.advance(10_001_000, &mut fired);
        assert_eq!(fired, [id(3)]);
    }
}
