//! Whether a stream discarded messages before they were read, where its sequence cannot tell.
//!
//! A stream that holds more subjects than are read has holes in what is read of it, and so has one
//! that discards messages from its middle. A hole may be a message that was never ours, or one of
//! ours that was discarded before its turn came. Where only the oldest are discarded, the first
//! message that is retained tells: what is at or after it was there to be read. So the stream and
//! the consumer are looked at while they are read, once a second in the background, and before a
//! message after a hole is passed on if the last look that found nothing waiting is longer ago
//! than [`FRESH`].
//!
//! Where the sequence has no holes, a look tells only whether the last messages of all are gone:
//! any others are missed by the next one that comes.
//!
//! Pure: it knows no NATS types and no IO; the time is passed in. Bounds: a stream that discards
//! what was stored less than [`FRESH`] ago may lose a message and pass on those behind it, until
//! the next look; and clients are told every [`TELL_EVERY`] at most.

use std::time::{Duration, Instant};

use super::stream_state::{Holes, StreamState};
use crate::position::StreamPos;

/// How long it holds that nothing waited to be read: what is discarded unread in this time was
/// stored in it. Streams keep messages for longer, and three looks may fail.
const FRESH: Duration = Duration::from_secs(4);

/// Clients are told at most so often that messages may be lost: a stream that turns over within a
/// second is under suspicion all the time.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What a stream, then its consumer, then the stream again say of themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Before they were asked.
    pub(crate) asked: Instant,
    /// The last stream sequence that had come by then; nothing before it was on the way.
    pub(crate) read_to: u64,
    /// The last sequence that was given out, when the stream was asked first.
    pub(crate) last: u64,
    /// Whether the consumer had sent everything that is in the stream.
    pub(crate) is_all_sent: bool,
    /// Whether the last that it had sent was `read_to`.
    pub(crate) is_all_read: bool,
    /// The first sequence that was retained when the stream was asked again.
    pub(crate) first: u64,
}

/// Up to where it is known that nothing was discarded unread.
#[derive(Debug, Default)]
pub(crate) struct Continuity {
    holes: Holes,
    /// Nothing up to here was discarded unread, or clients were told.
    proven_to: u64,
    /// The last message that had come when that was found.
    read_to: u64,
    /// When nothing waited to be read.
    fresh_at: Option<Instant>,
    /// When clients were told last.
    told_at: Option<Instant>,
    /// The last message that was handled when the consumer had nothing more to send.
    settled_at: Option<u64>,
}

impl Continuity {
    /// Takes in that what came after `handled` was given up, to be read again.
    pub(crate) fn give_up_after(&mut self, handled: u64) {
        self.proven_to = self.proven_to(handled);
        self.read_to = handled;
    }

    /// Up to where nothing was discarded unread if everything up to `handled` was handled and
    /// what came behind it was given up.
    pub(crate) fn proven_to(&self, handled: u64) -> u64 {
        if handled >= self.read_to { self.proven_to.max(handled) } else { handled }
    }

    /// Takes in that the stream was looked at before a consumer is made that goes on after
    /// `handled`; nothing up to `proven_to` is in question.
    pub(crate) fn contact(
        &mut self,
        state: &StreamState,
        handled: u64,
        proven_to: u64,
        now: Instant,
    ) {
        self.holes = state.holes;
        self.settled_at = None;
        self.read_to = handled;
        (self.proven_to, self.fresh_at) = match state.holes {
            // Nothing is claimed of what was discarded from its middle up to now.
            Holes::Anywhere => (state.last, Some(now)),
            Holes::Filtered | Holes::Never => (proven_to.min(state.last).max(handled), None),
        };
    }

    /// Whether looks tell anything that the sequence does not: of one without holes only that the
    /// messages behind `handled` are gone, and none came after them that would tell.
    pub(crate) fn needs_looks(&self, handled: u64) -> bool {
        self.holes != Holes::Never || self.settled_at != Some(handled)
    }

    /// Whether there has to be a look before the message at `next` is passed on, the one before it
    /// being `handled`.
    pub(crate) fn is_doubtful(
        &self,
        handled: u64,
        next: u64,
        now: impl FnOnce() -> Instant,
    ) -> bool {
        self.holes != Holes::Never
            && next > handled + 1
            && next > self.proven_to
            && self.has_to_look(now())
    }

    /// Where clients go on that have to be told of a hole before `pos`. What aged away at the
    /// stream's begin says nothing of what follows; where messages go from its middle (or a node of
    /// a cluster discards before the others), or one loss follows the other, one word stands for
    /// all up to the stream's end.
    pub(crate) fn lost(&mut self, pos: u64, look: Option<&Look>, now: Instant) -> u64 {
        let was_told = self.was_told(now);
        self.told_at = Some(now);
        match look {
            Some(look) if was_told || look.first < pos => look.last.max(pos),
            Some(_) | None => pos,
        }
    }

    /// Where the sequence tells of each hole, only one that nothing follows is left to be found.
    fn settle(&mut self, look: &Look) -> Option<StreamPos> {
        if !(look.is_all_sent && look.is_all_read) {
            return None;
        }
        let is_lost = look.first > look.read_to + 1;
        // A node that answers for the consumer may have yet to take in what the stream has.
        self.settled_at = (is_lost || look.last <= look.read_to).then_some(look.read_to);
        is_lost.then_some(StreamPos(look.first))
    }

    fn has_to_look(&self, now: Instant) -> bool {
        !self.is_fresh(now) && !self.was_told(now)
    }

    fn was_told(&self, now: Instant) -> bool {
        self.told_at.is_some_and(|at| now.saturating_duration_since(at) < TELL_EVERY)
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.fresh_at.is_some_and(|at| now.saturating_duration_since(at) <= FRESH)
    }

    /// Takes in a look. If messages may have been discarded unread: from where on none were.
    pub(crate) fn looked(&mut self, look: &Look) -> Option<StreamPos> {
        let whole_from = match self.holes {
            Holes::Never => return self.settle(look),
            Holes::Filtered => Some(look.first).filter(|first| *first > self.proven_to + 1),
            Holes::Anywhere => {
                let is_new = look.last > self.proven_to && !self.is_fresh(look.asked);
                is_new.then_some(look.last)
            }
        };
        if whole_from.is_some() {
            if self.was_told(look.asked) {
                return None;
            }
            self.told_at = Some(look.asked);
        }
        let proven_to = match whole_from {
            Some(_) if self.holes == Holes::Anywhere => look.last,
            Some(first) => look.read_to.max(first - 1),
            None if look.is_all_sent && look.is_all_read => look.last,
            None if self.holes == Holes::Filtered => look.read_to,
            None => 0,
        };
        if proven_to >= self.proven_to {
            self.proven_to = proven_to;
            self.read_to = look.read_to;
        }
        let is_told = self.holes == Holes::Anywhere && whole_from.is_some();
        if look.is_all_sent || is_told {
            self.fresh_at = Some(look.asked);
        }
        whole_from.map(StreamPos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn state(holes: Holes, first: u64, last: u64) -> StreamState {
        StreamState { created_nanos: 1, first, last, last_stored_nanos: 0, holes }
    }

    /// A reader that has handled everything up to 10 of a stream that ends there.
    fn reader(holes: Holes, now: Instant) -> Continuity {
        let mut continuity = Continuity::default();
        continuity.contact(&state(holes, 1, 10), 10, 10, now);
        continuity
    }

    /// A look of a reader that has `read_to` handled and nothing to wait for.
    fn look(asked: Instant, read_to: u64, first: u64, last: u64) -> Look {
        Look { asked, read_to, last, is_all_sent: true, is_all_read: true, first }
    }

    #[test]
    fn of_a_sequence_without_holes_only_its_end_is_looked_at() {
        let now = Instant::now();
        let mut continuity = reader(Holes::Never, now);
        assert!(!continuity.is_doubtful(10, 50, || now));
        assert!(continuity.needs_looks(10), "once, for what nothing follows");
        assert_eq!(continuity.looked(&look(now, 10, 11, 10)), None);
        assert!(!continuity.needs_looks(10));
        let waiting = Look { is_all_sent: false, ..look(now, 20, 50, 60) };
        assert_eq!(continuity.looked(&waiting), None, "the sequence will tell");
        let on_the_way = Look { is_all_read: false, ..look(now, 20, 50, 60) };
        assert_eq!(continuity.looked(&on_the_way), None, "the sequence will tell");
        assert!(continuity.needs_looks(20));
        assert_eq!(continuity.looked(&look(now, 20, 1, 60)), None, "not taken in yet");
        assert!(continuity.needs_looks(20));
        assert_eq!(continuity.looked(&look(now, 20, 61, 60)), Some(StreamPos(61)));
        assert_eq!(continuity.looked(&look(now, 60, 61, 60)), None);
        assert!(!continuity.needs_looks(60));
    }

    #[test]
    fn a_window_that_ages_while_it_is_read_is_whole_after_the_hole() {
        let now = Instant::now();
        let mut continuity = reader(Holes::Never, now);
        let aged = Look { is_all_sent: false, ..look(now, 20, 20, 90) };
        assert_eq!(continuity.lost(20, Some(&aged), now), 20);
        let soon = now + TELL_EVERY / 2;
        assert_eq!(continuity.lost(25, Some(&aged), soon), 90, "one after the other");
        assert_eq!(continuity.lost(95, None, soon), 95, "no answer");
        let later = soon + 2 * TELL_EVERY;
        let middle = Look { first: 1, last: 200, ..aged };
        assert_eq!(continuity.lost(120, Some(&middle), later), 200);
    }

    #[test]
    fn a_hole_is_doubtful_unless_nothing_waited_lately() {
        let now = Instant::now();
        let mut continuity = reader(Holes::Filtered, now);
        assert!(continuity.is_doubtful(10, 12, || now), "nothing is known yet");
        assert!(!continuity.is_doubtful(10, 11, || now), "no hole");
        let waiting = Look { is_all_sent: false, is_all_read: false, ..look(now, 12, 1, 40) };
        assert_eq!(continuity.looked(&waiting), None);
        assert!(!continuity.is_doubtful(10, 12, || now), "the look was later than its coming");
        assert!(continuity.is_doubtful(12, 14, || now), "but this one may have waited");
        assert_eq!(continuity.looked(&look(now, 40, 1, 40)), None);
        assert!(!continuity.is_doubtful(40, 45, || now + FRESH));
        assert!(continuity.is_doubtful(40, 45, || now + FRESH + Duration::from_nanos(1)));
    }

    #[test]
    fn what_was_discarded_before_it_was_read_is_told_once() {
        let now = Instant::now();
        let mut continuity = reader(Holes::Filtered, now);
        assert_eq!(continuity.looked(&look(now, 10, 11, 10)), None, "only what was read");
        let late = Look { is_all_sent: false, is_all_read: false, ..look(now + DAY, 45, 40, 90) };
        assert_eq!(continuity.looked(&late), Some(StreamPos(40)));
        assert_eq!(continuity.looked(&late), None);
        assert_eq!(continuity.looked(&look(now + DAY, 90, 46, 90)), None);
        let again = |asked| look(asked, 90, 92, 99);
        assert_eq!(continuity.looked(&again(now + DAY)), None, "not as often");
        assert!(!continuity.is_doubtful(90, 95, || now + DAY), "nor asked for each message");
        assert_eq!(continuity.looked(&again(now + DAY + TELL_EVERY)), Some(StreamPos(92)));
    }

    #[test]
    fn the_others_messages_may_age_away_while_ours_are_rare() {
        let now = Instant::now();
        let mut continuity = reader(Holes::Filtered, now);
        for second in 1..1_000_u64 {
            // Ten of others a second, of which the stream keeps a hundred.
            let last = 10 + second * 10;
            let first = last.saturating_sub(99);
            let asked = now + Duration::from_secs(second);
            assert_eq!(continuity.looked(&look(asked, 10, first, last)), None, "{second}");
            assert_eq!(continuity.proven_to(10), last);
        }
        assert_eq!(continuity.proven_to(9), 9, "if 10 has to be read again, nothing is proven");
    }

    #[test]
    fn what_has_come_but_was_not_handled_is_proven_only_while_it_is_held() {
        let now = Instant::now();
        let mut continuity = reader(Holes::Filtered, now);
        assert_eq!(continuity.looked(&look(now, 30, 1, 40)), None);
        assert_eq!(continuity.proven_to(40), 40);
        assert_eq!(continuity.proven_to(20), 20);
        continuity.give_up_after(20);
        assert_eq!(continuity.looked(&look(now, 40, 22, 40)), Some(StreamPos(22)));
    }

    #[test]
    fn discards_from_the_middle_are_told_when_messages_may_have_waited() {
        let now = Instant::now();
        let mut continuity = reader(Holes::Anywhere, now);
        assert!(!continuity.is_doubtful(10, 15, || now + FRESH));
        let at = |seconds| now + Duration::from_secs(seconds);
        let waiting = |asked, last| Look { is_all_sent: false, ..look(asked, 12, 1, last) };
        assert_eq!(continuity.looked(&waiting(at(3), 50)), None, "not long yet");
        assert!(continuity.is_doubtful(12, 15, || at(5)));
        assert_eq!(continuity.looked(&waiting(at(5), 60)), Some(StreamPos(60)));
        assert!(!continuity.is_doubtful(15, 20, || at(10)), "told up to 60");
        assert_eq!(continuity.looked(&waiting(at(8), 70)), None, "4 s since then");
        assert_eq!(continuity.looked(&look(at(9), 70, 1, 70)), None);
        assert_eq!(continuity.looked(&look(at(100), 70, 1, 70)), None, "nothing was published");
        assert_eq!(continuity.looked(&look(at(200), 80, 1, 80)), Some(StreamPos(80)), "asleep");
    }
}
