//! The rules of one core: connections, subscriptions, delivery, replay. Pure: `now` is passed
//! in, sending goes through [`Wire`], and nothing here knows a socket, a runtime or a broker.
//!
//! ```text
//! census         what shards tell about themselves
//! engine         Shard: connections come, send bytes, go; timers
//! drain          how clients leave before the shard ends
//! age            how they leave when their connection is old
//! jitter         moments that differ from connection to connection
//! accounting     what shard and connections hold in memory, and the budget
//! admission      the request head of a connection that came, and who is let in
//! routes         what stands at which path
//! commands       what a client's command does
//! publish        what an event does: log, match, number, send once per connection
//! batches        connections that wait until they may be sent to again
//! flush          queued frames to the wire, one send per connection
//! id             the name of a connection
//! connection     the state of one connection
//! table          all connections of the shard
//! outbox         what a connection could not take yet, bounded
//! replay         the last events of one connection, by seq
//! subscriptions  channel -> connections, exact and wildcard
//! recent         the recent log, and what came after a position
//! newest         the newest event of each channel
//! resume         a client that comes back: what it missed, cut from the log
//! catch_up       sending that, paced, with live events behind it
//! timers         one wheel for all deadlines
//! rate           commands per second
//! memory         what the shard's memory is made of
//! limits         the bounds, as values
//! ```

mod accounting;
mod admission;
mod age;
mod batches;
mod catch_up;
mod census;
mod commands;
mod connection;
mod drain;
mod engine;
mod flush;
mod id;
mod jitter;
mod limits;
mod memory;
mod newest;
mod outbox;
mod publish;
mod rate;
mod recent;
mod replay;
mod resume;
mod routes;
mod subscriptions;
mod table;
mod timers;
mod transmit;

#[cfg(test)]
mod simulation;

pub use census::{Census, ShardReport, Stats};
pub use drain::DRAIN_STEP_MS;
pub use engine::{Mode, Shard, ShardSettings};
pub use id::ConnId;
pub use limits::{ClientLimits, Limits};
pub use memory::ShardMemory;
pub use subscriptions::{Subscriber, SubscriptionIndex};

use std::io;

/// The moment of a call, read once per turn by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds on a clock that never goes back, from any origin.
    pub monotonic_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

/// The shard's way to the sockets; a simulation stands in for it in tests.
pub trait Wire {
    /// Sends what the socket takes at once, without waiting; returns how many bytes.
    ///
    /// # Errors
    /// `WouldBlock` if it takes none now; anything else means that the connection is lost.
    fn send(&mut self, id: ConnId, bytes: &[u8]) -> io::Result<usize>;

    /// A send would have blocked: [`Shard::writable`] goes on when the socket takes bytes again.
    fn blocked(&mut self, id: ConnId);

    /// Everything is sent: shut down the writing side.
    fn finish(&mut self, id: ConnId);

    /// The shard has forgotten this connection: close the socket without lingering.
    fn abort(&mut self, id: ConnId);
}
