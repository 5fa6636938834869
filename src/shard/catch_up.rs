//! Sending what a client missed: a portion per turn, the live events behind it.
//!
//! Until everything is sent, the events of the connection wait here as references of 8 bytes, in
//! the order of the log, and get their `seq` when they go out. Bounds: `resume_messages` that one
//! resume may bring and [`CATCH_UP_LIVE_MAX`] behind them, [`CATCH_UP_EVENTS_MAX`] for the shard. The
//! payloads are those of the log: a client that is so slow that the log forgets what it waits for
//! is closed.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::engine::Shard;
use super::id::ConnId;
use super::limits::{CATCH_UP_EVENTS_MAX, CATCH_UP_GROWTH, CATCH_UP_LIVE_MAX, FRAMES_PER_SEND};
use super::recent::LoggedEvent;
use super::transmit::{SEND_BYTES_MAX, event_frame_bytes};
use crate::heap::allocation_bytes;

/// What one connection has still to be sent before it is up to date.
#[derive(Debug)]
pub struct CatchUp {
    events: VecDeque<Rc<LoggedEvent>>,
    /// Those of all connections of the shard.
    waiting: Rc<Cell<usize>>,
}

impl CatchUp {
    fn new(waiting: &Rc<Cell<usize>>) -> Self {
        Self { events: VecDeque::new(), waiting: Rc::clone(waiting) }
    }

    /// Adds what a resume found, in order with what waits already.
    fn merge(&mut self, missed: Vec<Rc<LoggedEvent>>) {
        self.waiting.set(self.waiting.get() + missed.len());
        let is_in_order = self.events.is_empty();
        self.events.reserve_exact(missed.len());
        self.events.extend(missed);
        if !is_in_order {
            self.events.make_contiguous().sort_by_key(|event| event.pos());
        }
    }

    /// Adds a live event; false if too many wait.
    fn push(&mut self, event: &Rc<LoggedEvent>, events_max: usize) -> bool {
        let has_room = self.events.len() < events_max && self.waiting.get() < CATCH_UP_EVENTS_MAX;
        if has_room {
            self.waiting.set(self.waiting.get() + 1);
            if self.events.len() == self.events.capacity() {
                self.events.reserve_exact(CATCH_UP_GROWTH);
            }
            self.events.push_back(Rc::clone(event));
        }
        has_room
    }

    fn pop(&mut self) -> Option<Rc<LoggedEvent>> {
        let event = self.events.pop_front()?;
        self.waiting.set(self.waiting.get() - 1);
        Some(event)
    }

    fn retain(&mut self, mut keep: impl FnMut(&LoggedEvent) -> bool) {
        let before = self.events.len();
        self.events.retain(|event| keep(event));
        self.waiting.set(self.waiting.get() + self.events.len() - before);
    }

    /// Heap of the references.
    pub fn memory_bytes(&self) -> usize {
        allocation_bytes(size_of::<Self>())
            + allocation_bytes(self.events.capacity() * size_of::<Rc<LoggedEvent>>())
    }
}

impl Drop for CatchUp {
    fn drop(&mut self) {
        self.waiting.set(self.waiting.get() - self.events.len());
    }
}

impl Shard {
    /// Has `missed` sent to a connection before what is published from now on.
    pub(super) fn catch_up(&mut self, id: ConnId, missed: Vec<Rc<LoggedEvent>>) {
        let waiting = Rc::clone(&self.catch_up_events);
        let Some(connection) = self.find(id).filter(|_| !missed.is_empty()) else { return };
        let is_first = connection.catch_up.is_none();
        let catch_up = connection.catch_up.get_or_insert_with(|| Box::new(CatchUp::new(&waiting)));
        catch_up.merge(missed);
        if is_first {
            self.catching_up.push(id);
        }
        self.touch(id.index);
    }

    /// Puts a live event behind what a connection is still being sent.
    pub(super) fn queue_behind(&mut self, index: u32, event: &Rc<LoggedEvent>) {
        let limits = &self.settings.limits.client;
        let events_max = limits.resume_messages + CATCH_UP_LIVE_MAX;
        let connection = &mut self.connections[index];
        if let Some(catch_up) = &mut connection.catch_up
            && !catch_up.push(event, events_max)
        {
            self.slow.push(connection.id);
        }
        self.settle(index);
    }

    /// Takes the next portion of what a connection missed to the events that are sent next;
    /// whether there was any. A portion fits one send, and an outbox.
    pub(super) fn take_portion(&mut self, index: u32) -> bool {
        let limits = &self.settings.limits;
        let frames_max = FRAMES_PER_SEND.min(limits.client.queue_messages);
        let bytes_max = SEND_BYTES_MAX.min(limits.client.queue_bytes);
        let connection = &mut self.connections[index];
        let Some(mut catch_up) = connection.catch_up.take().filter(|_| connection.is_open()) else {
            return false;
        };
        let mut bytes = 0;
        while let Some(event) = catch_up.events.front() {
            if connection.deflate.is_some() {
                event.event().deflate(&mut self.deflater, limits.deflate_bytes_min);
            }
            bytes += event_frame_bytes(u64::MAX, event.tail_for(connection.deflate));
            let is_full = connection.pending as usize >= frames_max || bytes > bytes_max;
            if is_full && connection.pending > 0 {
                break;
            }
            let Some(event) = catch_up.pop() else { break };
            connection.replay.push(&event, limits.client.replay_messages);
            connection.pending += 1;
            self.stats.deliveries += 1;
        }
        if !catch_up.events.is_empty() {
            connection.catch_up = Some(catch_up);
        }
        true
    }

    /// Leaves out what a connection does not want any more.
    pub(super) fn filter_catch_up(&mut self, id: ConnId) {
        let Some(connection) = self.connections.find(id) else { return };
        if let Some(catch_up) = &mut connection.catch_up {
            catch_up.retain(|event| self.index.has_match(id.index, event.event().channel()));
            connection.catch_up.take_if(|catch_up| catch_up.events.is_empty());
        }
    }

    /// Drops what connections have missed: it does not connect to what follows.
    pub(super) fn abandon_catch_ups(&mut self) {
        for id in std::mem::take(&mut self.catching_up) {
            if let Some(connection) = self.find(id) {
                connection.catch_up = None;
                self.settle(id.index);
            }
        }
    }

    /// Closes those that wait for what the log has forgotten, and forgets those that are done.
    pub(super) fn check_catch_ups(&mut self) {
        let (connections, log) = (&mut self.connections, &self.log);
        let slow = &mut self.slow;
        self.catching_up.retain(|id| {
            let catch_up =
                connections.find(*id).and_then(|connection| connection.catch_up.as_ref());
            let oldest = catch_up.and_then(|catch_up| catch_up.events.front());
            if oldest.is_some_and(|event| log.has_forgotten(event.pos())) {
                slow.push(*id);
            }
            oldest.is_some()
        });
    }
}
