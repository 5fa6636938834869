//! A client that comes back: what it missed is cut from the log in one turn, or it is told why it
//! cannot be.
//!
//! A position that this instance has not reached yet waits for it: another instance may be ahead
//! by a moment. Bounds: [`RESUME_WAIT_MS`]; [`WAITING_RESUMES_MAX`] of a connection, in its memory
//! budget, and [`WAITING_RESUME_BYTES_MAX`] of all. What a connection has waiting goes with it.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::rc::Rc;

use super::engine::Shard;
use super::id::ConnId;
use super::limits::{
    CATCH_UP_EVENTS_MAX, RESUME_WAIT_MS, RESUMES_PER_TURN, WAITING_RESUME_BYTES_MAX,
    WAITING_RESUMES_MAX,
};
use super::newest::Looks;
use super::recent::{LoggedEvent, Place};
use super::{Now, Wire};
use crate::feed::SourceStatus;
use crate::heap::allocation_bytes;
use crate::position::{Position, StreamPos};
use crate::protocol::command::{CommandId, ResumePoint};
use crate::protocol::message::{ReachedPosition, ResumeRefusal, ResumeSummary};

/// A `subscribe` command.
#[derive(Debug)]
pub(super) struct Subscription {
    pub channels: Vec<String>,
    pub snapshot: bool,
    pub resume: Option<ResumePoint>,
    pub command_id: Option<CommandId>,
}

/// One that waits until its position is reached.
#[derive(Debug)]
struct WaitingResume {
    id: ConnId,
    subscription: Subscription,
    pos: u64,
    deadline_ms: u64,
    bytes: usize,
}

/// All of those of a shard, numbered as they came.
#[derive(Debug, Default)]
pub(super) struct WaitingResumes {
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
    fn add(&mut self, waiting: WaitingResume) {
        self.added += 1;
        self.insert(self.added, waiting);
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
    pub(super) fn reached(&mut self, pos: u64) {
        while self.by_pos.first().is_some_and(|first| first.0 <= pos) {
            self.due.extend(self.by_pos.pop_first().map(|(_, number)| number));
        }
    }

    /// Those whose time is over wait no more.
    pub(super) fn expire(&mut self, now_ms: u64) {
        let over = self.resumes.iter().take_while(|(_, waiting)| waiting.deadline_ms <= now_ms);
        for (number, waiting) in over {
            // It may be due already.
            if self.by_pos.remove(&(waiting.pos, *number)) {
                self.due.push_back(*number);
            }
        }
    }

    /// Whether any waits no more.
    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    fn next_due(&mut self) -> Option<(u64, WaitingResume)> {
        while let Some(number) = self.due.pop_front() {
            // Its connection may have ended since.
            if let Some(waiting) = self.remove(number) {
                return Some((number, waiting));
            }
        }
        None
    }

    /// Takes channels out of what a connection has waiting; those that were there.
    pub(super) fn withdraw(&mut self, connection: u32, channels: &[String]) -> HashSet<String> {
        let mut withdrawn = HashSet::new();
        let numbers: Vec<u64> = self.numbers_of(connection).collect();
        if numbers.is_empty() {
            return withdrawn;
        }
        let unwanted: HashSet<&str> = channels.iter().map(String::as_str).collect();
        for number in numbers {
            if let Some(waiting) = self.resumes.get_mut(&number) {
                let wanted = &mut waiting.subscription.channels;
                withdrawn.extend(wanted.extract_if(.., |it| unwanted.contains(it.as_str())));
            }
        }
        withdrawn
    }

    /// Ends what a connection has waiting, and gives back its memory.
    pub(super) fn remove_connection(&mut self, connection: u32) {
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
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a connection has any waiting.
    fn has_any_of(&self, connection: u32) -> bool {
        self.numbers_of(connection).next().is_some()
    }

    /// Heap of what a connection has waiting.
    pub(super) fn memory_bytes_of(&self, connection: u32) -> usize {
        self.numbers_of(connection).map(|number| self.resumes[&number].bytes).sum()
    }
}

impl Subscription {
    /// About what it takes while it waits. The nodes of the trees that it is in are half empty at
    /// worst.
    fn memory_bytes(&self) -> usize {
        const NUMBERS: usize = 6 * size_of::<u64>();
        let texts = self.channels.iter().map(|channel| allocation_bytes(channel.capacity()));
        let epoch = self.resume.as_ref().map_or(0, |point| point.epoch.capacity());
        texts.sum::<usize>()
            + allocation_bytes(self.channels.capacity() * size_of::<String>())
            + allocation_bytes(epoch)
            + 2 * (size_of::<WaitingResume>() + NUMBERS)
    }
}

/// What became of a resume.
pub(super) type Cut = Result<Vec<Rc<LoggedEvent>>, ResumeRefusal>;

/// A cut as the answer has it.
pub(super) fn summary(cut: &Cut) -> ResumeSummary {
    match cut {
        Ok(missed) => ResumeSummary::Recovered { messages: missed.len() },
        Err(reason) => ResumeSummary::Refused { reason: *reason, message: reason.text().into() },
    }
}

impl Shard {
    /// Keeps a subscription whose position is not reached yet; hands it back if there is nothing
    /// to wait for.
    pub(super) fn wait_to_resume(
        &mut self,
        id: ConnId,
        subscription: Subscription,
        now: Now,
    ) -> Option<Subscription> {
        let pos = match &subscription.resume {
            Some(point) if self.is_ahead(point) => point.pos,
            _ => return Some(subscription),
        };
        let bytes = subscription.memory_bytes();
        let waiting = &self.waiting_resumes;
        let has_room = waiting.bytes + bytes <= WAITING_RESUME_BYTES_MAX
            && waiting.numbers_of(id.index).count() < WAITING_RESUMES_MAX
            && bytes <= self.budget_left(id);
        if !has_room {
            return Some(subscription);
        }
        let deadline_ms = now.monotonic_ms + RESUME_WAIT_MS;
        self.waiting_resumes.add(WaitingResume { id, subscription, pos, deadline_ms, bytes });
        None
    }

    /// Carries out some of the subscriptions that wait no more.
    pub(super) fn resume_waiting(&mut self, now: Now, wire: &mut impl Wire) {
        for _ in 0..RESUMES_PER_TURN {
            let Some((number, waiting)) = self.waiting_resumes.next_due() else { return };
            match &waiting.subscription.resume {
                // The epoch came, but not the position.
                Some(point) if now.monotonic_ms < waiting.deadline_ms && self.is_ahead(point) => {
                    self.waiting_resumes.insert(number, waiting);
                }
                _ => {
                    let WaitingResume { id, subscription, .. } = waiting;
                    self.flush_pending(id, wire);
                    // That may have ended the connection.
                    if self.find(id).is_some_and(|connection| connection.is_open()) {
                        self.subscribe(id, &subscription);
                        self.touch_now(id, wire);
                    }
                }
            }
        }
    }

    /// Whether the position is one that this instance may still reach.
    fn is_ahead(&self, point: &ResumePoint) -> bool {
        match &self.epoch {
            None => true,
            Some(epoch) => *epoch.0 == *point.epoch && self.place(point) == Place::Ahead,
        }
    }

    /// The newest position, if what is sent next comes behind everything up to it that the
    /// connection is to have.
    pub(super) fn reached(&self, id: ConnId) -> Option<ReachedPosition<'_>> {
        let newest = self.log.newest();
        let epoch = self.epoch.as_ref().filter(|_| newest.pos.0 > 0)?;
        let connection = self.connections.get(id)?;
        let has_all = connection.catch_up.is_none()
            && connection.drops_in_row == 0
            && !self.waiting_resumes.has_any_of(id.index);
        let Position { pos, ts_ms } = newest;
        has_all.then_some(ReachedPosition { epoch: &epoch.0, pos: pos.0, ts: ts_ms })
    }

    fn place(&self, point: &ResumePoint) -> Place {
        self.log.place_of(Position { pos: StreamPos(point.pos), ts_ms: point.ts })
    }

    /// What a client that subscribes to `channels` has missed since `point`, in order. To be
    /// called before it is subscribed.
    pub(super) fn cut(
        &mut self,
        id: ConnId,
        channels: &[String],
        point: &ResumePoint,
        looks: &mut Looks,
    ) -> Cut {
        let cut = self.find_missed(id, channels, point, looks);
        match &cut {
            Ok(missed) => {
                self.stats.resumed += 1;
                self.stats.resumed_messages += missed.len() as u64;
            }
            Err(reason) => self.stats.not_resumed[*reason as usize] += 1,
        }
        cut
    }

    fn find_missed(
        &self,
        id: ConnId,
        channels: &[String],
        point: &ResumePoint,
        looks: &mut Looks,
    ) -> Cut {
        if self.epoch.as_ref().is_some_and(|epoch| *epoch.0 != *point.epoch) {
            return Err(ResumeRefusal::EpochChanged);
        }
        let first = match self.place(point) {
            Place::Before(first) => first,
            Place::TooOld => return Err(ResumeRefusal::PositionTooOld),
            Place::Other => return Err(ResumeRefusal::PositionMismatch),
            Place::Ahead => match self.source {
                SourceStatus::Connecting | SourceStatus::Loading => {
                    return Err(ResumeRefusal::Loading);
                }
                SourceStatus::Live | SourceStatus::Stale => {
                    return Err(ResumeRefusal::PositionUnknown);
                }
            },
        };
        let room = CATCH_UP_EVENTS_MAX.saturating_sub(self.catch_up_events.get());
        let events_max = self.settings.limits.client.resume_messages.min(room);
        let mut missed: Vec<Rc<LoggedEvent>> = Vec::new();
        for channel in channels {
            let Ok(pattern) = self.parse_allowed(channel) else { continue };
            self.log.for_each_from(first, &pattern, looks, |event| {
                missed.push(Rc::clone(event));
                // Patterns may overlap: twice as many are counted when each is there once.
                missed.len() <= 2 * events_max
            });
            if looks.is_exceeded() {
                return Err(ResumeRefusal::TooManyMessages);
            }
            if missed.len() > events_max {
                order(&mut missed);
                if missed.len() > events_max {
                    return Err(ResumeRefusal::TooManyMessages);
                }
            }
        }
        order(&mut missed);
        let was_sent =
            |event: &Rc<LoggedEvent>| self.index.has_match(id.index, event.event().channel());
        if self.index.count_of(id.index) > 0 && missed.iter().any(was_sent) {
            return Err(ResumeRefusal::AlreadySubscribed);
        }
        Ok(missed)
    }
}

/// In the order of the stream, each once.
fn order(missed: &mut Vec<Rc<LoggedEvent>>) {
    missed.sort_by_key(|event| event.pos());
    missed.dedup_by_key(|event| event.pos());
}
