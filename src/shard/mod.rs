//! The rules of one core: connections, subscriptions, delivery, replay. Pure: `now` is passed
//! in, sending goes through [`Wire`], and nothing here knows a socket, a runtime or a broker.
//!
//! ```text
//! engine         Shard: connections come, send bytes, go
//! step           what the shard does in its turns: publish, tell, send
//! turns          who is looked at next: rules mark connections there, a step works through them
//! held             those whose events are held back until they are due
//! connection     the state of one connection
//! admission        its request, and what that is answered with
//! routes           what stands at which path
//! commands         what its commands do
//! subscribe        what it subscribes to, and has first
//! deadlines        what is due: signs of life, closes
//! rate             its commands per second
//! delivery/      its way out: replay ring, outbox, backlog, frames
//! history/       the stream's memory: recent log, newest events, resumes that wait
//! subscriptions  channel -> connections, exact and wildcard
//! announcement   a message to everybody, a portion at a time
//! drain          how clients leave before the shard ends
//! table          all connections of the shard
//! timers         one wheel for all deadlines
//! jitter         moments that differ from connection to connection
//! accounting     what a connection may take in memory
//! memory         what the shard's memory is made of
//! census         what shards tell about themselves
//! stats          what a shard has done
//! scan_budget    what one command may look through
//! settings       what a shard is made from
//! limits         the bounds, as values
//! ```

mod accounting;
mod admission;
mod announcement;
mod census;
mod commands;
mod connection;
mod deadlines;
mod delivery;
mod drain;
mod engine;
mod held;
mod history;
mod id;
mod jitter;
mod limits;
mod memory;
mod rate;
mod routes;
mod scan_budget;
mod settings;
mod stats;
mod step;
mod subscribe;
mod subscriptions;
mod table;
mod timers;
mod turns;

#[cfg(test)]
mod simulation;

pub use census::Census;
pub(crate) use census::ShardReport;
pub(crate) use drain::DRAIN_STEP_MS;
pub use engine::Shard;
pub use id::ConnId;
pub use limits::{ClientLimits, Limits};
#[cfg(test)]
pub(crate) use memory::ShardMemory;
pub use settings::{Mode, ShardSettings};
pub(crate) use stats::Stats;
pub use subscriptions::SubscriptionIndex;
pub(crate) use timers::until_tick_ms;

use std::io;

pub use crate::clock::Now;

/// The shard's way to the sockets; a simulation stands in for it in tests.
pub trait Wire {
    /// Sends what the socket takes at once, without waiting; returns how many bytes.
    ///
    /// # Errors
    /// `WouldBlock` if it takes none now; anything else means that the connection is lost.
    fn send(&mut self, id: ConnId, bytes: &[u8]) -> io::Result<usize>;

    /// A send would have blocked: [`Shard::writable`] goes on when the socket takes bytes again.
    fn blocked(&mut self, id: ConnId);

    /// [`Shard::wants_read`] said no, and now it would say yes.
    fn resume(&mut self, id: ConnId);

    /// Everything is sent: shut down the writing side.
    fn finish(&mut self, id: ConnId);

    /// The shard has forgotten this connection: close the socket without lingering.
    fn abort(&mut self, id: ConnId);
}
