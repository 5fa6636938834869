//! Who is looked at next. Rules mark connections here; one place, [`super::Shard::step`], acts, a
//! bounded number at a time.
//!
//! Bounds: a connection is in each list once at most, 4 or 8 bytes each.

use std::collections::VecDeque;

use super::held::HeldBack;
use super::id::ConnId;
use crate::heap::allocation_bytes;

/// In which lists a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Marks {
    is_touched: bool,
    is_held: bool,
    is_catching_up: bool,
}

/// The connections that have something coming.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Those that are sent to, in this order.
    touched: VecDeque<u32>,
    /// Those whose events are held back.
    held: HeldBack,
    /// Those that are sent to before the next event is offered to anybody.
    urgent: Vec<u32>,
    /// Those whose deadline may be over.
    fired: VecDeque<ConnId>,
    /// Those that are sent what a resume found.
    catching_up: Vec<ConnId>,
    /// Those that are to be ended.
    aborted: Vec<ConnId>,
}

impl Turns {
    /// The connection is sent to in its turn.
    #[inline]
    pub(super) fn touch(&mut self, index: u32, marks: &mut Marks) {
        if !std::mem::replace(&mut marks.is_touched, true) {
            self.touched.push_back(index);
        }
    }

    /// The connection is sent to when its events are due.
    pub(super) fn hold(&mut self, index: u32, due_ms: u64, marks: &mut Marks) {
        if !marks.is_touched && !std::mem::replace(&mut marks.is_held, true) {
            self.held.insert(index, due_ms);
        }
    }

    /// The connection is sent to before the next event.
    pub(super) fn hurry(&mut self, index: u32) {
        self.urgent.push(index);
    }

    /// The connection is sent what a resume found.
    pub(super) fn catch_up(&mut self, id: ConnId, marks: &mut Marks) {
        if !std::mem::replace(&mut marks.is_catching_up, true) {
            self.catching_up.push(id);
        }
        self.touch(id.index, marks);
    }

    /// The connection is ended, whatever it still has to send.
    pub(super) fn abort(&mut self, id: ConnId) {
        self.aborted.push(id);
    }

    /// Deadlines that may be over are put here.
    pub(super) fn fired(&mut self) -> &mut VecDeque<ConnId> {
        &mut self.fired
    }

    /// Takes the next connection to send to.
    pub(super) fn next_touched(&mut self) -> Option<u32> {
        self.touched.pop_front()
    }

    /// Takes the next connection to send to before the next event.
    pub(super) fn next_urgent(&mut self) -> Option<u32> {
        self.urgent.pop()
    }

    /// Takes the next connection whose deadline may be over.
    pub(super) fn next_fired(&mut self) -> Option<ConnId> {
        self.fired.pop_front()
    }

    /// Takes the next connection to end.
    pub(super) fn next_aborted(&mut self) -> Option<ConnId> {
        self.aborted.pop()
    }

    /// Appends the connections that are due to `due`. The caller takes the mark from each with
    /// [`Marks::release`].
    pub(super) fn take_due(&mut self, now_ms: u64, due: &mut Vec<u32>) {
        self.held.take_due(now_ms, due);
    }

    /// When the first of those that are held back is due.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.held.next_ms()
    }

    /// Forgets the connections that catch up for which `keep` is false.
    pub(super) fn retain_catching_up(&mut self, mut keep: impl FnMut(ConnId) -> bool) {
        self.catching_up.retain(|id| keep(*id));
    }

    /// Whether [`super::Shard::step`] has something to do.
    pub(super) fn has_work(&self) -> bool {
        !(self.touched.is_empty() && self.fired.is_empty() && self.aborted.is_empty())
    }

    /// Heap of the lists.
    pub(super) fn memory_bytes(&self) -> usize {
        let indexes = [self.touched.capacity(), self.urgent.capacity()];
        let ids = [self.fired.capacity(), self.catching_up.capacity(), self.aborted.capacity()];
        let bytes = |size: usize| move |capacity: usize| allocation_bytes(capacity * size);
        self.held.memory_bytes()
            + indexes.map(bytes(size_of::<u32>())).iter().sum::<usize>()
            + ids.map(bytes(size_of::<ConnId>())).iter().sum::<usize>()
    }
}

impl Marks {
    /// The connection has its turn now.
    pub(super) fn take_turn(&mut self) {
        self.is_touched = false;
    }

    /// The connection is not held back any more.
    pub(super) fn release(&mut self) {
        self.is_held = false;
    }

    /// The connection has been sent all that its resume found.
    pub(super) fn end_catching_up(&mut self) {
        self.is_catching_up = false;
    }

    /// Whether the connection will be sent to.
    #[cfg(test)]
    pub(crate) fn is_waiting(self) -> bool {
        self.is_touched || self.is_held
    }
}
