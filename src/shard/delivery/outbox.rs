//! What waits for a connection: frames in order, from the one in flight on.
//!
//! It exists only while something waits. Bounds, while the socket is blocked: live events by
//! `queue_messages` and `queue_bytes`, and what is postponed beyond them by the caller, which closes
//! the client when it is more than [`POSTPONED_MAX`] events. Until then the caller bounds them by
//! sending. Answers, which the client asked for, are bounded by the pause of its reading; events
//! that were asked for (snapshot, replay) by what one command may ask for.
//!
//! No frame overtakes another and none is left out of the middle, so that whatever a client has
//! read, nothing is missing before it.

use std::collections::VecDeque;
use std::rc::Rc;

use super::frames::{Frame, event_frame_bytes};
use crate::heap::allocation_bytes;
use crate::protocol::dialect::Dialect;
use crate::shard::history::LoggedEvent;
use crate::shard::limits::{ClientLimits, POSTPONED_MAX, QUEUED_EVENT_BYTES};

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
    postponed: Postponed,
    /// The newest event that was postponed, also if it is within the bounds by now.
    postponed_seq: u64,
}

/// The newest live events that wait while the socket is blocked and the queue is full.
#[derive(Debug, Clone, Copy, Default)]
struct Postponed {
    events: usize,
    bytes: usize,
}

impl Outbox {
    /// An empty queue of a connection that agreed to `dialect`.
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, ..Self::default() }
    }

    /// Queues a live event for a socket that is blocked; false if it found a bound reached and is
    /// postponed. An event that is longer than the bound has room in an empty queue all the same,
    /// and none has room behind a postponed one: that is counted with those before it.
    pub(super) fn queue_live(
        &mut self,
        seq: u64,
        event: &Rc<LoggedEvent>,
        limits: &ClientLimits,
    ) -> bool {
        self.push_live(seq, event);
        let has_room = !is_over(self.live_messages, self.live_bytes, limits);
        if !has_room {
            self.postponed.events += 1;
            self.postponed.bytes += event_frame_bytes(seq, event.tail_for(self.dialect));
            self.postponed_seq = seq;
        }
        has_room
    }

    /// Queues a live event for a socket that may take it in its turn, whatever waits.
    pub(super) fn push_live(&mut self, seq: u64, event: &Rc<LoggedEvent>) {
        self.live_messages += 1;
        self.live_bytes += event_frame_bytes(seq, event.tail_for(self.dialect));
        let (event, origin) = (Rc::clone(event), Origin::Live);
        self.items.push_back(Item::Event { seq, event, origin });
    }

    /// Postpones the newest live events that are over a bound, because the socket is blocked: no
    /// more than are too many. Returns how many of them were not postponed before.
    pub(super) fn postpone(&mut self, limits: &ClientLimits) -> usize {
        self.postponed = Postponed::default();
        let (mut fresh, mut newest) = (0, self.postponed_seq);
        for item in self.items.iter().rev() {
            let Postponed { events, bytes } = self.postponed;
            let within = (self.live_messages - events, self.live_bytes - bytes);
            if events > POSTPONED_MAX || !is_over(within.0, within.1, limits) {
                break;
            }
            if let Item::Event { seq, origin: Origin::Live, .. } = item {
                self.postponed.events += 1;
                self.postponed.bytes += item.bytes(self.dialect);
                fresh += usize::from(*seq > self.postponed_seq);
                newest = newest.max(*seq);
            }
        }
        self.postponed_seq = newest;
        fresh
    }

    /// Postpones nothing any more: the socket takes what waits.
    pub(super) fn unblock(&mut self) {
        self.postponed = Postponed::default();
    }

    /// Live events that are postponed.
    pub(super) fn postponed(&self) -> usize {
        self.postponed.events
    }

    /// Live events that wait.
    pub(super) fn live_messages(&self) -> usize {
        self.live_messages
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
    /// may keep in memory. What is postponed is not among them: no bound keeps it small.
    pub(super) fn held_bytes(&self) -> usize {
        let front = match self.items.front() {
            Some(item @ Item::Event { .. }) => item.bytes(self.dialect),
            _ => 0,
        };
        self.live_bytes - self.postponed.bytes + self.requested_bytes - front
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

    /// Forgets everything but the frame that is partly on the wire; returns how many live events
    /// that were.
    pub(super) fn discard_unsent(&mut self) -> usize {
        let live_messages = self.live_messages;
        self.postponed = Postponed::default();
        let keep = usize::from(self.front_sent > 0);
        while self.items.len() > keep {
            if let Some(last) = self.items.pop_back() {
                self.release(&last);
            }
        }
        live_messages - self.live_messages
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

/// Whether so many live events of so many bytes are over a bound. One alone never is, or an event
/// that is longer than the bound could not be sent.
fn is_over(messages: usize, bytes: usize, limits: &ClientLimits) -> bool {
    messages > limits.queue_messages || (messages > 1 && bytes > limits.queue_bytes)
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
            let has_room: Vec<bool> =
                (1..6).map(|seq| outbox.queue_live(seq, &event, &limits)).collect();
            assert_eq!(has_room, [true, true, true, false, false]);
            assert_eq!((outbox.live_messages(), outbox.postponed()), (5, 2));
            outbox.unblock();
            outbox.advance(53 * bytes);
            assert_eq!((outbox.live_messages(), outbox.postpone(&limits)), (2, 0));
            assert!(outbox.queue_live(6, &event, &limits));
            assert!(!outbox.queue_live(7, &event, &limits));
        }
    }

    #[test]
    fn a_blocked_queue_postpones_the_newest_that_are_over_a_bound() {
        let event = logged("a", 1);
        let bytes = event_frame_bytes(1, event.tail_for(Dialect::default()));
        let by_count = |messages| ClientLimits { queue_messages: messages, ..limits().client };
        let by_bytes = |bytes| ClientLimits { queue_bytes: bytes, ..limits().client };
        let postponed = |waiting: u64, limits: ClientLimits| {
            let mut outbox = Outbox::default();
            for seq in 1..=waiting {
                outbox.push_live(seq, &event);
                outbox.push_answer(vec![0; 10]);
                outbox.push_requested(1, &event);
            }
            let fresh = outbox.postpone(&limits);
            assert_eq!((outbox.postpone(&limits), outbox.postponed()), (0, fresh));
            let held = (2 * waiting as usize - fresh - 1) * bytes;
            assert_eq!((outbox.held_bytes(), outbox.items.len()), (held, 3 * waiting as usize));
            fresh
        };
        assert_eq!(postponed(8, by_count(8)), 0);
        assert_eq!(postponed(8, by_count(6)), 2);
        assert_eq!(postponed(8, by_count(3)), POSTPONED_MAX + 1, "as many as are too many");
        assert_eq!(postponed(8, by_bytes(8 * bytes)), 0);
        assert_eq!(postponed(8, by_bytes(8 * bytes - 1)), 1);
        assert_eq!(postponed(2, by_bytes(1)), 1, "one alone has room");
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
        let event = logged("a", 1);
        outbox.push_live(1, &event);
        outbox.push_requested(2, &event);
        outbox.push_live(3, &event);
        assert_eq!(outbox.discard_unsent(), 2, "live events");
        assert_eq!((outbox.frames().count(), outbox.answer_bytes()), (1, 10));
        outbox.advance(6);
        outbox.push_answer(vec![2; 10]);
        outbox.discard_unsent();
        assert!(outbox.is_empty());
    }
}
