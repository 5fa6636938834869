//! What the deadlines of a connection ask for: signs of life, closes, and the end of what takes too
//! long.
//!
//! The longest life of a connection (`WS_MAX_CONNECTION_AGE`) is one of them: the client is told to
//! connect again and is closed, as in a drain, so that load spreads over instances that were added
//! later. The lives of connections that came together end apart: each is longer or shorter by up to
//! [`AGE_JITTER_PERCENT`]. Bound: one entry in the shard's timer wheel stands for all deadlines of a
//! connection.

use super::Now;
use super::connection::Connection;
use super::jitter::{Spread, jitter};
use super::limits::Limits;
use crate::protocol::close::CloseReason;
use crate::protocol::message::ServerDraining;

/// How long a client has at least to answer the last ping before its idle timeout.
const PONG_GRACE_MS: u64 = 5_000;

/// By how much a life may be longer or shorter than the setting.
const AGE_JITTER_PERCENT: u64 = 20;

/// Within how long a client of an old connection is asked to connect again.
const RECONNECT_SPREAD_MS: u64 = 5_000;

/// From that moment to the close.
const OVERLAP_MS: u64 = 1_000;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing, until then.
    Nothing { next_ms: u64 },
    /// The client is told to leave.
    Leave(ServerDraining),
    /// A sign of life that asks for no answer.
    SignOfLife { next_ms: u64 },
    /// A sign of life that asks for an answer.
    Ping { next_ms: u64 },
    /// The connection is closed.
    Close(CloseReason),
    /// The connection is ended at once.
    Abort,
}

impl Connection {
    /// The connection is open from now on: how long it may be.
    pub(super) fn begin_ageing(&mut self, now: Now, limits: &Limits, shard: usize) {
        let age_ms = limits.connection_age_ms;
        if age_ms > 0 {
            let shortest_ms = age_ms * (100 - AGE_JITTER_PERCENT) / 100;
            let span_ms = age_ms * 2 * AGE_JITTER_PERCENT / 100;
            let life_ms = shortest_ms + jitter(span_ms, Spread::Age, shard, self.number);
            self.leave_at(now.monotonic_ms() + life_ms);
        }
    }

    /// What is due now. To be asked again after [`Due::Leave`].
    pub(super) fn due(&mut self, now: Now, limits: &Limits, shard: usize) -> Due {
        let now_ms = now.monotonic_ms();
        if !self.is_open() {
            let is_over = now_ms >= self.deadline_ms;
            return if is_over { Due::Abort } else { Due::Nothing { next_ms: self.deadline_ms } };
        }
        if self.leave_ms().is_some_and(|leave_ms| now_ms >= leave_ms) {
            if self.is_leaving {
                return Due::Close(CloseReason::Aged);
            }
            return Due::Leave(self.leave(now_ms, shard));
        }
        let silent_ms = now_ms.saturating_sub(self.last_received_ms);
        let (idle_ms, heartbeat_ms) = (limits.idle_timeout_ms, limits.heartbeat_interval_ms);
        let message_ms = (self.deadline_ms > 0).then_some(self.deadline_ms);
        let idle_deadline_ms =
            (self.last_received_ms + idle_ms).min(message_ms.unwrap_or(u64::MAX));
        if message_ms.is_some_and(|message_ms| now_ms >= message_ms) {
            Due::Close(CloseReason::UnfinishedMessage)
        } else if silent_ms >= idle_ms {
            Due::Close(CloseReason::Idle)
        } else if silent_ms >= heartbeat_ms {
            // Counted from the client's last byte: counted from now, each would add its lateness.
            let next_silent_ms = (silent_ms / heartbeat_ms + 1) * heartbeat_ms;
            let next_ms = idle_deadline_ms.min(self.last_received_ms + next_silent_ms);
            // An answer is needed only before the idle timeout. Until then a pong keeps middleboxes
            // from cutting the connection at a third of a ping's cost (RFC 6455, section 5.5.3).
            let is_last = next_silent_ms + PONG_GRACE_MS > idle_ms;
            if is_last { Due::Ping { next_ms } } else { Due::SignOfLife { next_ms } }
        } else {
            let ping_ms = self.last_received_ms + heartbeat_ms;
            Due::Nothing { next_ms: ping_ms.min(idle_deadline_ms) }
        }
    }

    /// The connection has reached its age: when its client should connect again, and when it is
    /// closed.
    fn leave(&mut self, now_ms: u64, shard: usize) -> ServerDraining {
        self.is_leaving = true;
        let reconnect_after_ms = jitter(RECONNECT_SPREAD_MS, Spread::Reconnect, shard, self.number);
        self.leave_at(now_ms + reconnect_after_ms + OVERLAP_MS);
        let deadline_ms = self.leave_ms().unwrap_or_default().saturating_sub(now_ms);
        ServerDraining { reconnect_after_ms, deadline_ms }
    }
}
