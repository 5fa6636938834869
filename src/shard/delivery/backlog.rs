//! What a client missed and is sent in portions, with the live events behind it.
//!
//! Until everything is sent, the events of the connection wait here as references of 8 bytes, in
//! the order of the log, and get their `seq` when they go out. Bounds: `resume_messages` that one
//! resume may bring and [`BACKLOG_LIVE_MAX`] behind them, [`BACKLOG_EVENTS_MAX`] for the shard. The
//! payloads are those of the log: a client that is so slow that the log forgets what it waits for
//! is closed.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::heap::allocation_bytes;
use crate::shard::history::LoggedEvent;
use crate::shard::limits::{BACKLOG_EVENTS_MAX, BACKLOG_GROWTH};

/// What one connection has still to be sent before it is up to date.
#[derive(Debug)]
pub(super) struct Backlog {
    events: VecDeque<Rc<LoggedEvent>>,
    /// Those of all connections of the shard.
    waiting: Rc<Cell<usize>>,
}

impl Backlog {
    /// An empty one, which counts its events in `waiting` with those of the whole shard.
    pub(super) fn new(waiting: &Rc<Cell<usize>>) -> Self {
        Self { events: VecDeque::new(), waiting: Rc::clone(waiting) }
    }

    /// Adds what a resume found, in order with what waits already.
    pub(super) fn merge(&mut self, missed: Vec<Rc<LoggedEvent>>) {
        self.waiting.set(self.waiting.get() + missed.len());
        let is_in_order = self.events.is_empty();
        self.events.reserve_exact(missed.len());
        self.events.extend(missed);
        if !is_in_order {
            self.events.make_contiguous().sort_by_key(|event| event.pos());
        }
    }

    /// Adds a live event; false if too many wait.
    pub(super) fn push(&mut self, event: &Rc<LoggedEvent>, events_max: usize) -> bool {
        let has_room = self.events.len() < events_max && self.waiting.get() < BACKLOG_EVENTS_MAX;
        if has_room {
            self.waiting.set(self.waiting.get() + 1);
            if self.events.len() == self.events.capacity() {
                self.events.reserve_exact(BACKLOG_GROWTH);
            }
            self.events.push_back(Rc::clone(event));
        }
        has_room
    }

    /// Takes out the oldest.
    pub(super) fn pop(&mut self) -> Option<Rc<LoggedEvent>> {
        let event = self.events.pop_front()?;
        self.waiting.set(self.waiting.get() - 1);
        Some(event)
    }

    /// Keeps those for which `keep` is true.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&LoggedEvent) -> bool) {
        let before = self.events.len();
        self.events.retain(|event| keep(event));
        self.waiting.set(self.waiting.get() + self.events.len() - before);
    }

    /// The oldest.
    pub(super) fn front(&self) -> Option<&Rc<LoggedEvent>> {
        self.events.front()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Heap of the references.
    pub(super) fn memory_bytes(&self) -> usize {
        allocation_bytes(size_of::<Self>())
            + allocation_bytes(self.events.capacity() * size_of::<Rc<LoggedEvent>>())
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.waiting.set(self.waiting.get() - self.events.len());
    }
}
