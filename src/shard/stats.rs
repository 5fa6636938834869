//! What a shard has done, as counters.

use crate::protocol::message::ResumeRefusal;

/// What a shard has done since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections upgraded.
    pub upgraded: u64,
    /// Requests refused before the upgrade.
    pub refused: u64,
    /// Events taken from the source.
    pub events: u64,
    /// Events given to connections: sent, waiting or dropped.
    pub deliveries: u64,
    /// Events that found a full queue: each waited beyond it, or was one too many.
    pub postponed: u64,
    /// Events that waited for a client when it was closed because it was too slow or over its
    /// budget, and were not sent.
    pub dropped: u64,
    /// Clients closed because they read too slowly.
    pub slow_closed: u64,
    /// Clients closed because they were over their memory budget.
    pub budget_closed: u64,
    /// Clients that a drain closed with 1012.
    pub drain_closed: u64,
    /// Clients closed because their connection was old.
    pub age_closed: u64,
    /// Resumes that brought everything.
    pub resumed: u64,
    /// The messages that they brought.
    pub resumed_messages: u64,
    /// Resumes that were refused, by reason.
    pub not_resumed: [u64; ResumeRefusal::COUNT],
    /// Sends: each is one system call.
    pub sends: u64,
    /// Bytes sent.
    pub bytes: u64,
}
