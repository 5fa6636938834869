//! How far a consumer has read its stream, and what the next contact or message means.
//!
//! A pure state machine: told what the stream says of itself and what arrives, it says what to
//! announce and what to deliver. It knows no NATS types and no IO; the time is passed in.
//!
//! Two sequences run side by side. The consumer's sequence has no holes: a hole means that a message
//! was lost on the way. The stream's sequence has holes where a filter or a limit per subject leaves
//! messages out. If it can have none, a jump means that retention took messages before they were
//! read. If it can have some, [`Continuity`] finds out whether messages were lost.
//!
//! After every new start the last message handled is read again and compared by its store time.
//! If it is another message, or is missing although it should be retained, the broker lost its tail
//! and gave the positions out again. Then the epoch is announced anew, and the shards drop their
//! logs.

use std::time::Instant;

use super::continuity::{Continuity, Probe};
use super::stream_state::{Holes, StreamState};
use crate::position::StreamPos;

/// What a contact means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contact {
    /// A stream, or a life of it, of which nothing was read: announce its epoch.
    Fresh(Why),
    /// The stream goes on where it was left.
    Continues,
    /// It may have discarded messages from its middle that were never read: announce the epoch
    /// again.
    MayHaveLost,
    /// Retention took messages that were never read: announce the epoch again.
    Overtaken {
        /// How many.
        messages: u64,
    },
}

/// Why nothing of it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The first contact of this process, or another one before anything was read.
    First,
    /// The stream was deleted and made again.
    Recreated,
    /// The broker has lost messages that had been read.
    Regressed,
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is the next.
    Deliver,
    /// It was delivered before.
    Repeat,
    /// Messages before it were lost for good: announce the epoch again, then deliver it.
    DeliverAfterLoss,
    /// The same, but it is the first message that is read, and nothing is missing from it on.
    /// Clients need not be told unless they were told about the messages before it.
    DeliverAsFirst,
    /// A message was lost on the way: start a new consumer.
    Hole,
    /// Its position had been given to another message: start afresh.
    Regressed,
}

/// The position in the stream and in the current consumer.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    created_nanos: Option<i128>,
    last: u64,
    stored_nanos: Option<i128>,
    consumer: u64,
    holes: Option<Holes>,
    continuity: Continuity,
    is_overlap_due: bool,
    has_regressed: bool,
    /// True until the first message after a fresh start.
    is_untouched: bool,
    /// Clients were told that messages up to this position may be missing.
    loss_reported_up_to: u64,
}

impl Tracker {
    /// The last stream sequence that was handled.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The current consumer's sequence of the last message that it sent us.
    pub(crate) fn consumer(&self) -> u64 {
        self.consumer
    }

    /// Where the next consumer starts; `None` for the oldest message that there is.
    pub(crate) fn start(&self) -> Option<u64> {
        match self.stored_nanos {
            Some(_) => Some(self.last),
            None if self.last > 0 => Some(self.last + 1),
            None => None,
        }
    }

    /// Whether the stream ends before our position. Either it lost its tail, or the node that
    /// answers has just become its leader and does not know all messages yet.
    pub(crate) fn is_beyond(&self, state: StreamState) -> bool {
        self.created_nanos == Some(state.created_nanos) && state.last < self.last
    }

    /// Judges what the stream says of itself before a consumer is made.
    pub(crate) fn contact(&mut self, state: StreamState, now: Instant) -> Contact {
        let proven_to = self.continuity.proven_to(self.last).min(state.last);
        let contact = self.judge(state, proven_to);
        let proven_to = if contact == Contact::Continues { proven_to } else { self.last };
        self.continuity.contact(&state, self.last, proven_to, now);
        contact
    }

    fn judge(&mut self, state: StreamState, proven_to: u64) -> Contact {
        self.consumer = 0;
        self.holes = Some(state.holes);
        let why = match self.created_nanos {
            None => Some(Why::First),
            Some(created) if created != state.created_nanos => Some(Why::Recreated),
            Some(_) if self.has_regressed || self.is_beyond(state) => Some(Why::Regressed),
            Some(_) => None,
        };
        if let Some(why) = why {
            self.created_nanos = Some(state.created_nanos);
            self.has_regressed = false;
            self.begin_before(state.first);
            return Contact::Fresh(why);
        }
        let expected = self.last.max(proven_to) + 1;
        if state.first > expected {
            let is_untouched = self.is_untouched;
            self.begin_before(state.first);
            if is_untouched {
                return Contact::Fresh(Why::First);
            }
            return Contact::Overtaken { messages: state.first - expected };
        }
        self.is_overlap_due =
            self.stored_nanos.is_some() && state.first <= self.last && self.last > 0;
        if state.holes == Holes::Anywhere && state.last + 1 > expected {
            return Contact::MayHaveLost;
        }
        Contact::Continues
    }

    /// Goes on with another consumer, which has delivered up to `consumer`. It may repeat messages
    /// that were handled, and it leaves out no message that was not.
    pub(crate) fn change_consumer(&mut self, consumer: u64) {
        self.consumer = consumer;
        self.is_overlap_due = false;
        self.continuity.give_up_after(self.last);
    }

    /// Takes in a message: its sequences and its store time in nanoseconds.
    pub(crate) fn step(&mut self, stream: u64, consumer: u64, stored_nanos: i128) -> Step {
        if consumer != self.consumer + 1 {
            return Step::Hole;
        }
        self.consumer = consumer;
        let was_overlap_due = std::mem::take(&mut self.is_overlap_due);
        let is_first = std::mem::take(&mut self.is_untouched);
        if stream == self.last && self.stored_nanos.is_some_and(|known| known != stored_nanos) {
            self.has_regressed = true;
            return Step::Regressed;
        }
        if stream <= self.last {
            return Step::Repeat;
        }
        let jumped = match self.holes {
            Some(Holes::Never) => {
                was_overlap_due || (stream > self.last + 1 && stream > self.loss_reported_up_to)
            }
            Some(Holes::Filtered) => was_overlap_due,
            Some(Holes::Anywhere) | None => false,
        };
        self.last = stream;
        self.stored_nanos = Some(stored_nanos);
        match jumped {
            false => Step::Deliver,
            true if is_first => Step::DeliverAsFirst,
            true => Step::DeliverAfterLoss,
        }
    }

    /// Whether probes of the stream tell anything that its sequence does not.
    pub(crate) fn needs_probes(&self) -> bool {
        self.continuity.needs_probes(self.last)
    }

    /// Whether the stream must be probed before the message at `stream` is handled, because the
    /// messages missing before it may have been discarded unread.
    pub(crate) fn needs_probe_before(&self, stream: u64, now: impl FnOnce() -> Instant) -> bool {
        self.continuity.needs_probe_before(self.last, stream, now)
    }

    /// Takes in a probe. If messages may have been discarded unread, it returns the position from
    /// which on none were: announce the epoch again.
    pub(crate) fn probed(&mut self, probe: &Probe) -> Option<StreamPos> {
        let has_no_holes = self.holes == Some(Holes::Never);
        if has_no_holes && probe.read_to != self.last {
            // The sequence of what has come since tells.
            return None;
        }
        let whole_from = self.continuity.probed(probe)?;
        if has_no_holes {
            // Otherwise the next message would report the same loss again.
            self.begin_before(whole_from.0);
        }
        Some(whole_from)
    }

    /// Messages before the last one were found to be lost, and the stream was probed (`None`: it
    /// did not answer). Announce the epoch again: from the returned position on nothing is missing,
    /// unless another loss is reported.
    pub(crate) fn lost(&mut self, probe: Option<&Probe>, now: Instant) -> StreamPos {
        self.loss_reported_up_to = self.continuity.lost(self.last, probe, now);
        StreamPos(self.loss_reported_up_to)
    }

    /// Steps over the messages up to `stream`, which cannot be read.
    pub(crate) fn skip_to(&mut self, stream: u64) {
        self.last = self.last.max(stream);
        self.stored_nanos = None;
    }

    fn begin_before(&mut self, first: u64) {
        self.last = first.saturating_sub(1);
        self.loss_reported_up_to = 0;
        self.is_untouched = true;
        self.stored_nanos = None;
        self.is_overlap_due = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: i128 = 1_000;

    fn state(first: u64, last: u64) -> StreamState {
        let last_stored_nanos = i128::from(last);
        StreamState { created_nanos: LIFE, first, last, last_stored_nanos, holes: Holes::Never }
    }

    /// A tracker that has read the messages `1..=last`, message n stored at n nanoseconds.
    fn reader_at(last: u64, holes: Holes) -> Tracker {
        let mut tracker = Tracker::default();
        let seen = StreamState { holes, ..state(1, last) };
        assert_eq!(tracker.contact(seen, Instant::now()), Contact::Fresh(Why::First));
        for n in 1..=last {
            assert_eq!(tracker.step(n, n, i128::from(n)), Step::Deliver);
        }
        tracker
    }

    #[test]
    fn contacts() {
        let cases = [
            ("same stream, more messages", state(1, 15), Contact::Continues, Some(10)),
            ("same stream, nothing new", state(1, 10), Contact::Continues, Some(10)),
            ("all aged out, nothing missed", state(11, 10), Contact::Continues, Some(10)),
            ("the next is the oldest", state(11, 20), Contact::Continues, Some(10)),
            ("five were missed", state(16, 20), Contact::Overtaken { messages: 5 }, Some(16)),
            (
                "all aged out, ten missed",
                state(21, 20),
                Contact::Overtaken { messages: 10 },
                Some(21),
            ),
            ("the tail is lost", state(1, 9), Contact::Fresh(Why::Regressed), None),
            (
                "a new life",
                StreamState { created_nanos: 2_000, ..state(1, 50) },
                Contact::Fresh(Why::Recreated),
                None,
            ),
            (
                "a new life, empty",
                StreamState { created_nanos: 2_000, ..state(0, 0) },
                Contact::Fresh(Why::Recreated),
                None,
            ),
        ];
        for (name, seen, expected, start) in cases {
            let mut tracker = reader_at(10, Holes::Never);
            let is_beyond = expected == Contact::Fresh(Why::Regressed);
            assert_eq!(tracker.is_beyond(seen), is_beyond, "{name}");
            assert_eq!(tracker.contact(seen, Instant::now()), expected, "{name}");
            assert_eq!(tracker.start(), start, "{name}");
        }
    }

    #[test]
    fn steps_after_a_rebuild() {
        let cases = [
            ("the overlap", (10, 1, 10), Step::Repeat),
            ("another message at our position", (10, 1, 999), Step::Regressed),
            ("ours is gone although retained", (11, 1, 11), Step::DeliverAfterLoss),
            ("a message lost on the way", (10, 2, 10), Step::Hole),
            ("older than ours", (9, 1, 9), Step::Repeat),
        ];
        for (name, (stream, consumer, stored), expected) in cases {
            let mut tracker = reader_at(10, Holes::Never);
            assert_eq!(tracker.contact(state(1, 20), Instant::now()), Contact::Continues);
            assert_eq!(tracker.step(stream, consumer, stored), expected, "{name}");
        }
    }

    #[test]
    fn a_jump_of_the_stream_is_a_loss_only_where_it_can_have_no_holes() {
        let cases = [
            (Holes::Never, Step::DeliverAfterLoss),
            (Holes::Filtered, Step::Deliver),
            (Holes::Anywhere, Step::Deliver),
        ];
        for (holes, expected) in cases {
            assert_eq!(reader_at(10, holes).step(15, 11, 15), expected, "{holes:?}");
        }
    }

    #[test]
    fn holes_up_to_where_clients_were_told_are_not_told_one_by_one() {
        let mut tracker = reader_at(10, Holes::Never);
        assert_eq!(tracker.step(15, 11, 15), Step::DeliverAfterLoss);
        let asked = Instant::now();
        let middle =
            Probe { asked, read_to: 15, last: 40, is_all_sent: false, is_all_read: true, first: 1 };
        assert_eq!(tracker.lost(Some(&middle), asked), StreamPos(40));
        for (consumer, stream) in [(12, 17), (13, 18), (14, 40), (15, 41)] {
            let step = tracker.step(stream, consumer, i128::from(stream));
            assert_eq!(step, Step::Deliver, "{stream}");
        }
        assert_eq!(tracker.step(43, 16, 43), Step::DeliverAfterLoss);
        assert_eq!(
            tracker.contact(state(90, 99), Instant::now()),
            Contact::Overtaken { messages: 46 }
        );
        assert_eq!(tracker.step(92, 1, 92), Step::DeliverAsFirst);
    }

    #[test]
    fn a_missing_overlap_is_a_loss_unless_messages_go_from_the_middle() {
        let cases = [(Holes::Filtered, Step::DeliverAfterLoss), (Holes::Anywhere, Step::Deliver)];
        for (holes, expected) in cases {
            let mut tracker = reader_at(10, holes);
            let seen = tracker.contact(StreamState { holes, ..state(1, 20) }, Instant::now());
            let may_have_lost = holes == Holes::Anywhere;
            assert_eq!(seen, if may_have_lost { Contact::MayHaveLost } else { Contact::Continues });
            assert_eq!(tracker.step(12, 1, 12), expected, "{holes:?}");
        }
    }

    #[test]
    fn a_regression_is_followed_by_a_fresh_start() {
        let mut tracker = reader_at(10, Holes::Never);
        assert_eq!(tracker.contact(state(1, 30), Instant::now()), Contact::Continues);
        assert_eq!(tracker.step(10, 1, 999), Step::Regressed);
        assert_eq!(tracker.contact(state(1, 30), Instant::now()), Contact::Fresh(Why::Regressed));
        assert_eq!(tracker.step(1, 1, 1), Step::Deliver);
        assert_eq!(tracker.contact(state(1, 30), Instant::now()), Contact::Continues);
    }

    #[test]
    fn an_aged_stream_is_read_from_its_first_message() {
        let mut tracker = Tracker::default();
        assert_eq!(
            tracker.contact(state(5_000, 4_999), Instant::now()),
            Contact::Fresh(Why::First)
        );
        assert_eq!(tracker.contact(state(5_000, 5_001), Instant::now()), Contact::Continues);
        assert_eq!(tracker.start(), Some(5_000));
        assert_eq!(tracker.step(5_000, 1, 1), Step::Deliver);
        let mut tracker = Tracker::default();
        assert_eq!(
            tracker.contact(state(5_000, 5_100), Instant::now()),
            Contact::Fresh(Why::First)
        );
        let again = tracker.contact(state(5_001, 5_100), Instant::now());
        assert_eq!(again, Contact::Fresh(Why::First), "there was no consumer at first");
        assert_eq!(tracker.step(5_003, 1, 1), Step::DeliverAsFirst, "three aged while starting");
        assert_eq!(tracker.step(5_005, 2, 1), Step::DeliverAfterLoss);
    }

    #[test]
    fn a_durable_consumer_repeats_and_goes_on() {
        let mut tracker = reader_at(10, Holes::Never);
        tracker.change_consumer(40);
        let cases = [
            ((8, 41, 8), Step::Repeat),
            ((10, 42, 10), Step::Repeat),
            ((11, 43, 11), Step::Deliver),
            ((9, 44, 9), Step::Repeat),
            ((12, 46, 12), Step::Hole),
        ];
        for ((stream, consumer, stored), expected) in cases {
            assert_eq!(tracker.step(stream, consumer, stored), expected, "{stream} as {consumer}");
        }
    }

    #[test]
    fn messages_that_cannot_be_read_are_stepped_over() {
        let mut tracker = reader_at(10, Holes::Never);
        tracker.skip_to(11);
        assert_eq!(tracker.contact(state(1, 20), Instant::now()), Contact::Continues);
        assert_eq!(tracker.start(), Some(12));
        assert_eq!(tracker.step(12, 1, 12), Step::Deliver);
    }
}
