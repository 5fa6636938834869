//! Connections whose events are held back until they are due (`WS_BATCH_MS`, and the `batch`
//! command).
//!
//! Bounds: one entry of 4 bytes per connection that waits, in at most one list per millisecond of
//! the longest wait.

use std::collections::BTreeMap;

use crate::heap::allocation_bytes;

/// Connections by the millisecond of the monotonic clock at which they are due.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    due: BTreeMap<u64, Vec<u32>>,
}

impl HeldBack {
    /// The connection at `index` is due at `due_ms`.
    pub(super) fn insert(&mut self, index: u32, due_ms: u64) {
        self.due.entry(due_ms).or_default().push(index);
    }

    /// When the first is due.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.due.first_key_value().map(|(due_ms, _)| *due_ms)
    }

    /// Appends all that are due to `into`.
    pub(super) fn take_due(&mut self, now_ms: u64, into: &mut impl Extend<u32>) {
        while let Some(first) = self.due.first_entry().filter(|first| *first.key() <= now_ms) {
            into.extend(first.remove());
        }
    }

    /// Heap of the lists. A B-tree's nodes have 11 places of 32 bytes and are two thirds full.
    pub(super) fn memory_bytes(&self) -> usize {
        const ENTRY_BYTES: usize = 32 * 3 / 2 + 2;
        let lists = self.due.values().map(|list| allocation_bytes(list.capacity() * 4));
        self.due.len() * ENTRY_BYTES + lists.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_comes_out_in_order_and_once() {
        let mut held = HeldBack::default();
        assert_eq!(held.next_ms(), None);
        for (index, due_ms) in [(1, 30), (2, 10), (3, 20), (4, 10)] {
            held.insert(index, due_ms);
        }
        assert_eq!(held.next_ms(), Some(10));
        let mut due: Vec<u32> = Vec::new();
        held.take_due(9, &mut due);
        assert!(due.is_empty());
        held.take_due(20, &mut due);
        assert_eq!(due, [2, 4, 3]);
        held.take_due(1_000, &mut due);
        assert_eq!(due, [2, 4, 3, 1]);
        assert_eq!((held.next_ms(), held.memory_bytes()), (None, 0));
    }
}
