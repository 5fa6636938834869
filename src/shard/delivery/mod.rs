//! The way out of one connection: what is sent next, and what waits.
//!
//! ```text
//! outbox   frames that wait: answers, and events of a socket that is full
//! replay   the last events by seq; what is not sent yet of a socket that is not full
//! backlog  what a resume found, sent in portions
//! frames   frames to the bytes of one send
//! ```
//!
//! [`Delivery`] owns all of it. It knows no shard, no socket and no name of its connection: events
//! and answers go in, [`Delivery::fill`] says what to send, and the caller tells what became of it.
//! Bounds: those of its parts; until the socket has its turn, as many events as the replay ring
//! holds wait, and so many may be left when a connection ends.
//!
//! Events go out by `seq`, none before those below it: a client takes the newest event that it has
//! for its position, and resumes behind it. So nothing that has a `seq` is left out until the
//! connection is closed.

mod backlog;
mod frames;
mod outbox;
mod replay;

use std::cell::Cell;
use std::rc::Rc;

use self::backlog::Backlog;
use self::frames::{Frame, SEND_BYTES_MAX};
use self::outbox::Outbox;
use self::replay::ReplayRing;
use super::history::LoggedEvent;
use super::limits::{
    ANSWER_BYTES_PAUSE, BACKLOG_LIVE_MAX, ClientLimits, FRAMES_PER_SEND, POSTPONED_MAX,
    QUEUED_EVENT_BYTES,
};
use crate::clock::Now;
use crate::protocol::dialect::Dialect;

pub(super) use frames::{Encoder, SendBuffer, event_frame_bytes};

/// What becomes of an event that is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    /// Nothing: it was offered before, or the connection ends.
    Ignored,
    /// It waits behind what a resume found.
    Behind,
    /// Too many wait there: the connection is to be closed.
    BacklogFull,
    /// It is sent when the connection has its turn.
    Ready,
    /// It is held back until then, in milliseconds of the monotonic clock.
    Held(u64),
    /// As many wait as may: they have to be sent before the next one comes.
    Urgent,
    /// The socket is full: it waits in the queue.
    Queued,
    /// The queue is full, too: it waits behind it.
    Postponed,
    /// Too many do: the connection is to be closed.
    TooSlow,
}

/// What a full socket made of the events that waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Overflow {
    /// Events that have no room in the queue and wait behind it, and did not before.
    pub postponed: usize,
    /// Whether they are too many: the connection is to be closed.
    pub is_too_slow: bool,
}

/// Everything that one connection is to be sent.
///
/// What a delivery touches stands together, in this order: with the connection at the start of a
/// cache line it takes two of them.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Delivery {
    /// The last event that was offered, so that none is sent twice.
    last_event: u64,
    replay: ReplayRing,
    outbox: Option<Box<Outbox>>,
    /// What it missed before it resumed, and what came since.
    backlog: Option<Box<Backlog>>,
    /// The newest events of the replay ring that are not sent yet. With an outbox it is 0.
    pending: u32,
    /// The last send of events, in milliseconds of the monotonic clock, wrapping.
    sent_ms: u32,
    /// The least time between two sends of events.
    batch_ms: u16,
    dialect: Dialect,
    is_blocked: bool,
    /// The caller was told not to read.
    is_reading_paused: bool,
    /// No event is sent any more but what waits already.
    is_ended: bool,
}

impl Delivery {
    /// The handshake is agreed: the form of events, and the least time between two sends of them. To
    /// be called before anything is queued.
    pub(super) fn begin(&mut self, dialect: Dialect, batch_ms: u16) {
        self.dialect = dialect;
        self.batch_ms = batch_ms;
    }

    /// What was agreed in the handshake.
    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Sets the least time between two sends of events.
    pub(super) fn set_batch_ms(&mut self, batch_ms: u16) {
        self.batch_ms = batch_ms;
    }

    /// Offers the live event `number` of the shard. Cost: no allocation but the growth of a list.
    #[inline]
    pub(super) fn offer(
        &mut self,
        (number, event): (u64, &Rc<LoggedEvent>),
        limits: &ClientLimits,
        encoder: &mut Encoder,
        now: Now,
    ) -> Offered {
        if self.last_event == number || self.is_ended {
            return Offered::Ignored;
        }
        self.last_event = number;
        if let Some(backlog) = &mut self.backlog {
            let has_room = backlog.push(event, limits.resume_messages + BACKLOG_LIVE_MAX);
            return if has_room { Offered::Behind } else { Offered::BacklogFull };
        }
        encoder.prepare(event.event(), self.dialect);
        let seq = self.replay.push(event, limits.replay_messages);
        if self.is_blocked {
            return self.queue(seq, event, limits);
        }
        if let Some(outbox) = &mut self.outbox {
            outbox.push_live(seq, event);
            let is_full = outbox.live_messages() >= ring_capacity(limits);
            return if is_full { Offered::Urgent } else { Offered::Ready };
        }
        self.pending += 1;
        if self.pending as usize >= ring_capacity(limits) {
            // The ring, which is the queue here, forgets what is beyond it.
            return Offered::Urgent;
        }
        self.held_until_ms(now).map_or(Offered::Ready, Offered::Held)
    }

    /// When the events that wait may be sent; `None` if they may be at once.
    pub(super) fn held_until_ms(&self, now: Now) -> Option<u64> {
        if self.batch_ms == 0 {
            return None;
        }
        let now_ms = now.monotonic_ms();
        let since_ms = (now_ms as u32).wrapping_sub(self.sent_ms);
        let wait_ms = u32::from(self.batch_ms).checked_sub(since_ms).filter(|wait| *wait > 0)?;
        Some(now_ms + u64::from(wait_ms))
    }

    /// Queues whole bytes behind everything that waits.
    pub(super) fn answer(&mut self, bytes: Vec<u8>) {
        self.outbox().push_answer(bytes);
    }

    /// Queues the newest event of a channel, which the client asked for, under a `seq` of its own.
    pub(super) fn answer_newest(
        &mut self,
        event: &Rc<LoggedEvent>,
        limits: &ClientLimits,
        encoder: &mut Encoder,
    ) {
        encoder.prepare(event.event(), self.dialect);
        // What waits in the ring must not be forgotten for it.
        self.outbox();
        let seq = self.replay.push(event, limits.replay_messages);
        self.outbox().push_requested(seq, event);
    }

    /// Queues an event of the replay ring again.
    pub(super) fn answer_replayed(&mut self, seq: u64, event: &Rc<LoggedEvent>) {
        self.outbox().push_requested(seq, event);
    }

    /// The events from `from_seq` to `to_seq`; `None` if not all of them are held.
    pub(super) fn replayed(
        &self,
        from_seq: u64,
        to_seq: u64,
    ) -> Option<Vec<(u64, Rc<LoggedEvent>)>> {
        let events = self.replay.range(from_seq, to_seq)?;
        Some(events.map(|(seq, event)| (seq, Rc::clone(event))).collect())
    }

    /// The first and last `seq` that can be sent again; zeros if none can.
    pub(super) fn replayable(&self) -> (u64, u64) {
        match self.replay.first_seq() {
            0 => (0, 0),
            first_seq => (first_seq, self.replay.last_seq()),
        }
    }

    /// The newest `seq` given out; 0 before the first.
    pub(super) fn last_seq(&self) -> u64 {
        self.replay.last_seq()
    }

    /// Has what a resume found sent before what is published from now on; `waiting` counts the
    /// events of all backlogs of the shard.
    pub(super) fn resume(&mut self, missed: Vec<Rc<LoggedEvent>>, waiting: &Rc<Cell<usize>>) {
        if !missed.is_empty() {
            self.backlog.get_or_insert_with(|| Box::new(Backlog::new(waiting))).merge(missed);
        }
    }

    /// Leaves out of the backlog what the client does not want any more.
    pub(super) fn retain_backlog(&mut self, keep: impl FnMut(&LoggedEvent) -> bool) {
        if let Some(backlog) = &mut self.backlog {
            backlog.retain(keep);
            self.backlog.take_if(|backlog| backlog.is_empty());
        }
    }

    /// Drops the backlog: it does not connect to what follows.
    pub(super) fn drop_backlog(&mut self) {
        self.backlog = None;
    }

    /// The oldest event of the backlog.
    pub(super) fn oldest_of_backlog(&self) -> Option<&Rc<LoggedEvent>> {
        self.backlog.as_ref().and_then(|backlog| backlog.front())
    }

    /// Whether what a resume found is still being sent.
    pub(super) fn has_backlog(&self) -> bool {
        self.backlog.is_some()
    }

    /// Whether what is queued next comes behind every event that the connection is to have, and the
    /// client reads fast enough that none is postponed.
    pub(super) fn is_up_to_date(&self) -> bool {
        self.backlog.is_none() && self.outbox.as_ref().is_none_or(|outbox| outbox.postponed() == 0)
    }

    /// Puts what is to be sent next into `buffer`; false if nothing waits but a backlog.
    #[inline]
    pub(super) fn fill(&self, buffer: &mut SendBuffer) -> bool {
        match &self.outbox {
            Some(outbox) => buffer.collect(outbox.frames(), outbox.front_sent()),
            None if self.pending > 0 => {
                let newest = self.replay.newest(self.pending as usize);
                let frames = newest
                    .map(|(seq, event)| Frame::Event { seq, tail: event.tail_for(self.dialect) });
                buffer.collect(frames, 0);
            }
            None => return false,
        }
        true
    }

    /// The socket took `sent` bytes of `buffer`, which [`Self::fill`] has filled.
    #[inline]
    pub(super) fn sent(&mut self, sent: usize, buffer: &SendBuffer, now: Now) {
        let (offered, frames) = (buffer.bytes().len(), buffer.frames());
        if self.outbox.is_none() {
            self.sent_ms = now.monotonic_ms() as u32;
            if sent == offered && frames > 0 {
                self.pending -= frames as u32;
                return;
            }
        }
        let outbox = self.outbox();
        if outbox.advance(sent) > 0 {
            self.sent_ms = now.monotonic_ms() as u32;
        }
        self.outbox.take_if(|outbox| outbox.is_empty());
    }

    /// The socket took nothing: what waits is held to the bounds of the queue until
    /// [`Self::unblocked`].
    pub(super) fn blocked(&mut self, limits: &ClientLimits) -> Overflow {
        self.is_blocked = true;
        let outbox = self.outbox();
        let postponed = outbox.postpone(limits);
        Overflow { postponed, is_too_slow: outbox.postponed() > POSTPONED_MAX }
    }

    /// The socket takes bytes again.
    pub(super) fn unblocked(&mut self) {
        self.is_blocked = false;
        if let Some(outbox) = &mut self.outbox {
            outbox.unblock();
        }
    }

    /// Whether the socket is full.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// Takes the next portion of the backlog to the events that are sent next; how many. A portion
    /// fits one send, and an outbox. To be called when nothing else waits.
    pub(super) fn take_portion(&mut self, limits: &ClientLimits, encoder: &mut Encoder) -> usize {
        let frames_max = FRAMES_PER_SEND.min(limits.queue_messages);
        let bytes_max = SEND_BYTES_MAX.min(limits.queue_bytes);
        let Some(mut backlog) = self.backlog.take() else { return 0 };
        let (mut taken, mut bytes) = (0, 0);
        while let Some(event) = backlog.front() {
            encoder.prepare(event.event(), self.dialect);
            bytes += event_frame_bytes(u64::MAX, event.tail_for(self.dialect));
            if taken > 0 && (taken >= frames_max || bytes > bytes_max) {
                break;
            }
            let Some(event) = backlog.pop() else { break };
            self.replay.push(&event, limits.replay_messages);
            taken += 1;
        }
        self.pending += taken as u32;
        self.backlog = (!backlog.is_empty()).then_some(backlog);
        taken
    }

    /// Whether more may be read from the client: not while the answers to what it asked wait for
    /// it. After a no, [`Self::resumes_reading`] says when.
    pub(super) fn wants_read(&mut self) -> bool {
        self.is_reading_paused = self.answer_bytes() >= ANSWER_BYTES_PAUSE;
        !self.is_reading_paused
    }

    /// Whether reading was paused and goes on now; true once.
    pub(super) fn resumes_reading(&mut self) -> bool {
        let resumes = self.is_reading_paused && self.answer_bytes() < ANSWER_BYTES_PAUSE;
        self.is_reading_paused &= !resumes;
        resumes
    }

    /// No event is delivered from now on: what waits is still sent.
    pub(super) fn end(&mut self) {
        self.is_ended = true;
        self.backlog = None;
    }

    /// Forgets what waits, but for the frame that is partly on the wire; returns how many live
    /// events that were. Only for a connection that is closed at once: a later event would be sent
    /// behind a hole.
    pub(super) fn abandon(&mut self) -> usize {
        let pending = std::mem::take(&mut self.pending) as usize;
        pending + self.outbox.as_mut().map_or(0, |outbox| outbox.discard_unsent())
    }

    /// Bytes of answers that wait.
    pub(super) fn answer_bytes(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.answer_bytes())
    }

    /// Heap of the queues, without payloads.
    pub(super) fn queue_bytes(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.memory_bytes())
            + self.backlog.as_ref().map_or(0, |backlog| backlog.memory_bytes())
    }

    /// Heap of the replay ring, without payloads.
    pub(super) fn replay_bytes(&self) -> usize {
        self.replay.memory_bytes()
    }

    /// Bytes of events that this connection alone may keep in memory: what waits behind the frame
    /// that is sent next.
    pub(super) fn held_bytes(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.held_bytes())
    }

    /// Queues an event for a socket that is full.
    fn queue(&mut self, seq: u64, event: &Rc<LoggedEvent>, limits: &ClientLimits) -> Offered {
        let outbox = self.outbox();
        if outbox.queue_live(seq, event, limits) {
            Offered::Queued
        } else if outbox.postponed() > POSTPONED_MAX {
            Offered::TooSlow
        } else {
            Offered::Postponed
        }
    }

    /// The outbox, into which the events that wait in the ring move if there was none.
    fn outbox(&mut self) -> &mut Outbox {
        let pending = std::mem::take(&mut self.pending) as usize;
        let (replay, dialect) = (&self.replay, self.dialect);
        self.outbox.get_or_insert_with(|| {
            let mut outbox = Box::new(Outbox::new(dialect));
            for (seq, event) in replay.newest(pending) {
                outbox.push_live(seq, event);
            }
            outbox
        })
    }
}

impl Offered {
    /// Whether the event has a `seq` now: it waits for its turn, or for the end of what waits.
    pub(super) fn is_numbered(self) -> bool {
        match self {
            Self::Ignored | Self::Behind | Self::BacklogFull => false,
            Self::Ready | Self::Held(_) | Self::Urgent => true,
            Self::Queued | Self::Postponed | Self::TooSlow => true,
        }
    }
}

/// What an event that was asked for takes at most until it is sent: its place in a queue that grew
/// by doubling, and the frame.
pub(super) fn requested_bytes(event: &LoggedEvent) -> usize {
    2 * QUEUED_EVENT_BYTES + event_frame_bytes(u64::MAX, event.tail_for(Dialect::default()))
}

/// Events that may wait in the replay ring for the connection's turn.
fn ring_capacity(limits: &ClientLimits) -> usize {
    limits.replay_messages.max(FRAMES_PER_SEND)
}

#[cfg(test)]
mod tests;
