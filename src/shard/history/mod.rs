//! The stream's memory: what was published lately, and what may be claimed of it.
//!
//! ```text
//! logged   an event in the shard's hands
//! recent   the recent log, and what came after a position
//! newest   the newest event of each channel
//! waiting  resumes that wait for a position
//! ```
//!
//! [`History`] owns the epoch, the log, the newest events and the state of the source. What a client
//! missed is a pure function of it. Bounds: those of its parts.
//!
//! # What a claim rests on
//!
//! The source reads every position of its stream, and proves it: `ingest/tracker.rs` names how. What
//! it cannot prove it says before anything that follows, as a loss. Here each claim to a client rests
//! on that, and on one thing more:
//!
//! | claim | proof |
//! |---|---|
//! | `recovered:true` | the log holds the message at the position, with the same store time, or the source proved it to be the one before the log's first; no loss since; none that clients were not told of |
//! | `prev` | the message before it on the channel came in this life, after the last loss, and no loss is untold (the publisher keeps it) |
//! | a heartbeat's `position` | it was taken by this shard, everything up to it was sent before the answer, and no loss is untold |
//! | `complete:true` | the source gave the newest of every channel since the last loss, none was forgotten, and of none is it doubtful; or the channels are named, and each is held and not doubtful |

mod logged;
mod newest;
mod recent;
mod waiting;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use self::newest::NewestEvents;
use self::recent::{Place, RecentLog};
use super::limits::Limits;
use super::scan_budget::ScanBudget;
use crate::channel::Pattern;
use crate::clock::Now;
use crate::event::Event;
use crate::feed::SourceStatus;
use crate::position::{Base, Epoch, Kept, Position, StreamPos};
use crate::protocol::command::ResumePoint;
use crate::protocol::message::{ReachedPosition, ResumeRefusal, ServerMessage, SourceState};

pub(super) use logged::LoggedEvent;
pub(super) use waiting::{SubscribeCommand, WaitingResume, WaitingResumes};

#[cfg(test)]
pub(super) use logged::tests;

/// The reason of a `resync` within an epoch.
const HISTORY_LOST: &str = "history_lost";

/// What a client missed, in the order of the stream, or why it cannot be given.
pub(super) type ResumeOutcome = Result<Vec<Rc<LoggedEvent>>, ResumeRefusal>;

/// What a shard remembers of the stream.
#[derive(Debug)]
pub(super) struct History {
    log: RecentLog,
    newest: NewestEvents,
    epoch: Option<Epoch>,
    source: SourceStatus,
    /// Events taken, which names each one.
    taken: u64,
    /// How many events had been taken at the first loss that clients were not told of.
    untold_since: Option<u64>,
    kept: Kept,
    /// How many events the shard holds, wherever.
    alive: Rc<Cell<usize>>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            log: RecentLog::default(),
            newest: NewestEvents::default(),
            epoch: None,
            source: SourceStatus::Connecting,
            taken: 0,
            untold_since: None,
            kept: Kept::All,
            alive: Rc::default(),
        }
    }
}

impl History {
    /// Takes in a published event; hands it back with its number.
    pub(super) fn take(
        &mut self,
        event: Arc<Event>,
        now: Now,
        limits: &Limits,
    ) -> (u64, Rc<LoggedEvent>) {
        let event = Rc::new(LoggedEvent::new(event, &self.alive));
        self.log.push(&event, now.monotonic_ms(), limits);
        self.newest.update(&event);
        self.taken += 1;
        (self.taken, event)
    }

    /// Begins anew, in an epoch of which `base` is known; returns what clients are to be told if
    /// there was another before: the reason of a `resync`.
    pub(super) fn begin(&mut self, epoch: Epoch, base: Base) -> Option<&'static str> {
        self.log = RecentLog::new(base);
        self.newest = NewestEvents::default();
        self.untold_since = None;
        let is_same = self.epoch.as_ref() == Some(&epoch);
        let before = self.epoch.replace(epoch);
        before.map(|_| if is_same { HISTORY_LOST } else { "stream_recreated" })
    }

    /// Messages may be missing before what follows, of which `base` is known. Nothing is claimed of
    /// what was before any more; nothing at all until clients are told.
    pub(super) fn lose(&mut self, base: Base) {
        self.log = self.log.after_loss(base);
        self.newest.doubt();
        self.untold_since.get_or_insert(self.taken);
    }

    /// Clients are told of the losses so far; returns the reason of the `resync`. `was_served` says
    /// whether a client may have been sent anything since the first of them: it does not know what
    /// is missing before that.
    pub(super) fn tell(&mut self, was_served: bool) -> &'static str {
        if let Some(taken) = self.untold_since.take()
            && taken != self.taken
            && was_served
        {
            let whole_from = StreamPos(self.log.newest().pos.0 + 1);
            self.log = self.log.after_loss(Base { after: None, whole_from });
        }
        HISTORY_LOST
    }

    /// The newest event of a channel, read again.
    pub(super) fn confirm_newest(&mut self, event: Arc<Event>) {
        self.newest.confirm(&Rc::new(LoggedEvent::new(event, &self.alive)));
    }

    /// The newest event of every channel was given.
    pub(super) fn set_newest_given(&mut self) {
        self.newest.set_given();
    }

    /// Sets how many messages of each channel the stream keeps.
    pub(super) fn set_kept(&mut self, kept: Kept) {
        self.kept = kept;
    }

    /// How many messages of each channel the stream keeps; `None` for as many as its other limits
    /// allow.
    pub(super) fn kept_per_channel(&self) -> Option<u64> {
        match self.kept {
            Kept::All => None,
            Kept::PerChannel(count) => Some(count),
        }
    }

    /// Sets how the source is doing; whether it was or is live and that has changed.
    pub(super) fn set_source(&mut self, status: SourceStatus) -> bool {
        let before = std::mem::replace(&mut self.source, status);
        (before == SourceStatus::Live) != (status == SourceStatus::Live)
    }

    /// Forgets some of what is too old.
    pub(super) fn expire(&mut self, now: Now, limits: &Limits) {
        self.log.expire(now.monotonic_ms(), limits);
    }

    /// How the source is doing.
    pub(super) fn source(&self) -> SourceStatus {
        self.source
    }

    /// The stream's life; `None` before the first contact.
    pub(super) fn epoch(&self) -> Option<&str> {
        self.epoch.as_ref().map(|epoch| &*epoch.0)
    }

    /// The newest position of the epoch.
    pub(super) fn newest_position(&self) -> Position {
        self.log.newest()
    }

    /// The newest position with its epoch, if there is one, and clients know of every loss before.
    pub(super) fn reached(&self) -> Option<ReachedPosition<'_>> {
        if self.untold_since.is_some() {
            return None;
        }
        let Position { pos, ts_ms } = self.log.newest();
        let epoch = self.epoch().filter(|_| pos.0 > 0)?;
        Some(ReachedPosition { epoch, pos: pos.0, ts: ts_ms })
    }

    /// How the source is doing, as a message.
    pub(super) fn source_message(&self, now: Now) -> ServerMessage<'_> {
        let newest = self.log.newest();
        let (pos, ts) = (newest.pos.0, newest.ts_ms);
        let state = SourceState { epoch: self.epoch(), pos, ts, server_time: now.unix_ms };
        match self.source {
            SourceStatus::Live => ServerMessage::SourceLive(state),
            _ => ServerMessage::SourceStale(state),
        }
    }

    /// Whether the position is one that this instance may still reach.
    pub(super) fn is_ahead(&self, point: &ResumePoint) -> bool {
        let Some(wanted) = &point.epoch else { return false };
        self.epoch().is_none_or(|epoch| epoch == wanted && self.place(point) == Place::Ahead)
    }

    /// Whether the log has forgotten the event of this position.
    pub(super) fn has_forgotten(&self, pos: u64) -> bool {
        self.log.has_forgotten(pos)
    }

    /// What was published on `channels` after `point`, each event once and in order.
    ///
    /// # Errors
    /// Why it cannot be given whole: the position is not proved, or there are more than `events_max`
    /// or than `budget` allows to look at.
    pub(super) fn missed(
        &self,
        channels: &[Pattern],
        point: &ResumePoint,
        events_max: usize,
        budget: &mut ScanBudget,
    ) -> ResumeOutcome {
        let first = self.first_after(point)?;
        let mut missed: Vec<Rc<LoggedEvent>> = Vec::new();
        for pattern in channels {
            self.log.for_each_from(first, pattern, budget, |event| {
                missed.push(Rc::clone(event));
                // Patterns may overlap: twice as many are counted when each is there once.
                missed.len() <= 2 * events_max
            });
            if budget.is_exceeded() {
                return Err(ResumeRefusal::TooManyMessages);
            }
            if missed.len() > events_max {
                put_in_order(&mut missed);
                if missed.len() > events_max {
                    return Err(ResumeRefusal::TooManyMessages);
                }
            }
        }
        put_in_order(&mut missed);
        Ok(missed)
    }

    /// Calls `each` with the newest events of the channels that `pattern` matches; whether they are
    /// known to be the newest, and all.
    pub(super) fn for_each_newest(
        &self,
        pattern: &Pattern,
        budget: &mut ScanBudget,
        each: impl FnMut(&Rc<LoggedEvent>, &mut ScanBudget),
    ) -> bool {
        self.newest.for_each_match(pattern, budget, each) && self.untold_since.is_none()
    }

    /// Heap of the log and of everything in it, without payloads.
    pub(super) fn memory_bytes(&self) -> usize {
        self.log.memory_bytes()
            + self.newest.memory_bytes()
            + LoggedEvent::memory_bytes(self.alive.get())
    }

    /// Events that are held anywhere in the shard.
    #[cfg(test)]
    pub(crate) fn events_alive(&self) -> usize {
        self.alive.get()
    }

    /// Messages in the recent log.
    #[cfg(test)]
    pub(crate) fn log_messages(&self) -> usize {
        self.log.len()
    }

    /// The number of the first entry of the log after `point`.
    fn first_after(&self, point: &ResumePoint) -> Result<u64, ResumeRefusal> {
        let Some(wanted) = &point.epoch else { return Err(ResumeRefusal::NotProvable) };
        if self.epoch().is_some_and(|epoch| epoch != wanted) {
            return Err(ResumeRefusal::EpochChanged);
        }
        if self.untold_since.is_some() {
            return Err(ResumeRefusal::NotProvable);
        }
        match (self.place(point), self.source) {
            (Place::NotProvable, _) => Err(ResumeRefusal::NotProvable),
            (Place::Before(first), _) => Ok(first),
            (Place::TooOld, _) => Err(ResumeRefusal::PositionTooOld),
            (Place::Other, _) => Err(ResumeRefusal::PositionMismatch),
            (Place::Ahead, SourceStatus::Connecting | SourceStatus::Loading) => {
                Err(ResumeRefusal::Loading)
            }
            (Place::Ahead, SourceStatus::Live | SourceStatus::Stale) => {
                Err(ResumeRefusal::PositionUnknown)
            }
        }
    }

    fn place(&self, point: &ResumePoint) -> Place {
        self.log.place_of(Position { pos: StreamPos(point.pos), ts_ms: point.ts })
    }
}

/// Puts events in the order of the stream, each once.
pub(super) fn put_in_order(events: &mut Vec<Rc<LoggedEvent>>) {
    events.sort_by_key(|event| event.pos());
    events.dedup_by_key(|event| event.pos());
}
