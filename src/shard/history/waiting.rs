//! Resumes that wait for a position which this instance has not reached yet: another instance may be
//! ahead by a moment.
//!
//! Bounds: [`RESUME_WAIT_MS`]; [`WAITING_RESUMES_MAX`] of a connection, in its memory budget, and
//! [`WAITING_RESUME_BYTES_MAX`] of all. What a connection has waiting goes with it.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use crate::heap::allocation_bytes;
use crate::protocol::command::{CommandId, ResumePoint};
use crate::shard::id::ConnId;
use crate::shard::limits::{RESUME_WAIT_MS, WAITING_RESUME_BYTES_MAX, WAITING_RESUMES_MAX};

/// A `subscribe` command.
#[derive(Debug)]
pub(crate) struct SubscribeCommand {
    /// Channel names and patterns, not validated yet.
    pub channels: Vec<String>,
    /// Whether the newest event of each is wanted first.
    pub snapshot: bool,
    /// The last position that the client has seen.
    pub resume: Option<ResumePoint>,
    /// The client's name for it.
    pub id: Option<CommandId>,
}

/// One that waits until its position is reached.
#[derive(Debug)]
pub(crate) struct WaitingResume {
    /// The connection that sent it.
    pub id: ConnId,
    /// The command.
    pub command: SubscribeCommand,
    /// The position that it waits for.
    pub pos: u64,
    /// When it waits no more.
    pub deadline_ms: u64,
    bytes: usize,
}

/// All of those of a shard, numbered as they came.
#[derive(Debug, Default)]
pub(crate) struct WaitingResumes {
    /// In the order of their deadlines, too.
    resumes: BTreeMap<u64, WaitingResume>,
    /// The positions that are waited for, each with the number.
    by_pos: BTreeSet<(u64, u64)>,
    /// The connections' indexes, each with the number.
    by_connection: BTreeSet<(u32, u64)>,
    /// Those that wait no more, to be carried out a few at a time.
    due: VecDeque<u64>,
    added: u64,
    bytes: usize,
}

impl WaitingResumes {
    /// Has a command wait, if there is room in the bounds and in the `room` that the connection's
    /// budget leaves.
    ///
    /// # Errors
    /// There is no room: the command is handed back.
    pub(crate) fn wait(
        &mut self,
        waiting: WaitingResume,
        room: usize,
    ) -> Result<(), SubscribeCommand> {
        let has_room = self.bytes + waiting.bytes <= WAITING_RESUME_BYTES_MAX
            && self.numbers_of(waiting.id.index).count() < WAITING_RESUMES_MAX
            && waiting.bytes <= room;
        if !has_room {
            return Err(waiting.command);
        }
        self.added += 1;
        self.insert(self.added, waiting);
        Ok(())
    }

    /// Puts one back that was due too early.
    pub(crate) fn put_back(&mut self, number: u64, waiting: WaitingResume) {
        self.insert(number, waiting);
    }

    fn insert(&mut self, number: u64, waiting: WaitingResume) {
        self.bytes += waiting.bytes;
        self.by_pos.insert((waiting.pos, number));
        self.by_connection.insert((waiting.id.index, number));
        self.resumes.insert(number, waiting);
    }

    fn remove(&mut self, number: u64) -> Option<WaitingResume> {
        let waiting = self.resumes.remove(&number)?;
        self.bytes -= waiting.bytes;
        self.by_pos.remove(&(waiting.pos, number));
        self.by_connection.remove(&(waiting.id.index, number));
        Some(waiting)
    }

    /// Those that wait for a position up to `pos` wait no more.
    pub(crate) fn reached(&mut self, pos: u64) {
        while self.by_pos.first().is_some_and(|first| first.0 <= pos) {
            self.due.extend(self.by_pos.pop_first().map(|(_, number)| number));
        }
    }

    /// Those whose time is over wait no more.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        let over = self.resumes.iter().take_while(|(_, waiting)| waiting.deadline_ms <= now_ms);
        for (number, waiting) in over {
            // It may be due already.
            if self.by_pos.remove(&(waiting.pos, *number)) {
                self.due.push_back(*number);
            }
        }
    }

    /// Whether any waits no more.
    pub(crate) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The next that waits no more, with its number.
    pub(crate) fn next_due(&mut self) -> Option<(u64, WaitingResume)> {
        while let Some(number) = self.due.pop_front() {
            // Its connection may have ended since.
            if let Some(waiting) = self.remove(number) {
                return Some((number, waiting));
            }
        }
        None
    }

    /// Takes channels out of what a connection has waiting; those that were there.
    pub(crate) fn withdraw(&mut self, connection: u32, channels: &[String]) -> HashSet<String> {
        let mut withdrawn = HashSet::new();
        let numbers: Vec<u64> = self.numbers_of(connection).collect();
        if numbers.is_empty() {
            return withdrawn;
        }
        let unwanted: HashSet<&str> = channels.iter().map(String::as_str).collect();
        for number in numbers {
            if let Some(waiting) = self.resumes.get_mut(&number) {
                let wanted = &mut waiting.command.channels;
                withdrawn.extend(wanted.extract_if(.., |it| unwanted.contains(it.as_str())));
            }
        }
        withdrawn
    }

    /// Ends what a connection has waiting, and gives back its memory.
    pub(crate) fn remove_connection(&mut self, connection: u32) {
        let numbers: Vec<u64> = self.numbers_of(connection).collect();
        for number in numbers {
            self.remove(number);
        }
    }

    fn numbers_of(&self, connection: u32) -> impl Iterator<Item = u64> {
        let range = (connection, 0)..=(connection, u64::MAX);
        self.by_connection.range(range).map(|(_, number)| *number)
    }

    /// Heap of them all, as they were counted when they came.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a connection has any waiting.
    pub(crate) fn has_any_of(&self, connection: u32) -> bool {
        self.numbers_of(connection).next().is_some()
    }

    /// Heap of what a connection has waiting.
    pub(crate) fn memory_bytes_of(&self, connection: u32) -> usize {
        self.numbers_of(connection).map(|number| self.resumes[&number].bytes).sum()
    }
}

impl WaitingResume {
    /// A command that waits for `pos` from now on.
    pub(crate) fn new(id: ConnId, command: SubscribeCommand, pos: u64, now_ms: u64) -> Self {
        let bytes = command.memory_bytes();
        Self { id, command, pos, deadline_ms: now_ms + RESUME_WAIT_MS, bytes }
    }
}

impl SubscribeCommand {
    /// About what it takes while it waits. The nodes of the trees that it is in are half empty at
    /// worst.
    fn memory_bytes(&self) -> usize {
        const NUMBERS: usize = 6 * size_of::<u64>();
        let texts = self.channels.iter().map(|channel| allocation_bytes(channel.capacity()));
        let epoch =
            self.resume.as_ref().and_then(|point| point.epoch.as_ref()).map_or(0, String::capacity);
        texts.sum::<usize>()
            + allocation_bytes(self.channels.capacity() * size_of::<String>())
            + allocation_bytes(epoch)
            + 2 * (size_of::<WaitingResume>() + NUMBERS)
    }
}
