//! One timer wheel for all deadlines of a shard (Varghese and Lauck, 1987): inserting and firing
//! cost O(1), and activity costs nothing, because a deadline is looked up again when it fires.
//!
//! A connection has at least one entry; the owner puts it back with the deadline that holds then.
//! Resolution [`TICK_MS`]: all that is due within a second is done in one wake. Bound: one entry
//! per insert, 8 bytes; deadlines beyond the wheel's span fire early and are put back.

use super::id::ConnId;
use crate::heap::allocation_bytes;

/// Milliseconds per slot.
pub(super) const TICK_MS: u64 = 1_000;

const SLOTS: usize = 128;

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
        let mut wheel = TimerWheel::new(10_500);
        for index in 0..100 {
            wheel.insert(id(index), 10_500 + u64::from(index) * 731);
        }
        let mut now_ms = 10_500;
        let mut seen = 0;
        while now_ms < 100_000 {
            now_ms += 250;
            let mut fired = Vec::new();
            wheel.advance(now_ms, &mut fired);
            for ConnId { index, .. } in fired {
                let deadline = 10_500 + u64::from(index) * 731;
                assert!(now_ms >= deadline && now_ms < deadline + TICK_MS + 1_000);
                seen += 1;
            }
        }
        assert_eq!(seen, 100);
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
