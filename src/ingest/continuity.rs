//! Whether a stream discarded messages before they were read, where its sequence cannot tell.
//!
//! If a stream holds more subjects than are read, or discards messages from its middle, its sequence
//! has holes. A hole may be a message that was never for us, or a message of ours that was discarded
//! before it was read. If only the oldest messages are discarded, the first retained message tells:
//! everything from it on could be read. So the stream and the consumer are probed while they are
//! read: once a second in the background, and before a message after a hole is passed on, if the
//! last probe that found nothing waiting is older than [`FRESH`].
//!
//! If the sequence has no holes, a probe tells only whether the very last messages are gone. The
//! next message that comes shows any other loss.
//!
//! Pure: it knows no NATS types and no IO; the time is passed in. Bounds: if a stream discards a
//! message less than [`FRESH`] after it was stored, messages behind it may be passed on until the
//! next probe finds the loss; and clients are told once per [`TELL_EVERY`] at most.

use std::time::{Duration, Instant};

use super::stream_state::{Holes, StreamState};
use crate::position::StreamPos;

/// For this long after a probe found nothing waiting, no message can have been discarded unread
/// unless it was stored since. Streams keep messages for longer, and three probes may fail.
const FRESH: Duration = Duration::from_secs(4);

/// Time between two reports to clients that messages may be lost: if a stream turns over within a
/// second, every probe suspects a loss.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What a probe found: the stream was asked, then its consumer, then the stream again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probe {
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
    /// When a probe found last that nothing waited to be read.
    fresh_at: Option<Instant>,
    /// When clients were told last.
    told_at: Option<Instant>,
    /// The last message that was handled when the consumer had nothing more to send.
    settled_at: Option<u64>,
}

impl Continuity {
    /// Everything after `handled` was given up and will be read again.
    pub(crate) fn give_up_after(&mut self, handled: u64) {
        self.proven_to = self.proven_to(handled);
        self.read_to = handled;
    }

    /// The position up to which nothing was discarded unread, if everything up to `handled` was
    /// handled and the messages behind it were given up.
    pub(crate) fn proven_to(&self, handled: u64) -> u64 {
        if handled >= self.read_to { self.proven_to.max(handled) } else { handled }
    }

    /// Begins anew with the stream's `state`, before a consumer is made that goes on after
    /// `handled`. Nothing up to `proven_to` was discarded unread.
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
            // Nothing is claimed about what was discarded from its middle up to now.
            Holes::Anywhere => (state.last, Some(now)),
            Holes::Filtered | Holes::Never => (proven_to.min(state.last).max(handled), None),
        };
    }

    /// Whether probes tell anything that the sequence does not. If it has no holes they tell one
    /// thing: the messages behind `handled` are gone, and no later message shows it.
    pub(crate) fn needs_probes(&self, handled: u64) -> bool {
        self.holes != Holes::Never || self.settled_at != Some(handled)
    }

    /// Whether the stream must be probed before the message at `next` is passed on. The message
    /// before it was `handled`.
    pub(crate) fn needs_probe_before(
        &self,
        handled: u64,
        next: u64,
        now: impl FnOnce() -> Instant,
    ) -> bool {
        self.holes != Holes::Never
            && next > handled + 1
            && next > self.proven_to
            && self.is_probe_due(now())
    }

    /// Clients must be told of a hole before `pos`; returns the position from which on nothing is
    /// missing. If the oldest messages aged away, that is `pos`: nothing follows for the others. If
    /// messages went from the middle (or one node of a cluster discards before the others), or one
    /// loss follows the other, one report covers every hole up to the end of the stream.
    pub(crate) fn lost(&mut self, pos: u64, probe: Option<&Probe>, now: Instant) -> u64 {
        let was_told = self.was_told(now);
        self.told_at = Some(now);
        match probe {
            Some(probe) if was_told || probe.first < pos => probe.last.max(pos),
            Some(_) | None => pos,
        }
    }

    /// For a sequence that shows each hole: finds a loss that no message follows.
    fn settle(&mut self, probe: &Probe) -> Option<StreamPos> {
        if !(probe.is_all_sent && probe.is_all_read) {
            return None;
        }
        let is_lost = probe.first > probe.read_to + 1;
        // The node that answers for the consumer may not know the stream's newest messages yet.
        self.settled_at = (is_lost || probe.last <= probe.read_to).then_some(probe.read_to);
        is_lost.then_some(StreamPos(probe.first))
    }

    fn is_probe_due(&self, now: Instant) -> bool {
        !self.is_fresh(now) && !self.was_told(now)
    }

    fn was_told(&self, now: Instant) -> bool {
        self.told_at.is_some_and(|at| now.saturating_duration_since(at) < TELL_EVERY)
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.fresh_at.is_some_and(|at| now.saturating_duration_since(at) <= FRESH)
    }

    /// Takes in a probe. If messages may have been discarded unread, returns the position from
    /// which on none were.
    pub(crate) fn probed(&mut self, probe: &Probe) -> Option<StreamPos> {
        let whole_from = match self.holes {
            Holes::Never => return self.settle(probe),
            Holes::Filtered => Some(probe.first).filter(|first| *first > self.proven_to + 1),
            Holes::Anywhere => {
                let is_new = probe.last > self.proven_to && !self.is_fresh(probe.asked);
                is_new.then_some(probe.last)
            }
        };
        if whole_from.is_some() {
            if self.was_told(probe.asked) {
                return None;
            }
            self.told_at = Some(probe.asked);
        }
        let proven_to = match whole_from {
            Some(_) if self.holes == Holes::Anywhere => probe.last,
            Some(first) => probe.read_to.max(first - 1),
            None if probe.is_all_sent && probe.is_all_read => probe.last,
            None if self.holes == Holes::Filtered => probe.read_to,
            None => 0,
        };
        if proven_to >= self.proven_to {
            self.proven_to = proven_to;
            self.read_to = probe.read_to;
        }
        let is_told = self.holes == Holes::Anywhere && whole_from.is_some();
        if probe.is_all_sent || is_told {
            self.fresh_at = Some(probe.asked);
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

    /// A probe of a reader that has handled `read_to` and has nothing to wait for.
    fn probe(asked: Instant, read_to: u64, first: u64, last: u64) -> Probe {
        Probe { asked, read_to, last, is_all_sent: true, is_all_read: true, first }
    }

    #[test]
    fn of_a_sequence_without_holes_only_its_end_is_probed() {
        let now = Instant::now();
        let mut continuity = reader(Holes::Never, now);
        assert!(!continuity.needs_probe_before(10, 50, || now));
        assert!(continuity.needs_probes(10), "once, for what nothing follows");
        assert_eq!(continuity.probed(&probe(now, 10, 11, 10)), None);
        assert!(!continuity.needs_probes(10));
        let waiting = Probe { is_all_sent: false, ..probe(now, 20, 50, 60) };
        assert_eq!(continuity.probed(&waiting), None, "the sequence will tell");
        let on_the_way = Probe { is_all_read: false, ..probe(now, 20, 50, 60) };
        assert_eq!(continuity.probed(&on_the_way), None, "the sequence will tell");
        assert!(continuity.needs_probes(20));
        assert_eq!(continuity.probed(&probe(now, 20, 1, 60)), None, "not taken in yet");
        assert!(continuity.needs_probes(20));
        assert_eq!(continuity.probed(&probe(now, 20, 61, 60)), Some(StreamPos(61)));
        assert_eq!(continuity.probed(&probe(now, 60, 61, 60)), None);
        assert!(!continuity.needs_probes(60));
    }

    #[test]
    fn a_window_that_ages_while_it_is_read_is_whole_after_the_hole() {
        let now = Instant::now();
        let mut continuity = reader(Holes::Never, now);
        let aged = Probe { is_all_sent: false, ..probe(now, 20, 20, 90) };
        assert_eq!(continuity.lost(20, Some(&aged), now), 20);
        let soon = now + TELL_EVERY / 2;
        assert_eq!(continuity.lost(25, Some(&aged), soon), 90, "one after the other");
        assert_eq!(continuity.lost(95, None, soon), 95, "no answer");
        let later = soon + 2 * TELL_EVERY;
        let middle = Probe { first: 1, last: 200, ..aged };
        assert_eq!(continuity.lost(120, Some(&middle), later), 200);
    }

    #[test]
    fn a_hole_needs_a_probe_unless_nothing_waited_lately() {
        let now = Instant::now();
        let mut continuity = reader(Holes::Filtered, now);
        assert!(continuity.needs_probe_before(10, 12, || now), "nothing is known yet");
        assert!(!continuity.needs_probe_before(10, 11, || now), "no hole");
        let waiting = Probe { is_all_sent: false, is_all_read: false, ..probe(now, 12, 1, 40) };
        assert_eq!(continuity.probed(&waiting), None);
        assert!(!continuity.needs_probe_before(10, 12, || now), "the probe began after it came");
        assert!(continuity.needs_probe_before(12, 14, || now), "but this one may have waited");
        assert_eq!(continuity.probed(&probe(now, 40, 1, 40)), None);
        assert!(!continuity.needs_probe_before(40, 45, || now + FRESH));
        assert!(continuity.needs_probe_before(40, 45, || now + FRESH + Duration::from_nanos(1)));
    }

    #[test]
    fn what_was_discarded_before_it_was_read_is_told_once() {
        let now = Instant::now();
        let mut continuity = reader(Holes::Filtered, now);
        assert_eq!(continuity.probed(&probe(now, 10, 11, 10)), None, "only what was read");
        let late = Probe { is_all_sent: false, is_all_read: false, ..probe(now + DAY, 45, 40, 90) };
        assert_eq!(continuity.probed(&late), Some(StreamPos(40)));
        assert_eq!(continuity.probed(&late), None);
        assert_eq!(continuity.probed(&probe(now + DAY, 90, 46, 90)), None);
        let again = |asked| probe(asked, 90, 92, 99);
        assert_eq!(continuity.probed(&again(now + DAY)), None, "not as often");
        assert!(!continuity.needs_probe_before(90, 95, || now + DAY), "nor asked for each message");
        assert_eq!(continuity.probed(&again(now + DAY + TELL_EVERY)), Some(StreamPos(92)));
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
            assert_eq!(continuity.probed(&probe(asked, 10, first, last)), None, "{second}");
            assert_eq!(continuity.proven_to(10), last);
        }
        assert_eq!(continuity.proven_to(9), 9, "if 10 has to be read again, nothing is proven");
    }

    #[test]
    fn what_has_come_but_was_not_handled_is_proven_only_while_it_is_held() {
        let now = Instant::now();
        let mut continuity = reader(Holes::Filtered, now);
        assert_eq!(continuity.probed(&probe(now, 30, 1, 40)), None);
        assert_eq!(continuity.proven_to(40), 40);
        assert_eq!(continuity.proven_to(20), 20);
        continuity.give_up_after(20);
        assert_eq!(continuity.probed(&probe(now, 40, 22, 40)), Some(StreamPos(22)));
    }

    #[test]
    fn discards_from_the_middle_are_told_when_messages_may_have_waited() {
        let now = Instant::now();
        let mut continuity = reader(Holes::Anywhere, now);
        assert!(!continuity.needs_probe_before(10, 15, || now + FRESH));
        let at = |seconds| now + Duration::from_secs(seconds);
        let waiting = |asked, last| Probe { is_all_sent: false, ..probe(asked, 12, 1, last) };
        assert_eq!(continuity.probed(&waiting(at(3), 50)), None, "not long yet");
        assert!(continuity.needs_probe_before(12, 15, || at(5)));
        assert_eq!(continuity.probed(&waiting(at(5), 60)), Some(StreamPos(60)));
        assert!(!continuity.needs_probe_before(15, 20, || at(10)), "told up to 60");
        assert_eq!(continuity.probed(&waiting(at(8), 70)), None, "4 s since then");
        assert_eq!(continuity.probed(&probe(at(9), 70, 1, 70)), None);
        assert_eq!(continuity.probed(&probe(at(100), 70, 1, 70)), None, "nothing was published");
        assert_eq!(continuity.probed(&probe(at(200), 80, 1, 80)), Some(StreamPos(80)), "asleep");
    }
}
