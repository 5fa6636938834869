//! PURE: how long a shortage of memory or CPU holds the source back.
//!
//! Bounds: a pause lasts [`PAUSE_MAX`] at most, then [`MESSAGES_LET_THROUGH`] are taken before the
//! next one. The source may not be what causes the shortage, and clients must not starve for it.

use std::time::{Duration, Instant};

/// The longest pause. Shorter than the two missed heartbeats after which a source would take its
/// broker for dead.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Messages that are taken between two pauses: a pull of JetStream.
const MESSAGES_LET_THROUGH: u32 = 256;

/// The pauses of the newest shortage in which a message was taken. `short_since`, when a shortage
/// began, tells one shortage from the next.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    newest: Option<Shortage>,
}

#[derive(Debug, Clone, Copy)]
struct Shortage {
    began: Instant,
    /// When its newest pause began.
    paused_at: Instant,
    /// Messages taken since that pause.
    taken: u32,
}

impl Pauses {
    /// How long the source has to wait before it takes a message; `None` if it need not.
    pub(crate) fn pause(&self, short_since: Instant, now: Instant) -> Option<Duration> {
        let ends = self.shortage(short_since).paused_at + PAUSE_MAX;
        (now < ends).then(|| ends - now)
    }

    /// Counts one message that was taken during a shortage.
    pub(crate) fn count(&mut self, short_since: Instant, now: Instant) {
        if self.pause(short_since, now).is_some() {
            // It was on the way when the pause began.
            return;
        }
        let mut shortage = self.shortage(short_since);
        shortage.taken += 1;
        if shortage.taken == MESSAGES_LET_THROUGH {
            (shortage.paused_at, shortage.taken) = (now, 0);
        }
        self.newest = Some(shortage);
    }

    fn shortage(&self, began: Instant) -> Shortage {
        let known = self.newest.filter(|shortage| shortage.began == began);
        known.unwrap_or(Shortage { began, paused_at: began, taken: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes messages whenever that is allowed: how many at which millisecond.
    fn take_for(time: Duration) -> Vec<(u128, u32)> {
        let start = Instant::now();
        let mut pauses = Pauses::default();
        let mut now = start;
        let mut batches = Vec::new();
        while now < start + time {
            let mut taken = 0;
            let wait = loop {
                match pauses.pause(start, now) {
                    Some(wait) => break wait,
                    None => pauses.count(start, now),
                }
                taken += 1;
                assert!(taken < 10_000, "no pause follows");
            };
            if taken > 0 {
                batches.push((now.duration_since(start).as_millis(), taken));
            }
            assert!(wait > Duration::ZERO && wait <= PAUSE_MAX, "{wait:?}");
            now += wait;
        }
        batches
    }

    #[test]
    fn a_lasting_shortage_lets_a_batch_through_every_two_seconds() {
        let batches = take_for(Duration::from_secs(9));
        assert_eq!(batches, [(2_000, 256), (4_000, 256), (6_000, 256), (8_000, 256)]);
    }

    #[test]
    fn what_was_let_through_and_not_taken_is_forgotten_when_the_shortage_ends() {
        let first = Instant::now();
        let mut pauses = Pauses::default();
        let end = first + PAUSE_MAX;
        assert!(pauses.pause(first, end).is_none());
        pauses.count(first, end);
        assert!(pauses.pause(first, end).is_none(), "the rest of the batch");
        let second = end + Duration::from_secs(1);
        assert_eq!(pauses.pause(second, second), Some(PAUSE_MAX), "a new shortage");
        pauses.count(second, second);
        assert!(pauses.pause(first, second).is_none(), "a message on the way changes nothing");
    }
}
