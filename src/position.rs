//! Where a message stands in the stream, and what a source knows around it.
//!
//! Plain values at the bottom of the house: they know no event, no connection and no broker.

use std::fmt;
use std::sync::Arc;

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

/// What a source knows of the messages before and among those that it delivers in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Base {
    /// The position after which every message follows; `None` if it is not known.
    pub after: Option<Position>,
    /// From here on nothing is left out between two messages; before it something may be.
    pub whole_from: StreamPos,
}

/// How many messages of each channel a stream keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kept {
    /// As many as its other limits allow.
    #[default]
    All,
    /// At most so many: older ones are discarded, whether anybody has read them or not.
    PerChannel(u64),
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
