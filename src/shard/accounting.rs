//! What the shard and each connection hold in memory, and what happens to a connection that holds
//! too much.
//!
//! A connection's budget bounds what it may take in all: its own state, subscriptions, resumes
//! that wait, waiting frames and incomplete messages, and what the kernel holds for it while it is
//! blocked. Live events have the bounds of the queue, which are part of the budget; events that a
//! client asks for are cut to what the budget leaves, and a resume for which it has no room does
//! not wait; whoever is over it all the same is closed.

use super::census::ShardReport;
use super::drain::Phase;
use super::engine::Shard;
use super::id::ConnId;
use super::memory::ShardMemory;
use super::recent::LoggedEvent;
use super::{Now, Wire};
use crate::heap::allocation_bytes;
use crate::protocol::close::CloseReason;

impl Shard {
    /// What the IO layer holds, for the next report: its own heap, fixed buffers, and the bytes in
    /// the kernel's send queues of blocked connections.
    pub fn note_io(&mut self, io_bytes: usize, fixed_bytes: usize, kernel_send_bytes: usize) {
        self.charged.io = io_bytes;
        self.charged.fixed = fixed_bytes;
        self.charged.kernel_send = kernel_send_bytes;
    }

    /// What the shard holds. Cost: one look at each table.
    pub fn memory(&self) -> ShardMemory {
        ShardMemory {
            connections: self.connections.memory_bytes()
                + self.timers.memory_bytes()
                + self.batches.memory_bytes()
                + self.waiting_resumes.memory_bytes()
                + allocation_bytes(self.catching_up.capacity() * size_of::<ConnId>())
                + self.phase.memory_bytes()
                + allocation_bytes(self.touched.capacity() * size_of::<u32>())
                + allocation_bytes(self.matched.capacity() * size_of::<u32>()),
            subscriptions: self.index.memory_bytes(),
            log: self.log.memory_bytes()
                + self.newest.memory_bytes()
                + LoggedEvent::memory_bytes(self.events_alive.get()),
            fixed: self.charged.fixed + self.scratch_bytes(),
            ..self.charged
        }
    }

    /// Closes a connection that is over its budget; `kernel_bytes` is what the kernel holds for
    /// it. A blocked one is looked at once per tick, the others when something came from them.
    pub fn check_budget(
        &mut self,
        id: ConnId,
        kernel_bytes: usize,
        now: Now,
        wire: &mut impl Wire,
    ) {
        if !self.is_over_budget(id, kernel_bytes) {
            return;
        }
        if let Some(connection) = self.find(id).filter(|connection| connection.is_open()) {
            if let Some(outbox) = &mut connection.outbox {
                outbox.discard_unsent();
            }
            self.stats.budget_closed += 1;
            self.close(id, CloseReason::OverBudget, now);
            self.flush(id, wire);
        }
    }

    pub(super) fn is_over_budget(&self, id: ConnId, kernel_bytes: usize) -> bool {
        self.budget_used(id) + kernel_bytes > self.settings.limits.connection_budget_bytes
    }

    /// What a connection may still ask for.
    pub(super) fn budget_left(&self, id: ConnId) -> usize {
        self.settings.limits.connection_budget_bytes.saturating_sub(self.budget_used(id))
    }

    fn budget_used(&self, id: ConnId) -> usize {
        let connection = self.connections.get(id);
        connection.map_or(0, |connection| {
            connection.budgeted_bytes()
                + self.index.memory_bytes_of(id.index)
                + self.waiting_resumes.memory_bytes_of(id.index)
        })
    }

    /// Charges what a connection has grown since the last time, or releases what it freed.
    pub(super) fn settle(&mut self, index: u32) {
        let connection = &mut self.connections[index];
        let memory = connection.memory();
        let before = std::mem::replace(&mut connection.charged, memory);
        self.charged.settle(before, memory);
    }

    pub(super) fn report(&self) {
        let report = ShardReport {
            stats: self.stats,
            memory: self.memory(),
            connections: self.connections.len(),
            subscriptions: self.index.total(),
            is_draining: !matches!(self.phase, Phase::Serving),
        };
        self.settings.census.report(self.settings.shard, report);
    }
}
