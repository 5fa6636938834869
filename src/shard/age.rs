//! The longest life of a connection (`WS_MAX_CONNECTION_AGE`): after it the client is told to
//! connect again and closed, as in a drain, so that load spreads again over instances that were
//! added later.
//!
//! The lives of connections that came together end apart: each is longer or shorter by up to
//! [`AGE_JITTER_PERCENT`]. The deadline is one more that the connection's place in the timer wheel
//! stands for; it costs the connection four bytes and no timer.

use super::engine::Shard;
use super::id::ConnId;
use super::jitter::{Spread, jitter};
use super::{Now, Wire};
use crate::protocol::close::CloseReason;
use crate::protocol::message::ServerDraining;

/// By how much a life may be longer or shorter than the setting.
const AGE_JITTER_PERCENT: u64 = 20;

/// Within how long a client is asked to connect again.
const RECONNECT_SPREAD_MS: u64 = 5_000;

/// From that moment to the close.
const OVERLAP_MS: u64 = 1_000;

impl Shard {
    /// The connection is open from now on: how long it may be.
    pub(super) fn begin_ageing(&mut self, id: ConnId, now: Now) {
        let age_ms = self.settings.limits.connection_age_ms;
        let shard = self.settings.shard;
        if let Some(connection) = self.find(id).filter(|_| age_ms > 0) {
            let shortest_ms = age_ms * (100 - AGE_JITTER_PERCENT) / 100;
            let span_ms = age_ms * 2 * AGE_JITTER_PERCENT / 100;
            let life_ms = shortest_ms + jitter(span_ms, Spread::Age, shard, connection.number);
            connection.leave_at(now.monotonic_ms + life_ms);
        }
    }

    /// The connection's life ends another way.
    pub(super) fn stop_ageing(&mut self, id: ConnId) {
        if let Some(connection) = self.find(id) {
            connection.leave_tick = 0;
        }
    }

    /// Tells an open connection that it has reached its age, and closes it when the time that it
    /// was given is over.
    pub(super) fn check_age(&mut self, id: ConnId, now: Now, wire: &mut impl Wire) {
        let shard = self.settings.shard;
        let Some(connection) = self.find(id) else { return };
        if connection.leave_ms().is_none_or(|leave_ms| now.monotonic_ms < leave_ms) {
            return;
        }
        if !std::mem::replace(&mut connection.is_leaving, true) {
            let number = connection.number;
            let reconnect_after_ms = jitter(RECONNECT_SPREAD_MS, Spread::Reconnect, shard, number);
            connection.leave_at(now.monotonic_ms + reconnect_after_ms + OVERLAP_MS);
            let deadline_ms =
                connection.leave_ms().unwrap_or_default().saturating_sub(now.monotonic_ms);
            self.tell_leaving(id, ServerDraining { reconnect_after_ms, deadline_ms }, wire);
        } else if self.close_leaving(id, CloseReason::Aged, now, wire) {
            self.stats.age_closed += 1;
        }
    }
}
