//! PURE: whether anything is missing at the end of the stream, where no later message shows it.
//!
//! A message that is lost shows as a jump as soon as another one comes. If none comes, the stream
//! and the consumer are looked at: the stream first, then the consumer. If the consumer has nothing
//! more to send, every position up to the last one that the stream had named before was sent, or is
//! gone. A node of a cluster that answers for the consumer may be behind the one that answers for the
//! stream: so one look is a suspicion, and a second one in a row with the same numbers is believed.

/// What a look found. The stream was asked first, then its consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// The last stream sequence that had been read before they were asked.
    pub(crate) read_to: u64,
    /// The consumer's sequence of the last message that had come before they were asked.
    pub(crate) received: u64,
    /// The last stream sequence that was given out.
    pub(crate) last: u64,
    /// The consumer's sequence of the last message that it has sent, to anybody.
    pub(crate) sent: u64,
    /// Messages that the consumer has still to send.
    pub(crate) pending: u64,
}

/// What a look means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing, or not yet.
    Nothing,
    /// The consumer has sent messages, and they did not come: somebody else took them.
    NotReceived,
    /// The stream ends before what was read, or before what it had named.
    Shortened,
    /// The last messages are gone, and were never sent.
    LostEnd,
}

/// What the looks so far have found.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// What was read when nothing was missing.
    settled_at: Option<u64>,
    /// The suspicion of the look before this one.
    suspicion: Option<(Found, Look)>,
}

impl Ending {
    /// Takes in a look, if nothing has come since it began, at a stream that has named positions up
    /// to `named`.
    pub(super) fn look(&mut self, look: &Look, named: u64) -> Found {
        let found = match look {
            Look { pending: 1.., .. } => Found::Nothing,
            Look { sent, received, .. } if sent != received => Found::NotReceived,
            Look { last, .. } if *last < named => Found::Shortened,
            Look { last, read_to, .. } if last > read_to => Found::LostEnd,
            _ => {
                self.settled_at = Some(look.read_to);
                Found::Nothing
            }
        };
        let suspicion = (found != Found::Nothing).then_some((found, *look));
        let before = std::mem::replace(&mut self.suspicion, suspicion);
        if suspicion.is_some() {
            self.settled_at = None;
        }
        match suspicion {
            Some(_) if before == suspicion => found,
            _ => Found::Nothing,
        }
    }

    /// Whether nothing was missing when this had been read.
    pub(super) fn is_settled_at(&self, read_to: u64) -> bool {
        self.settled_at == Some(read_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that has read 10 messages, its consumer's seven, of a stream that ends there.
    const WHOLE: Look = Look { read_to: 10, received: 7, last: 10, sent: 7, pending: 0 };

    #[test]
    fn a_suspicion_is_believed_when_the_next_look_finds_the_same() {
        let cases = [
            ("whole", WHOLE, Found::Nothing),
            ("more to come", Look { last: 15, pending: 5, ..WHOLE }, Found::Nothing),
            ("taken by somebody", Look { last: 12, sent: 9, ..WHOLE }, Found::NotReceived),
            ("the last three are gone", Look { last: 13, ..WHOLE }, Found::LostEnd),
            ("an older store", Look { last: 6, ..WHOLE }, Found::Shortened),
        ];
        for (name, look, expected) in cases {
            let mut ending = Ending::default();
            assert_eq!(ending.look(&look, look.read_to), Found::Nothing, "{name}");
            assert_eq!(ending.look(&look, look.read_to), expected, "{name}");
            assert_eq!(ending.is_settled_at(10), look == WHOLE, "{name}");
        }
    }

    #[test]
    fn another_suspicion_begins_anew() {
        let mut ending = Ending::default();
        for last in [11, 12, 13] {
            assert_eq!(ending.look(&Look { last, ..WHOLE }, 10), Found::Nothing, "{last}");
        }
        assert_eq!(ending.look(&WHOLE, 10), Found::Nothing);
        assert!(ending.is_settled_at(10) && !ending.is_settled_at(11));
        assert_eq!(ending.look(&Look { last: 13, ..WHOLE }, 10), Found::Nothing);
        assert!(!ending.is_settled_at(10));
    }
}
