//! How a shard's clients leave before it ends: `/ready` fails first, then everybody is told when
//! to connect again, each at another moment, and closed a little later.
//!
//! The moments are spread evenly over [`SPREAD_TENTHS`] of the drain, and a connection lives on
//! for [`OVERLAP_TENTHS`] after its own, in which a client can go on elsewhere before it drops
//! this one. Bounds: [`TOLD_PER_STEP`] clients are told in a step of the caller, and no more are
//! closed than [`LATE_SHARES`] steps' share; the plan takes 16 bytes per client.

use super::Now;
use super::id::ConnId;
use super::jitter::{Spread, jitter};
use crate::heap::allocation_bytes;
use crate::protocol::message::ServerDraining;

/// How often [`super::Shard::drain`] is to be called, in milliseconds.
pub(crate) const DRAIN_STEP_MS: u64 = 50;

/// Clients told in one step: about 10 ms of work.
pub(super) const TOLD_PER_STEP: usize = 1_024;

/// Shares that one step closes at most, if the steps before it came late.
const LATE_SHARES: u64 = 2;

/// Tenths of a drain over which the moments to connect again are spread.
const SPREAD_TENTHS: u64 = 8;

/// Tenths of a drain from such a moment to the close. What is left of the drain is for closing
/// handshakes.
const OVERLAP_TENTHS: u64 = 1;

const _: () = assert!(SPREAD_TENTHS + OVERLAP_TENTHS < 10);

/// Where a shard is in its life.
#[derive(Debug, Default)]
pub(super) enum Phase {
    /// It takes connections.
    #[default]
    Serving,
    /// It does, but says on `/ready` that it will not for long.
    Retiring,
    /// It takes none, and its clients leave.
    Draining(DrainPlan),
}

/// Who leaves when.
#[derive(Debug)]
pub(super) struct DrainPlan {
    /// All clients, the first to leave first.
    leavers: Vec<Leaver>,
    told: usize,
    passed: usize,
    overlap_ms: u64,
    /// Clients that one step may close.
    closes_max: u64,
}

#[derive(Debug, Clone, Copy)]
struct Leaver {
    id: ConnId,
    /// When it is to connect again.
    reconnect_ms: u64,
}

impl DrainPlan {
    /// `clients` with their numbers leave within `window_ms`. Each has a stretch of its own of the
    /// time, so that the whole is even, and its place in it by chance.
    pub(super) fn new(clients: &[(ConnId, u64)], shard: usize, window_ms: u64, now: Now) -> Self {
        let total = clients.len() as u64;
        let spread_us = window_ms * 1_000 * SPREAD_TENTHS / 10;
        let stretch_us = spread_us / total.max(1);
        let leavers = (0..).zip(clients).map(|(rank, &(id, number))| {
            let place_us = jitter(stretch_us, Spread::Drain, shard, number);
            let after_ms = (rank * spread_us / total + place_us) / 1_000;
            Leaver { id, reconnect_ms: now.monotonic_ms() + after_ms }
        });
        let share = (total * DRAIN_STEP_MS * 1_000).div_ceil(spread_us.max(1));
        Self {
            leavers: leavers.collect(),
            told: 0,
            passed: 0,
            overlap_ms: window_ms * OVERLAP_TENTHS / 10,
            closes_max: (LATE_SHARES * share).max(1),
        }
    }

    /// The next one to tell: how long it has until it should connect again, and until it is closed.
    pub(super) fn next_to_tell(&mut self, now: Now) -> Option<(ConnId, ServerDraining)> {
        let leaver = self.leavers.get(self.told)?;
        self.told += 1;
        let reconnect_after_ms = leaver.reconnect_ms.saturating_sub(now.monotonic_ms());
        let deadline_ms = reconnect_after_ms + self.overlap_ms;
        Some((leaver.id, ServerDraining { reconnect_after_ms, deadline_ms }))
    }

    /// The next one to close, if it was told and its time is over.
    pub(super) fn next_to_close(&mut self, now: Now) -> Option<ConnId> {
        let leaver = self.leavers[..self.told].get(self.passed)?;
        let is_due = leaver.reconnect_ms + self.overlap_ms <= now.monotonic_ms();
        self.passed += usize::from(is_due);
        is_due.then_some(leaver.id)
    }
}

impl DrainPlan {
    /// Clients that one step may close.
    pub(super) fn closes_max(&self) -> u64 {
        self.closes_max
    }

    /// Whether there are clients that were not told yet.
    pub(super) fn has_more_to_tell(&self) -> bool {
        self.told < self.leavers.len()
    }
}

impl Phase {
    /// What the plan takes.
    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::Draining(plan) => allocation_bytes(plan.leavers.capacity() * size_of::<Leaver>()),
            _ => 0,
        }
    }

    /// The plan, if the shard drains.
    pub(super) fn plan(&mut self) -> Option<&mut DrainPlan> {
        match self {
            Self::Draining(plan) => Some(plan),
            _ => None,
        }
    }
}
