//! What waits for a connection: frames in order, from the one in flight on.
//!
//! It exists only while something waits. Bounds, while the socket is blocked: live events by
//! `queue_messages` and `queue_bytes` (a full outbox refuses, and the caller counts a drop). Until
//! then the caller bounds them by sending. Answers, which the client asked for, are bounded by the
//! pause of its reading; events that were asked for (snapshot, replay) by what one command may ask
//! for.

use std::collections::VecDeque;
use std::rc::Rc;

use super::frames::{Frame, event_frame_bytes};
use crate::heap::allocation_bytes;
use crate::protocol::dialect::Dialect;
use crate::shard::history::LoggedEvent;
use crate::shard::limits::{ClientLimits, QUEUED_EVENT_BYTES};

/// Whether an event counts against the client's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was published while the client was subscribed.
    Live,
    /// The client asked for it: snapshot or replay.
    Requested,
}

#[derive(Debug)]
enum Item {
    Event { seq: u64, event: Rc<LoggedEvent>, origin: Origin },
    Answer(Vec<u8>),
}

const _: () = assert!(size_of::<Item>() <= QUEUED_EVENT_BYTES);

impl Item {
    fn frame(&self, dialect: Dialect) -> Frame<'_> {
        match self {
            Self::Event { seq, event, .. } => {
                Frame::Event { seq: *seq, tail: event.tail_for(dialect) }
            }
            Self::Answer(bytes) => Frame::Whole(bytes),
        }
    }

    fn bytes(&self, dialect: Dialect) -> usize {
        self.frame(dialect).bytes()
    }
}

/// The queue of one connection that is blocked or has answers to send.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// What the connection agreed to, which decides what each event takes.
    dialect: Dialect,
    items: VecDeque<Item>,
    front_sent: usize,
    live_messages: usize,
    live_bytes: usize,
    requested_bytes: usize,
    answer_bytes: usize,
    /// Heap of the answers.
    answer_heap_bytes: usize,
}

/// The queue is full; the event is not in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// What [`Outbox::trim`] left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Trimmed {
    /// Live events that were dropped.
    pub dropped: usize,
    /// How many of them are the newest events of the connection, so that no later one tells of the
    /// hole.
    pub newest: usize,
}

impl Outbox {
    /// An empty queue of a connection that agreed to `dialect`.
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, ..Self::default() }
    }

    /// Queues a live event.
    ///
    /// # Errors
    /// [`Full`] if either bound is reached. An event that is longer than the bound goes into an
    /// empty queue all the same, or it could never be sent.
    pub(super) fn offer_live(
        &mut self,
        seq: u64,
        event: &Rc<LoggedEvent>,
        limits: &ClientLimits,
    ) -> Result<(), Full> {
        let bytes = event_frame_bytes(seq, event.tail_for(self.dialect));
        let is_full = self.live_messages >= limits.queue_messages
            || (self.live_messages > 0 && self.live_bytes + bytes > limits.queue_bytes);
        if is_full {
            return Err(Full);
        }
        self.push_live(seq, event);
        Ok(())
    }

    /// Queues a live event for a socket that may take it in its turn, whatever waits.
    pub(super) fn push_live(&mut self, seq: u64, event: &Rc<LoggedEvent>) {
        self.live_messages += 1;
        self.live_bytes += event_frame_bytes(seq, event.tail_for(self.dialect));
        let (event, origin) = (Rc::clone(event), Origin::Live);
        self.items.push_back(Item::Event { seq, event, origin });
    }

    /// Drops the newest live events that are over a bound, because the socket is blocked;
    /// `last_seq` is that of the connection's newest event.
    pub(super) fn trim(&mut self, last_seq: u64, limits: &ClientLimits) -> Trimmed {
        let mut trimmed = Trimmed::default();
        let first = usize::from(self.front_sent > 0);
        let mut at = self.items.len();
        while at > first && self.is_over(limits) {
            at -= 1;
            let Some(Item::Event { seq, origin: Origin::Live, .. }) = self.items.get(at) else {
                continue;
            };
            let is_newest = *seq + trimmed.newest as u64 == last_seq;
            trimmed.newest += usize::from(is_newest && trimmed.newest == trimmed.dropped);
            trimmed.dropped += 1;
            if let Some(item) = self.items.remove(at) {
                self.release(&item);
            }
        }
        trimmed
    }

    /// Live events that wait.
    pub(super) fn live_messages(&self) -> usize {
        self.live_messages
    }

    fn is_over(&self, limits: &ClientLimits) -> bool {
        self.live_messages > limits.queue_messages
            || (self.live_messages > 1 && self.live_bytes > limits.queue_bytes)
    }

    /// Queues an event that the client asked for.
    pub(super) fn push_requested(&mut self, seq: u64, event: &Rc<LoggedEvent>) {
        self.requested_bytes += event_frame_bytes(seq, event.tail_for(self.dialect));
        let (event, origin) = (Rc::clone(event), Origin::Requested);
        self.items.push_back(Item::Event { seq, event, origin });
    }

    /// Queues a whole frame, or HTTP response.
    pub(super) fn push_answer(&mut self, frame: Vec<u8>) {
        self.answer_bytes += frame.len();
        self.answer_heap_bytes += allocation_bytes(frame.capacity());
        self.items.push_back(Item::Answer(frame));
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of answers that wait.
    pub(super) fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }

    /// Heap of the queue and its answers; the events' payloads are shared.
    pub(super) fn memory_bytes(&self) -> usize {
        allocation_bytes(size_of::<Self>())
            + allocation_bytes(self.items.capacity() * size_of::<Item>())
            + self.answer_heap_bytes
    }

    /// Bytes of events that wait behind the frame that is sent next: what this connection alone
    /// may keep in memory.
    pub(super) fn held_bytes(&self) -> usize {
        let front = match self.items.front() {
            Some(item @ Item::Event { .. }) => item.bytes(self.dialect),
            _ => 0,
        };
        self.live_bytes + self.requested_bytes - front
    }

    /// The frames that wait, oldest first.
    pub(super) fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        self.items.iter().map(|item| item.frame(self.dialect))
    }

    /// Bytes of the first frame that are sent already.
    pub(super) fn front_sent(&self) -> usize {
        self.front_sent
    }

    /// Takes note that `bytes` more were sent; returns how many live events are complete now.
    pub(super) fn advance(&mut self, bytes: usize) -> u64 {
        let mut complete = 0;
        self.front_sent += bytes;
        while let Some(front) = self.items.front() {
            let length = front.bytes(self.dialect);
            if self.front_sent < length {
                break;
            }
            self.front_sent -= length;
            complete += u64::from(matches!(front, Item::Event { .. }));
            self.remove_front();
        }
        debug_assert!(!self.items.is_empty() || self.front_sent == 0);
        complete
    }

    /// Forgets everything but the frame that is partly on the wire.
    pub(super) fn discard_unsent(&mut self) {
        let keep = usize::from(self.front_sent > 0);
        while self.items.len() > keep {
            if let Some(last) = self.items.pop_back() {
                self.release(&last);
            }
        }
    }

    fn remove_front(&mut self) {
        if let Some(front) = self.items.pop_front() {
            self.release(&front);
        }
    }

    fn release(&mut self, item: &Item) {
        match item {
            Item::Event { origin: Origin::Live, .. } => {
                self.live_messages -= 1;
                self.live_bytes -= item.bytes(self.dialect);
            }
            Item::Event { origin: Origin::Requested, .. } => {
                self.requested_bytes -= item.bytes(self.dialect);
            }
            Item::Answer(frame) => {
                self.answer_bytes -= frame.len();
                self.answer_heap_bytes -= allocation_bytes(frame.capacity());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::history::tests::logged;
    use crate::shard::simulation::limits;

    #[test]
    fn live_events_meet_both_bounds_and_requested_ones_do_not() {
        let event = logged("a", 1);
        let bytes = event_frame_bytes(1, event.tail_for(Dialect::default()));
        let by_count = ClientLimits { queue_messages: 3, ..limits().client };
        let by_bytes = ClientLimits { queue_bytes: 3 * bytes + 1, ..limits().client };
        for limits in [by_count, by_bytes] {
            let mut outbox = Outbox::default();
            for _ in 0..50 {
                outbox.push_requested(1, &event);
            }
            let taken = (0..10).filter(|_| outbox.offer_live(1, &event, &limits).is_ok()).count();
            assert_eq!(taken, 3);
            outbox.advance(51 * bytes);
            assert_eq!(outbox.offer_live(1, &event, &limits), Ok(()));
            assert_eq!(outbox.offer_live(1, &event, &limits), Err(Full));
        }
    }

    #[test]
    fn a_blocked_queue_is_trimmed_to_its_bounds_from_the_newest_on() {
        let event = logged("a", 1);
        let bytes = event_frame_bytes(1, event.tail_for(Dialect::default()));
        let three = ClientLimits { queue_messages: 3, ..limits().client };
        let trim = |in_flight: usize, newest_is_requested: bool, limits: &ClientLimits| {
            let mut outbox = Outbox::default();
            for seq in 1..=8 {
                outbox.push_live(seq, &event);
                outbox.push_answer(vec![0; 10]);
            }
            if newest_is_requested {
                outbox.push_requested(9, &event);
            }
            outbox.advance(in_flight);
            let trimmed = outbox.trim(8 + u64::from(newest_is_requested), limits);
            (trimmed, outbox.live_messages(), outbox.answer_bytes(), outbox.items.len())
        };
        let trimmed = |dropped, newest| Trimmed { dropped, newest };
        assert_eq!(trim(0, false, &three), (trimmed(5, 5), 3, 80, 11));
        assert_eq!(trim(0, true, &three), (trimmed(5, 0), 3, 80, 12), "the requested one tells");
        let one = ClientLimits { queue_bytes: 1, ..limits().client };
        assert_eq!(trim(4, false, &one), (trimmed(7, 7), 1, 80, 9), "what is in flight stays");
        let wide = ClientLimits { queue_bytes: 8 * bytes, ..limits().client };
        assert_eq!(trim(0, false, &wide), (trimmed(0, 0), 8, 80, 16));
    }

    #[test]
    fn advance_counts_whole_frames() {
        let mut outbox = Outbox::default();
        let event = logged("a", 1);
        outbox.push_answer(vec![0; 10]);
        outbox.push_requested(1, &event);
        assert_eq!(outbox.advance(9), 0);
        assert_eq!((outbox.front_sent(), outbox.answer_bytes()), (9, 10));
        assert_eq!(outbox.advance(1), 0);
        assert_eq!((outbox.front_sent(), outbox.answer_bytes()), (0, 0));
        assert_eq!(outbox.advance(event_frame_bytes(1, event.tail_for(Dialect::default()))), 1);
        assert!(outbox.is_empty());
    }

    #[test]
    fn discarding_keeps_the_frame_in_flight() {
        let mut outbox = Outbox::default();
        outbox.push_answer(vec![0; 10]);
        outbox.push_answer(vec![1; 10]);
        outbox.advance(4);
        outbox.discard_unsent();
        assert_eq!((outbox.frames().count(), outbox.answer_bytes()), (1, 10));
        outbox.advance(6);
        outbox.push_answer(vec![2; 10]);
        outbox.discard_unsent();
        assert!(outbox.is_empty());
    }
}
