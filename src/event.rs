//! One published message, enveloped once for every subscriber of the process (invariant:
//! encoded once), and the place in the stream that it has.
//!
//! The envelope on the wire is `{"seq":N,` followed by the event's tail. `seq` differs per
//! connection; the tail is the same bytes for everybody and is shared by reference. This module
//! knows no connection, no broker and no clock.

use std::fmt;
use std::sync::Arc;

use crate::protocol::envelope;

/// A position in the stream: the JetStream stream sequence, from 1. 0 means "none known".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StreamPos(pub u64);

impl fmt::Display for StreamPos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where an event stands: the stream sequence and the broker's store time of that message.
/// Together they name one message even if a sequence is given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The stream sequence.
    pub pos: StreamPos,
    /// The broker's store time, in milliseconds since the Unix epoch.
    pub ts_ms: u64,
}

/// One life of a stream: derived from its name and creation time, the same on every instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Epoch(pub Arc<str>);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A message as a source delivers it, before it is enveloped.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// The NATS subject: the channel.
    pub subject: &'a str,
    /// The published bytes, usually JSON.
    pub payload: &'a [u8],
    /// Where it stands in the stream.
    pub position: Position,
}

/// An enveloped message, ready for any number of subscribers.
#[derive(Debug)]
pub struct Event {
    channel: Arc<str>,
    position: Position,
    tail: Box<[u8]>,
}

impl Event {
    /// Envelopes `incoming`; `prev` is the position of the previous message on its channel.
    /// Cost: one pass over the payload to check that it is JSON, one copy.
    pub fn new(incoming: &Incoming<'_>, channel: Arc<str>, prev: StreamPos) -> Self {
        let tail = envelope::encode_tail(incoming, prev).into_boxed_slice();
        Self { channel, position: incoming.position, tail }
    }

    /// The channel it was published on.
    pub fn channel(&self) -> &Arc<str> {
        &self.channel
    }

    /// Where it stands in the stream.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The text of the envelope after `{"seq":N,`, up to and with the closing brace.
    pub fn tail(&self) -> &[u8] {
        &self.tail
    }

    /// Bytes that this event holds in memory: payload, name and the struct itself.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.tail.len() + self.channel.len()
    }
}
