//! Where an ordered consumer is in its stream, and what that says about what arrives. Pure.
//!
//! The stream sequence may have holes (a filter, a purge, old messages discarded); the consumer
//! sequence has none, so a hole there means that a message was lost on the way.

/// What a stream turned out to be at a (re)connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contact {
    /// Nothing was read before: read everything that is retained.
    First,
    /// The same stream: go on after what was read.
    Continue,
    /// Another creation time: the stream was deleted and made again.
    Recreated,
    /// The same creation time, but its end is before what was read: the broker lost its tail, or
    /// went back to a backup.
    WentBack,
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The next one: publish it.
    Take,
    /// Seen before, as after a rebuild of the consumer: drop it.
    Duplicate,
    /// The consumer skipped something: drop it and rebuild the consumer.
    Hole,
}

/// The position of one instance in one stream.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    created_ns: Option<i128>,
    last_sequence: u64,
    consumer_sequence: u64,
}

impl Tracker {
    /// The stream was found with this creation time and last sequence. After anything but
    /// [`Contact::Continue`] the position is at the beginning.
    pub(super) fn contact(&mut self, created_ns: i128, stream_last: u64) -> Contact {
        let contact = match self.created_ns {
            None => Contact::First,
            Some(before) if before != created_ns => Contact::Recreated,
            Some(_) if stream_last < self.last_sequence => Contact::WentBack,
            Some(_) => Contact::Continue,
        };
        if contact != Contact::Continue {
            *self = Self { created_ns: Some(created_ns), ..Self::default() };
        }
        contact
    }

    /// A new consumer counts from one again. The sequence to start from; `None`: from the first.
    pub(super) fn consumer_made(&mut self) -> Option<u64> {
        self.consumer_sequence = 0;
        self.last_sequence.checked_add(1).filter(|start| *start > 1)
    }

    /// A message arrived.
    pub(super) fn message(&mut self, stream_sequence: u64, consumer_sequence: u64) -> Verdict {
        if consumer_sequence != self.consumer_sequence + 1 {
            return Verdict::Hole;
        }
        self.consumer_sequence = consumer_sequence;
        if stream_sequence <= self.last_sequence {
            return Verdict::Duplicate;
        }
        self.last_sequence = stream_sequence;
        Verdict::Take
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_read_from_its_first_message_then_from_the_next() {
        let mut tracker = Tracker::default();
        assert_eq!(tracker.contact(7, 20), Contact::First);
        assert_eq!(tracker.consumer_made(), None);
        assert_eq!(tracker.message(11, 1), Verdict::Take);
        assert_eq!(tracker.message(15, 2), Verdict::Take);
        assert_eq!(tracker.contact(7, 20), Contact::Continue);
        assert_eq!(tracker.consumer_made(), Some(16));
        assert_eq!(tracker.message(15, 1), Verdict::Duplicate);
        assert_eq!(tracker.message(20, 2), Verdict::Take);
    }

    #[test]
    fn a_hole_in_the_consumer_sequence_is_found_and_nothing_is_skipped() {
        let mut tracker = Tracker::default();
        tracker.contact(7, 20);
        tracker.consumer_made();
        assert_eq!(tracker.message(1, 1), Verdict::Take);
        assert_eq!(tracker.message(3, 3), Verdict::Hole);
        assert_eq!(tracker.consumer_made(), Some(2));
        assert_eq!(tracker.message(2, 1), Verdict::Take);
    }

    #[test]
    fn a_new_life_and_a_lost_tail_begin_again() {
        let mut tracker = Tracker::default();
        tracker.contact(7, 20);
        tracker.consumer_made();
        tracker.message(20, 1);
        assert_eq!(tracker.contact(7, 19), Contact::WentBack);
        assert_eq!(tracker.consumer_made(), None);
        assert_eq!(tracker.message(5, 1), Verdict::Take);
        assert_eq!(tracker.contact(8, 50), Contact::Recreated);
        assert_eq!(tracker.consumer_made(), None);
        assert_eq!(tracker.message(1, 1), Verdict::Take);
    }
}
