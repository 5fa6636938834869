//! PURE: what a stream says of itself, and what readers of its first message know from that.

use crate::position::{Base, Kept, Position, StreamPos};

/// What a stream says of itself at a contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamState {
    /// When it was created, in nanoseconds since the Unix epoch.
    pub(crate) created_nanos: i128,
    /// The first sequence that is retained; `last` + 1 or 0 if there is none.
    pub(crate) first: u64,
    /// The last sequence that was given out.
    pub(crate) last: u64,
    /// The store time of that message, even if it is no longer retained; not positive if the stream
    /// does not say.
    pub(crate) last_stored_nanos: i128,
    /// How many messages of each subject it keeps.
    pub(crate) kept: Kept,
}

impl StreamState {
    /// What is known about the messages that a reader gets from the first one on, if the stream gave
    /// each position to one message only.
    pub(crate) fn base(&self) -> Base {
        let after = if self.last == 0 || self.first == 1 {
            Some(Position::default())
        } else if self.is_empty() {
            self.last_position()
        } else {
            None
        };
        Base { after, whole_from: StreamPos::default() }
    }

    /// What is known after messages were lost up to its first one, or all of them.
    pub(crate) fn base_after_loss(&self) -> Base {
        match self.is_empty() {
            true => self.base_at_end(),
            false => Base { after: None, whole_from: StreamPos(self.first) },
        }
    }

    /// What is known after messages were lost up to its last one.
    pub(crate) fn base_at_end(&self) -> Base {
        Base { after: self.last_position(), whole_from: StreamPos(self.last + 1) }
    }

    /// What is known after it gave positions out a second time: nothing of what it has now. Who
    /// knows the messages that had them before misses them, wherever they were.
    pub(crate) fn base_after_regression(&self) -> Base {
        Base { after: None, whole_from: StreamPos(self.last + 1) }
    }

    /// Whether it holds no message.
    pub(crate) fn is_empty(&self) -> bool {
        self.first > self.last || self.last == 0
    }

    /// The store time of its last message, if it says so.
    pub(crate) fn last_stored(&self) -> Option<i128> {
        Some(self.last_stored_nanos).filter(|nanos| *nanos > 0)
    }

    fn last_position(&self) -> Option<Position> {
        let ts_ms = u64::try_from(self.last_stored()? / 1_000_000).ok()?;
        Some(Position { pos: StreamPos(self.last), ts_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(first: u64, last: u64) -> StreamState {
        let last_stored_nanos = i128::from(last);
        StreamState { created_nanos: 1_000, first, last, last_stored_nanos, kept: Kept::All }
    }

    #[test]
    fn what_is_known_at_a_contact() {
        let at = |pos, ts_ms| Some(Position { pos: StreamPos(pos), ts_ms });
        let day = 86_400_000_000_000;
        let aged = StreamState { last_stored_nanos: day + 5_999_999, ..state(10, 9) };
        let silent = StreamState { last_stored_nanos: -1, ..state(10, 9) };
        let cases = [
            ("nothing was ever published", state(0, 0), at(0, 0)),
            ("everything is retained", state(1, 9), at(0, 0)),
            ("the oldest have aged out", state(5, 9), None),
            ("all have aged out", aged, at(9, 86_400_005)),
            ("the stream does not say", silent, None),
        ];
        for (name, state, after) in cases {
            assert_eq!(state.base(), Base { after, whole_from: StreamPos(0) }, "{name}");
        }
        let lost = |after, whole_from| Base { after, whole_from: StreamPos(whole_from) };
        assert_eq!(state(5, 9).base_after_loss(), lost(None, 5));
        assert_eq!(aged.base_after_loss(), lost(at(9, 86_400_005), 10));
        assert_eq!(silent.base_after_loss(), lost(None, 10));
        assert_eq!(StreamState { first: 3, ..aged }.base_at_end(), lost(at(9, 86_400_005), 10));
        assert_eq!(aged.base_after_regression(), lost(None, 10));
    }
}
