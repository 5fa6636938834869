//! One published message, enveloped once for every subscriber of the process (invariant:
//! encoded once), and the place in the stream that it has.
//!
//! The envelope on the wire is `{"seq":N,` followed by the event's tail. `seq` differs per
//! connection; the tail is the same bytes for everybody and is shared by reference. So is the
//! deflated tail, which the first subscriber that wants it has made (compressed once). This
//! module knows no connection, no broker and no clock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::heap::allocation_bytes;
use crate::position::{Incoming, Position, StreamPos};
use crate::protocol::deflate::{Deflater, STORED_HEADER_BYTES};
use crate::protocol::dialect::Dialect;
use crate::protocol::envelope;

/// An enveloped message, ready for any number of subscribers.
#[derive(Debug)]
pub struct Event {
    channel: Arc<str>,
    position: Position,
    arrived_us: u64,
    tail: Box<[u8]>,
    /// The tail deflated with a window of its own; empty if that is not worth while.
    deflated: OnceLock<Box<[u8]>>,
}

/// The shared part of an event as it goes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail<'a> {
    /// Text.
    Plain(&'a [u8]),
    /// Deflated, to follow a stored block with the rest of the text.
    Deflated(&'a [u8]),
}

impl Event {
    /// Envelopes `incoming`; `prev` is the position of the previous message on its channel, and
    /// `arrived_us` when it came, in microseconds of the process's monotonic clock.
    /// Cost: one pass over the payload to check that it is JSON, one copy.
    pub fn new(
        incoming: &Incoming<'_>,
        channel: Arc<str>,
        prev: StreamPos,
        arrived_us: u64,
    ) -> Self {
        let tail = envelope::encode_tail(incoming, prev).into_boxed_slice();
        let position = incoming.position;
        let event = Self { channel, position, arrived_us, tail, deflated: OnceLock::new() };
        PAYLOAD_BYTES.fetch_add(event.heap_bytes(), Ordering::Relaxed);
        event
    }

    /// The channel it was published on.
    pub fn channel(&self) -> &Arc<str> {
        &self.channel
    }

    /// Where it stands in the stream.
    pub fn position(&self) -> Position {
        self.position
    }

    /// When it came from the source, in microseconds of the process's monotonic clock.
    pub fn arrived_us(&self) -> u64 {
        self.arrived_us
    }

    /// The text of the envelope after `{"seq":N,`, up to and with the closing brace.
    pub fn tail(&self) -> &[u8] {
        &self.tail
    }

    /// Deflates the tail, unless that has been done by any thread, or it has fewer than
    /// `bytes_min` bytes.
    pub fn deflate(&self, deflater: &mut Deflater, bytes_min: usize) {
        self.deflated.get_or_init(|| {
            if self.tail.len() < bytes_min {
                return Box::default();
            }
            let deflated = deflater.deflate_tail(&self.tail);
            if deflated.len() + STORED_HEADER_BYTES >= self.tail.len() {
                return Box::default();
            }
            PAYLOAD_BYTES.fetch_add(allocation_bytes(deflated.len()), Ordering::Relaxed);
            deflated
        });
    }

    /// The tail in a connection's form: deflated if that is agreed, done, worth while, and within
    /// the window, for no distance in it exceeds its length.
    pub fn tail_for(&self, dialect: Dialect) -> Tail<'_> {
        match (dialect.deflate, self.deflated.get()) {
            (Some(deflate), Some(deflated))
                if !deflated.is_empty() && self.tail.len() <= deflate.window_bytes() =>
            {
                Tail::Deflated(deflated)
            }
            _ => Tail::Plain(&self.tail),
        }
    }

    /// Bytes that this event holds in memory: payload, name and the struct itself.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.tail.len() + self.channel.len()
    }

    /// Heap of the event behind its `Arc`; the channel's name is everybody's.
    fn heap_bytes(&self) -> usize {
        const COUNTS: usize = 2 * size_of::<usize>();
        let deflated = self.deflated.get().map_or(0, |deflated| deflated.len());
        allocation_bytes(COUNTS + size_of::<Self>())
            + allocation_bytes(self.tail.len())
            + allocation_bytes(deflated)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        PAYLOAD_BYTES.fetch_sub(self.heap_bytes(), Ordering::Relaxed);
    }
}

/// Heap of all events that anything in the process still holds, each counted once.
static PAYLOAD_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Bytes of heap that the events take that anything in the process still holds: logs, newest
/// events, replay rings and queues of all shards share them.
pub(crate) fn payload_bytes() -> usize {
    PAYLOAD_BYTES.load(Ordering::Relaxed)
}
