//! How a shard's clients leave before it ends: `/ready` fails first, then everybody is told when
//! to connect again, each at another moment, and closed a little later.
//!
//! The moments are spread evenly over [`SPREAD_TENTHS`] of the drain, and a connection lives on
//! for [`OVERLAP_TENTHS`] after its own, in which a client can go on elsewhere before it drops
//! this one. Bounds: [`TOLD_PER_STEP`] clients are told in a step of the caller, and no more are
//! closed than [`CATCH_UP`] steps' share; the plan takes 16 bytes per client.

use super::connection::State;
use super::engine::Shard;
use super::id::ConnId;
use super::jitter::{Spread, jitter};
use super::{Now, Wire};
use crate::heap::allocation_bytes;
use crate::protocol::close::CloseReason;
use crate::protocol::message::{ServerDraining, ServerMessage};

/// How often [`Shard::drain`] is to be called, in milliseconds.
pub const DRAIN_STEP_MS: u64 = 50;

/// Clients told in one step: about 10 ms of work.
const TOLD_PER_STEP: usize = 1_024;

/// Shares that one step closes at most, if the steps before it came late.
const CATCH_UP: u64 = 2;

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
    fn new(clients: &[(ConnId, u64)], shard: usize, window_ms: u64, now: Now) -> Self {
        let total = clients.len() as u64;
        let spread_us = window_ms * 1_000 * SPREAD_TENTHS / 10;
        let stretch_us = spread_us / total.max(1);
        let leavers = (0..).zip(clients).map(|(rank, &(id, number))| {
            let place_us = jitter(stretch_us, Spread::Drain, shard, number);
            let after_ms = (rank * spread_us / total + place_us) / 1_000;
            Leaver { id, reconnect_ms: now.monotonic_ms + after_ms }
        });
        let share = (total * DRAIN_STEP_MS * 1_000).div_ceil(spread_us.max(1));
        Self {
            leavers: leavers.collect(),
            told: 0,
            passed: 0,
            overlap_ms: window_ms * OVERLAP_TENTHS / 10,
            closes_max: (CATCH_UP * share).max(1),
        }
    }

    /// The next one to tell: how long it has until it should connect again, and until it is closed.
    fn next_to_tell(&mut self, now: Now) -> Option<(ConnId, u64, u64)> {
        let leaver = self.leavers.get(self.told)?;
        self.told += 1;
        let reconnect_after_ms = leaver.reconnect_ms.saturating_sub(now.monotonic_ms);
        Some((leaver.id, reconnect_after_ms, reconnect_after_ms + self.overlap_ms))
    }

    /// The next one to close, if it was told and its time is over.
    fn next_to_close(&mut self, now: Now) -> Option<ConnId> {
        let leaver = self.leavers[..self.told].get(self.passed)?;
        let is_due = leaver.reconnect_ms + self.overlap_ms <= now.monotonic_ms;
        self.passed += usize::from(is_due);
        is_due.then_some(leaver.id)
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

    fn plan(&mut self) -> Option<&mut DrainPlan> {
        match self {
            Self::Draining(plan) => Some(plan),
            _ => None,
        }
    }
}

impl Shard {
    /// `/ready` fails from now on; everything else goes on.
    pub fn retire(&mut self) {
        self.phase = Phase::Retiring;
    }

    /// Has all clients leave within `window_ms`: [`Self::drain`] does, step by step. What is not
    /// upgraded yet is ended at once. The caller listens no more.
    pub fn begin_drain(&mut self, window_ms: u64, now: Now, wire: &mut impl Wire) {
        let (mut clients, mut handshakes) = (Vec::new(), Vec::new());
        for connection in self.connections.iter() {
            match connection.state {
                State::Open => clients.push((connection.id, connection.number)),
                State::Handshake { .. } => handshakes.push(connection.id),
                State::Closing | State::Finishing { .. } => {}
            }
        }
        for id in handshakes {
            self.abort(id, wire);
        }
        for &(id, _) in &clients {
            self.stop_ageing(id);
        }
        let plan = DrainPlan::new(&clients, self.settings.shard, window_ms, now);
        self.phase = Phase::Draining(plan);
    }

    /// One step of a drain, every [`DRAIN_STEP_MS`]; at once again if it returns that there are
    /// more clients to tell.
    pub fn drain(&mut self, now: Now, wire: &mut impl Wire) -> bool {
        for _ in 0..TOLD_PER_STEP {
            let next = self.phase.plan().and_then(|plan| plan.next_to_tell(now));
            let Some((id, reconnect_after_ms, deadline_ms)) = next else { break };
            self.tell_leaving(id, ServerDraining { reconnect_after_ms, deadline_ms }, wire);
        }
        let mut left = self.phase.plan().map_or(0, |plan| plan.closes_max);
        while left > 0
            && let Some(id) = self.phase.plan().and_then(|plan| plan.next_to_close(now))
        {
            if self.close_leaving(id, CloseReason::Restarting, now, wire) {
                self.stats.drain_closed += 1;
                left -= 1;
            }
        }
        self.phase.plan().is_some_and(|plan| plan.told < plan.leavers.len())
    }

    /// Tells a client, if it is still there, that it is to leave.
    pub(super) fn tell_leaving(&mut self, id: ConnId, when: ServerDraining, wire: &mut impl Wire) {
        self.flush_pending(id, wire);
        if self.find(id).is_some_and(|connection| connection.is_open()) {
            self.answer(id, &ServerMessage::ServerDraining(when));
            self.flush(id, wire);
        }
    }

    /// Closes a client that was told to leave; whether it was still there.
    pub(super) fn close_leaving(
        &mut self,
        id: ConnId,
        reason: CloseReason,
        now: Now,
        wire: &mut impl Wire,
    ) -> bool {
        self.flush_pending(id, wire);
        let is_open = self.find(id).is_some_and(|connection| connection.is_open());
        if is_open {
            self.close(id, reason, now);
            self.flush(id, wire);
        }
        is_open
    }

    /// Closes what is open, with 1001, and ends what is not upgraded yet. The caller listens no more.
    pub fn shut_down(&mut self, now: Now, wire: &mut impl Wire) {
        let ids: Vec<ConnId> = self.connections.iter().map(|connection| connection.id).collect();
        for id in ids {
            if let Some(State::Handshake { .. }) = self.find(id).map(|it| &it.state) {
                self.abort(id, wire);
            } else {
                self.close_leaving(id, CloseReason::ShuttingDown, now, wire);
            }
        }
    }

    /// Ends what is left at once.
    pub fn abort_all(&mut self, wire: &mut impl Wire) {
        let ids: Vec<ConnId> = self.connections.iter().map(|connection| connection.id).collect();
        for id in ids {
            self.abort(id, wire);
        }
    }
}
