//! What a shard's memory is made of, in bytes as the allocator counts them.
//!
//! The tables of the shard are counted from their capacity when a report is made. What belongs to
//! one connection and grows and shrinks (queue, replay ring, partial messages) is charged to the
//! shard where it changes: a connection knows what it was charged, and [`super::Shard`] settles
//! the difference at the end of every call that may have changed it. Payloads are shared by all
//! shards and counted once in the process, by [`crate::event::payload_bytes`].

/// What one connection takes beside its place in the tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ConnectionMemory {
    /// Frames that wait, and the queue that holds them; not the payloads, which are shared.
    pub queue: u32,
    /// References to the events that `replay` may ask for.
    pub replay: u32,
    /// The request head, or a message that is incomplete.
    pub partial: u32,
}

impl ConnectionMemory {
    /// The sum.
    pub(super) fn total(&self) -> usize {
        self.queue as usize + self.replay as usize + self.partial as usize
    }
}

/// What a shard holds, by class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardMemory {
    /// The table of connections and their timers.
    pub connections: usize,
    /// Sockets and tasks of the IO layer.
    pub io: usize,
    /// The subscription index.
    pub subscriptions: usize,
    /// Waiting frames of all connections.
    pub queue: usize,
    /// Replay rings of all connections.
    pub replay: usize,
    /// Incomplete requests and messages of all connections.
    pub partial: usize,
    /// The recent log and the newest events, without the payloads.
    pub log: usize,
    /// Scratch buffers, and the queue from the source.
    pub fixed: usize,
    /// Bytes in the kernel's send queues of blocked connections; not in the process's memory.
    pub kernel_send: usize,
}

impl ShardMemory {
    /// Every class with its name, as metrics have it.
    pub fn classes(&self) -> [(&'static str, usize); 9] {
        [
            ("connections", self.connections),
            ("io", self.io),
            ("subscriptions", self.subscriptions),
            ("queue", self.queue),
            ("replay", self.replay),
            ("partial", self.partial),
            ("log", self.log),
            ("fixed", self.fixed),
            ("kernel_send", self.kernel_send),
        ]
    }

    /// Bytes of the process's own memory.
    pub fn user_bytes(&self) -> usize {
        self.classes().iter().map(|(_, bytes)| bytes).sum::<usize>() - self.kernel_send
    }

    pub(super) fn settle(&mut self, before: ConnectionMemory, after: ConnectionMemory) {
        self.queue = self.queue + after.queue as usize - before.queue as usize;
        self.replay = self.replay + after.replay as usize - before.replay as usize;
        self.partial = self.partial + after.partial as usize - before.partial as usize;
    }
}
