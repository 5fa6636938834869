//! What drives a simulated shard: bytes, time, and sockets that take bytes again.

use super::world::World;
use crate::shard::ConnId;
use crate::shard::accounting::{budget_left, budget_used};

impl World {
    /// Bytes come from a client: they are read when the shard wants to.
    pub(super) fn receive(&mut self, id: ConnId, bytes: &mut [u8]) {
        if let Some(unread) = self.wire.unread.get_mut(&id) {
            unread.extend_from_slice(bytes);
        } else if self.shard.wants_read(id) {
            self.shard.receive(id, bytes, self.now, &mut self.wire);
        } else {
            self.wire.unread.insert(id, bytes.to_vec());
        }
    }

    /// Reads what was left unread of those that the shard wants to read again.
    pub(super) fn read_on(&mut self) {
        while let Some(id) = self.wire.resumed.pop() {
            let mut unread = self.wire.unread.remove(&id).unwrap_or_default();
            self.receive(id, &mut unread);
        }
    }

    /// Time passes.
    pub(super) fn pass(&mut self, elapsed_ms: u64) {
        self.now.monotonic_us += elapsed_ms * 1_000;
        self.now.unix_ms += elapsed_ms;
    }

    /// The shard looks at its deadlines and does what they ask for.
    pub(super) fn tick(&mut self) {
        self.shard.tick(self.now);
        self.flush();
    }

    /// The socket of a client takes bytes again.
    pub(super) fn writable(&mut self, id: ConnId) {
        self.shard.writable(id, self.now, &mut self.wire);
        self.read_on();
    }

    pub(super) fn is_alive(&self, id: ConnId) -> bool {
        self.shard.connections.get(id).is_some()
    }

    /// What a client may still ask for.
    pub(super) fn budget_left(&self, id: ConnId) -> usize {
        let shard = &self.shard;
        let connection = shard.connections.get(id).unwrap();
        budget_left(connection, &shard.index, &shard.waiting, &shard.settings.limits)
    }

    pub(super) fn is_over_budget(&self, id: ConnId) -> bool {
        let connection = self.shard.connections.get(id).unwrap();
        let used = budget_used(connection, &self.shard.index, &self.shard.waiting);
        used > self.shard.settings.limits.connection_budget_bytes
    }
}
