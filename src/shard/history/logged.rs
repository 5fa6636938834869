//! A published event in the hands of one shard.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use crate::event::{Event, Tail};
use crate::heap::allocation_bytes;
use crate::protocol::dialect::Dialect;

/// An event that a shard holds: its references are counted by the shard alone, without atomics.
#[derive(Debug)]
pub(crate) struct LoggedEvent {
    event: Arc<Event>,
    alive: Rc<Cell<usize>>,
}

impl LoggedEvent {
    /// Takes the shared event into the shard, which counts in `alive` how many it has.
    pub(crate) fn new(event: Arc<Event>, alive: &Rc<Cell<usize>>) -> Self {
        alive.set(alive.get() + 1);
        Self { event, alive: Rc::clone(alive) }
    }

    /// Heap of `count` of them, each behind its `Rc`; the payloads are shared between shards.
    pub(crate) fn memory_bytes(count: usize) -> usize {
        count * allocation_bytes(2 * size_of::<usize>() + size_of::<Self>())
    }

    /// The shared event.
    pub(crate) fn event(&self) -> &Event {
        &self.event
    }

    /// The channel that it was published on.
    pub(crate) fn channel(&self) -> &Arc<str> {
        self.event.channel()
    }

    /// What a connection is sent of it.
    pub(crate) fn tail_for(&self, dialect: Dialect) -> Tail<'_> {
        self.event.tail_for(dialect)
    }

    /// The stream position as a number.
    pub(crate) fn pos(&self) -> u64 {
        self.event.position().pos.0
    }
}

impl Drop for LoggedEvent {
    fn drop(&mut self) {
        self.alive.set(self.alive.get() - 1);
    }
}

#[cfg(test)]
pub(in crate::shard) mod tests {
    use super::*;
    use crate::position::{Incoming, Position, StreamPos};

    pub(in crate::shard) fn logged(channel: &str, pos: u64) -> Rc<LoggedEvent> {
        let position = Position { pos: StreamPos(pos), ts_ms: pos };
        let incoming = Incoming { subject: channel, payload: b"{}", position };
        let event = Arc::new(Event::new(&incoming, channel.into(), StreamPos(0), 0));
        Rc::new(LoggedEvent::new(event, &Rc::default()))
    }
}
