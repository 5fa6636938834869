//! A client that comes back: what it missed is cut from the log in one turn, or it is told why it
//! cannot be.
//!
//! A position that this instance has not reached yet waits for it: another instance may be ahead
//! by a moment. Bounds: [`RESUME_WAIT_MS`], [`WAITING_RESUME_BYTES_MAX`].

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::connection::ConnId;
use super::engine::Shard;
use super::limits::{
    CATCH_UP_EVENTS_MAX, RESUME_WAIT_MS, RESUMES_PER_TURN, WAITING_RESUME_BYTES_MAX,
};
use super::newest::Looks;
use super::recent::{LoggedEvent, Place};
use super::{Now, Wire};
use crate::event::{Position, StreamPos};
use crate::feed::SourceStatus;
use crate::heap::allocation_bytes;
use crate::protocol::command::{CommandId, ResumePoint};
use crate::protocol::message::{ResumeRefusal, ResumeSummary};

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
    deadline_ms: u64,
    bytes: usize,
}

/// All of those of a shard.
#[derive(Debug, Default)]
pub(super) struct WaitingResumes {
    /// By the position that each waits for, and a number that tells them apart.
    by_pos: BTreeMap<(u64, u64), WaitingResume>,
    /// Those that wait no more, to be carried out a few at a time.
    due: VecDeque<WaitingResume>,
    added: u64,
    bytes: usize,
}

impl WaitingResumes {
    fn add(&mut self, pos: u64, waiting: WaitingResume) {
        self.added += 1;
        self.bytes += waiting.bytes;
        self.by_pos.insert((pos, self.added), waiting);
    }

    /// Those that wait for a position up to `pos` wait no more.
    pub(super) fn reached(&mut self, pos: u64) {
        while let Some(first) = self.by_pos.first_entry().filter(|first| first.key().0 <= pos) {
            self.due.push_back(first.remove());
        }
    }

    /// Those whose time is over wait no more.
    pub(super) fn expire(&mut self, now_ms: u64) {
        let over = self.by_pos.extract_if(.., |_, waiting| waiting.deadline_ms <= now_ms);
        self.due.extend(over.map(|(_, waiting)| waiting));
    }

    /// Whether any waits no more.
    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    fn next_due(&mut self) -> Option<WaitingResume> {
        let waiting = self.due.pop_front()?;
        self.bytes -= waiting.bytes;
        Some(waiting)
    }

    /// Heap of them all, as they were counted when they came.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes
    }
}

impl Subscription {
    /// About what it takes while it waits.
    fn memory_bytes(&self) -> usize {
        let texts = self.channels.iter().map(|channel| allocation_bytes(channel.capacity()));
        let epoch = self.resume.as_ref().map_or(0, |point| point.epoch.capacity());
        texts.sum::<usize>()
            + allocation_bytes(self.channels.capacity() * size_of::<String>())
            + allocation_bytes(epoch)
            + 2 * size_of::<WaitingResume>()
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
        if self.waiting_resumes.bytes + bytes > WAITING_RESUME_BYTES_MAX {
            return Some(subscription);
        }
        let deadline_ms = now.monotonic_ms + RESUME_WAIT_MS;
        self.waiting_resumes.add(pos, WaitingResume { id, subscription, deadline_ms, bytes });
        None
    }

    /// Carries out some of the subscriptions that wait no more.
    pub(super) fn resume_waiting(&mut self, now: Now, wire: &mut impl Wire) {
        for _ in 0..RESUMES_PER_TURN {
            let Some(waiting) = self.waiting_resumes.next_due() else { return };
            let WaitingResume { id, subscription, deadline_ms, bytes } = waiting;
            if !self.find(id).is_some_and(|connection| connection.is_open()) {
                continue;
            }
            match &subscription.resume {
                // The epoch came, but not the position.
                Some(point) if now.monotonic_ms < deadline_ms && self.is_ahead(point) => {
                    let pos = point.pos;
                    let waiting = WaitingResume { id, subscription, deadline_ms, bytes };
                    self.waiting_resumes.add(pos, waiting);
                }
                _ => {
                    self.flush_pending(id, wire);
                    self.subscribe(id, &subscription);
                    self.touch_now(id, wire);
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
