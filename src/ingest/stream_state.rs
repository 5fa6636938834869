//! PURE: what a stream says of itself, and what readers of its first message know from that.

use crate::position::{Base, Position, StreamPos};

/// What a stream says of itself at a contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamState {
    /// When it was created, in nanoseconds since the Unix epoch.
    pub(crate) created_nanos: i128,
    /// The first sequence that is retained; `last` + 1 or 0 if there is none.
    pub(crate) first: u64,
    /// The last sequence that was given out.
    pub(crate) last: u64,
    /// The store time of that message, even if it is no longer retained; negative if the stream
    /// does not say.
    pub(crate) last_stored_nanos: i128,
    /// Whether its sequence has holes that mean nothing.
    pub(crate) holes: Holes,
}

impl StreamState {
    /// What is known about the messages that a reader gets from the first one on.
    pub(crate) fn base(&self) -> Base {
        let last_stored_ms = u64::try_from(self.last_stored_nanos / 1_000_000).unwrap_or_default();
        let after = if self.last == 0 || self.first == 1 {
            Some(Position::default())
        } else if self.first > self.last && last_stored_ms > 0 {
            Some(Position { pos: StreamPos(self.last), ts_ms: last_stored_ms })
        } else {
            None
        };
        // What is retained of such a stream is not all that was published.
        let discarded_to = if self.holes == Holes::Anywhere { self.last } else { 0 };
        Base { after, whole_from: StreamPos(discarded_to) }
    }
}

/// Where the stream sequence may have holes without a loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Holes {
    /// Nowhere: everything is read, and only the oldest messages are discarded.
    #[default]
    Never,
    /// Where a filter leaves messages out.
    Filtered,
    /// Anywhere: the stream discards messages from its middle (a limit per subject, expiry per
    /// message).
    Anywhere,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(first: u64, last: u64) -> StreamState {
        let last_stored_nanos = i128::from(last);
        StreamState { created_nanos: 1_000, first, last, last_stored_nanos, holes: Holes::Never }
    }

    #[test]
    fn what_is_known_at_a_contact() {
        let at = |pos, ts_ms| Some(Position { pos: StreamPos(pos), ts_ms });
        let day = 86_400_000_000_000;
        let cases = [
            ("nothing was ever published", state(0, 0), at(0, 0), 0),
            ("everything is retained", state(1, 9), at(0, 0), 0),
            ("the oldest have aged out", state(5, 9), None, 0),
            (
                "all have aged out",
                StreamState { last_stored_nanos: day + 5_999_999, ..state(10, 9) },
                at(9, 86_400_005),
                0,
            ),
            (
                "the stream does not say",
                StreamState { last_stored_nanos: -1, ..state(10, 9) },
                None,
                0,
            ),
            (
                "messages go from its middle",
                StreamState { holes: Holes::Anywhere, ..state(5, 9) },
                None,
                9,
            ),
        ];
        for (name, state, after, whole_from) in cases {
            let expected = Base { after, whole_from: StreamPos(whole_from) };
            assert_eq!(state.base(), expected, "{name}");
        }
    }
}
