//! What a connection may take in memory.
//!
//! A connection's budget bounds what it takes in all: its own state, subscriptions, resumes that
//! wait, waiting frames and incomplete messages, and what the kernel holds for it while it is
//! blocked. Live events have the bounds of the queue, which are part of the budget; events that a
//! client asks for are cut to what the budget leaves, and a resume for which it has no room does
//! not wait; whoever is over it all the same is closed.

use super::connection::Connection;
use super::history::WaitingResumes;
use super::limits::Limits;
use super::subscriptions::SubscriptionIndex;

/// What a connection takes of its budget; the kernel's part is not known here.
pub(super) fn budget_used(
    connection: &Connection,
    index: &SubscriptionIndex,
    waiting: &WaitingResumes,
) -> usize {
    let place = connection.id.index;
    connection.budgeted_bytes() + index.memory_bytes_of(place) + waiting.memory_bytes_of(place)
}

/// What a connection may still ask for.
pub(super) fn budget_left(
    connection: &Connection,
    index: &SubscriptionIndex,
    waiting: &WaitingResumes,
    limits: &Limits,
) -> usize {
    limits.connection_budget_bytes.saturating_sub(budget_used(connection, index, waiting))
}
