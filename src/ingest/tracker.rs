//! How far a consumer has read its stream, and what the next contact or message means.
//!
//! A pure state machine: told what the stream says of itself and what arrives, it says what to
//! announce and what to deliver. It knows no NATS types and no IO.
//!
//! # What is proved, and by what
//!
//! Every stream is read without a filter, so each of its positions is ours to read, whatever the
//! stream holds, discards or is set to. What follows rests on nothing else:
//!
//! | proof | rests on |
//! |---|---|
//! | nothing is missing between two messages | the stream gives each position to one message, in order (JetStream's stream sequence). The consumer brought the position that follows the one before. If it did not, there was a message and it is gone: a loss |
//! | nothing was lost on the way | the consumer's own sequence has no holes; a hole means another consumer, from our position |
//! | positions were not given out again | the first message of each new consumer is the last one handled, with the same store time; or the stream's last message is that one. If it is another, or the stream's last position lies before one that it has named, its messages are others now: all is read again. If it cannot be compared: a loss |
//! | nothing is missing at the end | [`Ending`]: two looks in a row at a stream and a consumer that have nothing more to send |
//! | the life | the stream's name and creation time |

use std::collections::VecDeque;

use super::ending::{Ending, Found, Look};
use super::stream_state::StreamState;
use crate::position::Base;

/// Positions beyond ours whose store times are remembered.
const AWAITED_MAX: usize = 4;

/// What a contact means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contact {
    /// A stream, or a life of it, of which nothing was read: announce its epoch.
    Fresh(Why),
    /// The stream goes on where it was left.
    Continues,
    /// Messages are gone that were never read: announce the loss.
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
    /// Messages before it may be lost for good: announce that, then deliver it.
    DeliverAfterLoss,
    /// The same, but it is the first message that is read, and nothing is missing from it on.
    /// Clients need not be told unless something was claimed about the messages before it.
    DeliverAsFirst,
    /// A message was lost on the way: start a new consumer.
    Hole,
    /// Its position had been given to another message: start afresh.
    Regressed,
}

/// What a look at the end of the stream means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing: it is whole, or another look is needed.
    Nothing,
    /// The messages at the end are gone, unread: announce the loss.
    LostEnd(Base),
    /// What the consumer has sent has not arrived, or the stream is another: start a new consumer.
    Broken(&'static str),
}

/// The position in the stream and in the current consumer.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    created_nanos: Option<i128>,
    last: u64,
    stored_nanos: Option<i128>,
    /// The highest position that the stream has named in this life.
    named: u64,
    /// Positions beyond ours that it has named, with the store times of their messages.
    awaited: VecDeque<(u64, i128)>,
    consumer: u64,
    ending: Ending,
    /// The next message has to be the last one again, or nothing is known of what lies between.
    is_overlap_due: bool,
    has_regressed: bool,
    /// No consumer can bring the last message again.
    is_last_unreadable: bool,
    /// Until the first message after a fresh start: where the stream ended at that start.
    untouched_to: Option<u64>,
}

impl Tracker {
    /// The last stream sequence that was handled.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// When that message was stored, if it is known.
    pub(crate) fn stored_nanos(&self) -> Option<i128> {
        self.stored_nanos
    }

    /// The current consumer's sequence of the last message that it sent us.
    pub(crate) fn consumer(&self) -> u64 {
        self.consumer
    }

    /// The highest position that the stream has named.
    pub(crate) fn named(&self) -> u64 {
        self.named.max(self.last)
    }

    /// Where the next consumer starts; `None` for the oldest message that there is.
    pub(crate) fn start(&self) -> Option<u64> {
        match self.stored_nanos {
            Some(_) if !self.is_last_unreadable => Some(self.last),
            _ if self.last > 0 => Some(self.last + 1),
            _ => None,
        }
    }

    /// The last message, if no consumer can bring it again: to be looked for by other means after a
    /// consumer was made, and given to [`Self::overlaps`].
    pub(crate) fn unreadable_last(&self) -> Option<u64> {
        (self.is_last_unreadable && self.is_overlap_due).then_some(self.last)
    }

    /// The stream holds a message at the last position that was stored then.
    pub(crate) fn overlaps(&mut self, stored_nanos: i128) {
        if self.stored_nanos == Some(stored_nanos) {
            self.is_overlap_due = false;
        }
    }

    /// What the stream holds at the last position was stored then; `None` if it holds nothing there.
    /// To be said before [`Self::step_unreadable`], which no overlap precedes.
    pub(crate) fn holds_at_last(&mut self, stored_nanos: Option<i128>) {
        let is_same = stored_nanos == self.stored_nanos;
        self.is_overlap_due = self.last > 0 && self.stored_nanos.is_some() && !is_same;
        self.has_regressed |= self.is_overlap_due && stored_nanos.is_some();
    }

    /// Whether the stream ends before a position that it has named. Either it lost its tail, or the
    /// node that answers has just become its leader and does not know all messages yet.
    pub(crate) fn is_beyond(&self, state: StreamState) -> bool {
        self.created_nanos == Some(state.created_nanos) && state.last < self.named()
    }

    /// Whether this is the life of the stream that is being read.
    pub(crate) fn goes_on(&self, state: StreamState) -> bool {
        self.created_nanos == Some(state.created_nanos)
            && !self.has_regressed
            && !self.is_beyond(state)
    }

    /// Judges what the stream says of itself before a consumer is made.
    pub(crate) fn contact(&mut self, state: StreamState) -> Contact {
        self.consumer = 0;
        self.ending = Ending::default();
        let why = match self.created_nanos {
            None => Some(Why::First),
            Some(created) if created != state.created_nanos => Some(Why::Recreated),
            Some(_) if self.has_regressed || self.is_beyond(state) => Some(Why::Regressed),
            Some(_) if self.is_other_last(state) || self.is_other(state) => Some(Why::Regressed),
            Some(_) => None,
        };
        let before = std::mem::replace(&mut self.named, state.last);
        if let Some(why) = why {
            self.created_nanos = Some(state.created_nanos);
            self.has_regressed = false;
            self.awaited.clear();
            self.begin_before(state);
            self.name(state);
            return Contact::Fresh(why);
        }
        self.named = self.named.max(before);
        self.name(state);
        let expected = self.last + 1;
        if state.first > expected {
            let is_untouched = self.untouched_to.is_some();
            self.begin_before(state);
            if is_untouched {
                return Contact::Fresh(Why::First);
            }
            return Contact::Overtaken { messages: state.first - expected };
        }
        self.is_overlap_due = self.wants_overlap(state);
        Contact::Continues
    }

    /// Takes in what the stream says of itself when the consumer is there. It may have gone back to
    /// an older copy since the contact: false if another contact is needed.
    pub(crate) fn opened(&mut self, state: StreamState) -> bool {
        let is_other = self.is_other_last(state) || self.is_other(state);
        if self.created_nanos != Some(state.created_nanos) || self.is_beyond(state) || is_other {
            return false;
        }
        if state.last != self.named {
            // What came since the contact may have been given positions that others had.
            self.untouched_to = self.untouched_to.map(|_| 0);
        }
        self.named = self.named.max(state.last);
        self.name(state);
        self.is_overlap_due |= self.wants_overlap(state);
        true
    }

    /// Whether the last message has to come again: the stream does not end with it.
    fn wants_overlap(&self, state: StreamState) -> bool {
        let is_same_end = state.last == self.last && state.last_stored() == self.stored_nanos;
        // Of a stream of which nothing is known there is nothing to compare.
        let is_known = self.stored_nanos.is_some() || self.untouched_to.is_none();
        self.last > 0 && is_known && !is_same_end
    }

    /// Goes on with another consumer, which has delivered up to `consumer`. It may repeat messages
    /// that were handled, and it leaves out no message that was not.
    pub(crate) fn change_consumer(&mut self, consumer: u64) {
        self.consumer = consumer;
        self.is_overlap_due = false;
        self.ending = Ending::default();
    }

    /// Takes in a message: its sequences and its store time in nanoseconds.
    #[inline]
    pub(crate) fn step(&mut self, stream: u64, consumer: u64, stored_nanos: i128) -> Step {
        if consumer != self.consumer + 1 {
            return Step::Hole;
        }
        self.consumer = consumer;
        if stream == self.last && self.stored_nanos.is_some_and(|known| known != stored_nanos) {
            self.has_regressed = true;
            return Step::Regressed;
        }
        if stream <= self.last {
            self.is_overlap_due &= stream != self.last;
            return Step::Repeat;
        }
        if self.is_another(stream, stored_nanos) {
            self.has_regressed = true;
            return Step::Regressed;
        }
        self.next(stream, stored_nanos)
    }

    /// Takes in the message that follows the last one, which no consumer can bring.
    pub(crate) fn step_unreadable(&mut self, stream: u64, stored_nanos: i128) -> Step {
        if self.has_regressed || self.is_another(stream, stored_nanos) {
            self.has_regressed = true;
            return Step::Regressed;
        }
        let step = self.next(stream, stored_nanos);
        self.is_last_unreadable = true;
        step
    }

    /// Takes in a message beyond the last one: every one between them, if there is any, is gone.
    fn next(&mut self, stream: u64, stored_nanos: i128) -> Step {
        let was_overlap_due = std::mem::take(&mut self.is_overlap_due);
        // What came after that start was promised to whoever was there.
        let untouched_to = self.untouched_to.take().filter(|_| !was_overlap_due);
        let is_first = untouched_to.is_some_and(|end| stream <= end + 1);
        let is_lost = was_overlap_due || stream != self.last + 1;
        self.last = stream;
        self.named = self.named.max(stream);
        self.stored_nanos = Some(stored_nanos);
        self.is_last_unreadable = false;
        match is_lost {
            false => Step::Deliver,
            true if is_first => Step::DeliverAsFirst,
            true => Step::DeliverAfterLoss,
        }
    }

    /// Takes in a look at the end of the stream.
    pub(crate) fn looked(&mut self, look: &Look, state: StreamState) -> Seen {
        if self.created_nanos != Some(state.created_nanos) {
            return Seen::Broken("the stream was made again");
        }
        if self.is_other(state) {
            self.has_regressed = true;
            return Seen::Broken("the stream ends with another message than before");
        }
        self.named = self.named.max(state.last);
        self.name(state);
        if look.read_to != self.last || look.received != self.consumer {
            // What has come since tells.
            self.ending = Ending::default();
            return Seen::Nothing;
        }
        match self.ending.look(look, self.named()) {
            Found::Nothing => Seen::Nothing,
            Found::NotReceived => Seen::Broken("the consumer has sent what did not arrive"),
            Found::Shortened => Seen::Broken("the stream ends before our position"),
            Found::LostEnd => {
                // The next message must not report the same loss again.
                self.last = state.last;
                self.stored_nanos = state.last_stored();
                self.is_last_unreadable = false;
                self.is_overlap_due = false;
                Seen::LostEnd(state.base_at_end())
            }
        }
    }

    /// Whether the end of the stream is known to be whole.
    pub(crate) fn is_settled(&self) -> bool {
        self.ending.is_settled_at(self.last)
    }

    /// Remembers the stream's last message, if it is still to come.
    fn name(&mut self, state: StreamState) {
        let newest = self.awaited.back().map_or(self.last, |(pos, _)| self.last.max(*pos));
        if let Some(stored) = state.last_stored().filter(|_| state.last > newest) {
            self.awaited.truncate(AWAITED_MAX - 1);
            self.awaited.push_back((state.last, stored));
        }
    }

    /// Whether the stream had named another message at the position of one that comes.
    #[inline]
    fn is_another(&mut self, stream: u64, stored_nanos: i128) -> bool {
        let mut is_another = false;
        while let Some(&(pos, stored)) = self.awaited.front()
            && pos <= stream
        {
            is_another = pos == stream && stored != stored_nanos;
            self.awaited.pop_front();
        }
        is_another
    }

    /// Whether the stream's last message has a position at which it had named another one.
    fn is_other(&self, state: StreamState) -> bool {
        let Some(stored) = state.last_stored() else { return false };
        self.awaited.iter().any(|(pos, known)| *pos == state.last && *known != stored)
    }

    /// Whether the stream's last message has our last position, and is another one.
    fn is_other_last(&self, state: StreamState) -> bool {
        state.last == self.last
            && self.stored_nanos.zip(state.last_stored()).is_some_and(|(ours, its)| ours != its)
    }

    /// Goes on with the first message that the stream holds, or with the next one if it holds none.
    fn begin_before(&mut self, state: StreamState) {
        self.last = state.first.saturating_sub(1);
        self.stored_nanos = if state.is_empty() { state.last_stored() } else { None };
        self.is_last_unreadable = false;
        self.untouched_to = Some(state.last);
        self.is_overlap_due = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Kept, Position, StreamPos};

    const LIFE: i128 = 1_000;

    /// Message n is stored at n nanoseconds.
    fn state(first: u64, last: u64) -> StreamState {
        let last_stored_nanos = i128::from(last);
        StreamState { created_nanos: LIFE, first, last, last_stored_nanos, kept: Kept::All }
    }

    /// A tracker that has read the messages `1..=last`.
    fn reader_at(last: u64) -> Tracker {
        let mut tracker = Tracker::default();
        assert_eq!(tracker.contact(state(1, last)), Contact::Fresh(Why::First));
        for n in 1..=last {
            assert_eq!(tracker.step(n, n, i128::from(n)), Step::Deliver);
        }
        tracker
    }

    #[test]
    fn contacts() {
        let overtaken = |messages| Contact::Overtaken { messages };
        let regressed = Contact::Fresh(Why::Regressed);
        let other_last = StreamState { last_stored_nanos: 999, ..state(11, 10) };
        let new_life = StreamState { created_nanos: 2_000, ..state(1, 50) };
        let new_empty_life = StreamState { created_nanos: 2_000, ..state(0, 0) };
        let cases = [
            ("same stream, more messages", state(1, 15), Contact::Continues, Some(10)),
            ("same stream, nothing new", state(1, 10), Contact::Continues, Some(10)),
            ("all aged out, nothing missed", state(11, 10), Contact::Continues, Some(10)),
            ("the next is the oldest", state(11, 20), Contact::Continues, Some(10)),
            ("five were missed", state(16, 20), overtaken(5), Some(16)),
            ("all aged out, ten missed", state(21, 20), overtaken(10), Some(20)),
            ("the tail is lost", state(1, 9), regressed, None),
            ("given out again, and aged out", other_last, regressed, Some(10)),
            ("a new life", new_life, Contact::Fresh(Why::Recreated), None),
            ("a new life, empty", new_empty_life, Contact::Fresh(Why::Recreated), None),
        ];
        for (name, seen, expected, start) in cases {
            let mut tracker = reader_at(10);
            assert_eq!(tracker.is_beyond(seen), seen.created_nanos == LIFE && seen.last < 10);
            assert_eq!(tracker.contact(seen), expected, "{name}");
            assert_eq!(tracker.start(), start, "{name}");
        }
    }

    #[test]
    fn steps_after_a_rebuild() {
        let cases = [
            ("the overlap", (10, 1, 10), Step::Repeat),
            ("another message at our position", (10, 1, 999), Step::Regressed),
            ("ours is gone", (11, 1, 11), Step::DeliverAfterLoss),
            ("a message lost on the way", (10, 2, 10), Step::Hole),
            ("older than ours", (9, 1, 9), Step::Repeat),
        ];
        for (name, (stream, consumer, stored), expected) in cases {
            for seen in [state(1, 20), state(10, 20), state(11, 20)] {
                let mut tracker = reader_at(10);
                assert_eq!(tracker.contact(seen), Contact::Continues);
                assert_eq!(tracker.step(stream, consumer, stored), expected, "{name}");
            }
        }
        let mut tracker = reader_at(10);
        assert_eq!(tracker.contact(state(11, 10)), Contact::Continues);
        assert_eq!(tracker.step(11, 1, 11), Step::Deliver, "the stream had named our last one");
    }

    #[test]
    fn a_consumer_is_of_the_stream_that_was_contacted() {
        let other = |last| StreamState { last_stored_nanos: 999, ..state(1, last) };
        let cases = [
            ("nothing new", state(1, 10), true, Step::Deliver),
            ("more messages", state(1, 12), true, Step::DeliverAfterLoss),
            ("the tail is lost", state(1, 9), false, Step::Deliver),
            ("given out again", other(10), false, Step::Deliver),
            ("given out again, and more", other(12), true, Step::DeliverAfterLoss),
            (
                "another life",
                StreamState { created_nanos: 2, ..state(1, 10) },
                false,
                Step::Deliver,
            ),
        ];
        for (name, now, expected, next) in cases {
            let mut tracker = reader_at(10);
            assert_eq!(tracker.contact(state(1, 10)), Contact::Continues);
            assert_eq!(tracker.opened(now), expected, "{name}");
            if expected {
                assert_eq!(tracker.step(11, 1, 11), next, "{name}: ours did not come again");
            }
        }
        let mut tracker = reader_at(10);
        assert_eq!(tracker.contact(state(1, 15)), Contact::Continues);
        assert!(!tracker.opened(state(1, 14)), "it had named more");
        assert!(!tracker.opened(other(15)), "it had named another");
    }

    #[test]
    fn a_jump_of_the_stream_is_a_loss() {
        let mut tracker = reader_at(10);
        assert_eq!(tracker.step(12, 11, 12), Step::DeliverAfterLoss);
        assert_eq!(tracker.step(13, 12, 13), Step::Deliver);
    }

    #[test]
    fn a_message_that_no_consumer_can_bring_is_found_and_compared_by_other_means() {
        let mut tracker = reader_at(10);
        assert_eq!(tracker.step_unreadable(11, 11), Step::Deliver);
        assert_eq!(tracker.contact(state(1, 20)), Contact::Continues);
        assert_eq!((tracker.start(), tracker.unreadable_last()), (Some(12), Some(11)));
        tracker.overlaps(11);
        assert_eq!(tracker.unreadable_last(), None);
        assert_eq!(tracker.step(12, 1, 12), Step::Deliver);
        assert_eq!(tracker.step_unreadable(14, 14), Step::DeliverAfterLoss);
        assert_eq!(tracker.contact(state(1, 20)), Contact::Continues);
        tracker.overlaps(999);
        assert_eq!(tracker.step(15, 1, 15), Step::DeliverAfterLoss, "it is another one");
    }

    #[test]
    fn the_first_message_of_an_aging_stream_tells_nobody_of_a_loss() {
        let mut tracker = Tracker::default();
        assert_eq!(tracker.contact(state(5_000, 5_100)), Contact::Fresh(Why::First));
        let again = tracker.contact(state(5_001, 5_100));
        assert_eq!(again, Contact::Fresh(Why::First), "there was no consumer at first");
        assert_eq!(tracker.step(5_003, 1, 1), Step::DeliverAsFirst, "two aged while starting");
        assert_eq!(tracker.step(5_005, 2, 1), Step::DeliverAfterLoss);
    }

    #[test]
    fn a_regression_is_followed_by_a_fresh_start() {
        let mut tracker = reader_at(10);
        assert_eq!(tracker.contact(state(1, 30)), Contact::Continues);
        assert_eq!(tracker.step(10, 1, 999), Step::Regressed);
        assert_eq!(tracker.contact(state(1, 30)), Contact::Fresh(Why::Regressed));
        assert_eq!(tracker.step(1, 1, 1), Step::Deliver);
        assert_eq!(tracker.contact(state(1, 30)), Contact::Continues);
    }

    #[test]
    fn a_quiet_start_knows_the_last_message_and_sees_it_given_out_again() {
        let quiet = || {
            let mut tracker = Tracker::default();
            assert_eq!(tracker.contact(state(11, 10)), Contact::Fresh(Why::First));
            assert_eq!(tracker.start(), Some(10));
            tracker
        };
        let mut tracker = quiet();
        assert_eq!(tracker.contact(state(11, 10)), Contact::Continues);
        assert_eq!(tracker.step(11, 1, 11), Step::Deliver);
        let mut tracker = quiet();
        assert_eq!(tracker.contact(state(1, 5)), Contact::Fresh(Why::Regressed));
        let again = |last| StreamState { last_stored_nanos: 999, ..state(1, last) };
        assert_eq!(quiet().contact(again(10)), Contact::Fresh(Why::Regressed));
        let mut tracker = quiet();
        assert_eq!(tracker.contact(again(12)), Contact::Continues);
        assert_eq!(tracker.step(10, 1, 998), Step::Regressed);
        let mut tracker = quiet();
        assert_eq!(tracker.contact(StreamState { first: 11, ..again(12) }), Contact::Continues);
        assert_eq!(tracker.step(11, 1, 11), Step::DeliverAfterLoss, "it cannot be compared");
    }

    #[test]
    fn a_stream_that_ends_before_what_it_has_named_lost_its_tail() {
        let mut tracker = reader_at(10);
        assert_eq!(tracker.contact(state(1, 20)), Contact::Continues);
        assert_eq!(tracker.contact(state(1, 15)), Contact::Fresh(Why::Regressed));
        assert_eq!(tracker.contact(state(1, 16)), Contact::Continues);
    }

    #[test]
    fn a_durable_consumer_repeats_and_goes_on() {
        let mut tracker = reader_at(10);
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
    fn a_lost_end_is_told_once_with_the_position_behind_it() {
        let mut tracker = reader_at(10);
        let seen = StreamState { last_stored_nanos: 13_000_000, ..state(1, 13) };
        let look = Look { read_to: 10, received: 10, last: 13, sent: 10, pending: 0 };
        assert_eq!(tracker.looked(&look, seen), Seen::Nothing);
        let after = Some(Position { pos: StreamPos(13), ts_ms: 13 });
        let lost = Base { after, whole_from: StreamPos(14) };
        assert_eq!(tracker.looked(&look, seen), Seen::LostEnd(lost));
        let whole = Look { read_to: 13, ..look };
        assert_eq!(tracker.looked(&whole, seen), Seen::Nothing);
        assert!(tracker.is_settled());
        assert_eq!(tracker.step(14, 11, 14_000_000), Step::Deliver);
        assert!(!tracker.is_settled());
    }

    #[test]
    fn what_comes_during_a_look_makes_it_say_nothing() {
        let mut tracker = reader_at(10);
        let look = Look { read_to: 9, received: 9, last: 10, sent: 9, pending: 0 };
        for _ in 0..3 {
            assert_eq!(tracker.looked(&look, state(1, 10)), Seen::Nothing);
        }
        let other = StreamState { created_nanos: 2_000, ..state(1, 10) };
        assert!(matches!(tracker.looked(&look, other), Seen::Broken(_)));
    }
}
