//! A client that comes back: what it missed is cut from the log in one turn, or it is told why it
//! cannot be.
//!
//! A position that this instance has not reached yet waits for it: another instance may be ahead
//! by a moment. Bounds: [`RESUME_WAIT_MS`], [`WAITING_RESUME_BYTES_MAX`].

use std::rc::Rc;

use super::Now;
use super::connection::ConnId;
use super::engine::Shard;
use super::limits::{CATCH_UP_EVENTS_MAX, RESUME_WAIT_MS, WAITING_RESUME_BYTES_MAX};
use super::newest::Looks;
use super::recent::{LoggedEvent, Place};
use crate::event::{Position, StreamPos};
use crate::feed::SourceStatus;
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
}

/// All of those of a shard.
#[derive(Debug, Default)]
pub(super) struct WaitingResumes {
    resumes: Vec<WaitingResume>,
    bytes: usize,
}

impl Subscription {
    /// About what it takes while it waits.
    fn memory_bytes(&self) -> usize {
        let texts: usize = self.channels.iter().map(|channel| channel.capacity() + 48).sum();
        texts + size_of::<WaitingResume>() + 128
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
        let bytes = self.waiting_resumes.bytes + subscription.memory_bytes();
        let is_early = subscription.resume.as_ref().is_some_and(|point| self.is_ahead(point));
        if !is_early || bytes > WAITING_RESUME_BYTES_MAX {
            return Some(subscription);
        }
        self.waiting_resumes.bytes = bytes;
        let deadline_ms = now.monotonic_ms + RESUME_WAIT_MS;
        self.waiting_resumes.resumes.push(WaitingResume { id, subscription, deadline_ms });
        None
    }

    /// Carries out the subscriptions whose position has been reached, or that waited too long.
    pub(super) fn resume_waiting(&mut self, now: Now) {
        if self.waiting_resumes.resumes.is_empty() {
            return;
        }
        for waiting in std::mem::take(&mut self.waiting_resumes).resumes {
            let WaitingResume { id, subscription, deadline_ms } = waiting;
            let is_early = subscription.resume.as_ref().is_some_and(|point| self.is_ahead(point));
            if !self.find(id).is_some_and(|connection| connection.is_open()) {
                continue;
            }
            if is_early && now.monotonic_ms < deadline_ms {
                self.waiting_resumes.bytes += subscription.memory_bytes();
                let waiting = WaitingResume { id, subscription, deadline_ms };
                self.waiting_resumes.resumes.push(waiting);
            } else {
                self.subscribe(id, &subscription);
                self.touch(id.index);
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
