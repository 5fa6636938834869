//! At most so many a second, evenly: the virtual scheduling form of a leaky bucket (ITU-T I.371).
//!
//! Pure but for [`Pace::room`], which sleeps: `now` is passed in. What was left unused may be
//! caught up with for a tenth of a second's worth, and who has to wait does so until a hundredth
//! of a second's worth is due: a hundred sleeps a second at most, whatever the rate.

use std::time::{Duration, Instant};

/// Bursts and sleeps are these parts of a second's worth, and one at least.
const BURSTS_PER_SECOND: u32 = 10;
const SLEEPS_PER_SECOND: u32 = 100;

/// The highest limit: one a microsecond.
pub const RATE_MAX: u32 = 1_000_000;

/// A limit per second, or none.
#[derive(Debug)]
pub(crate) struct Pace {
    limit: Option<Limit>,
}

#[derive(Debug)]
struct Limit {
    per_second: u32,
    /// When as many have been due as were taken.
    due: Instant,
}

impl Pace {
    /// At most `per_second`, [`RATE_MAX`] at most; 0 is no limit.
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = per_second.min(RATE_MAX);
        Self { limit: (per_second > 0).then_some(Limit { per_second, due: now }) }
    }

    /// The limit, if there is one.
    pub(crate) fn per_second(&self) -> Option<u32> {
        self.limit.as_ref().map(|limit| limit.per_second)
    }

    /// Counts one that was taken.
    pub(crate) fn count(&mut self, now: impl FnOnce() -> Instant) {
        if let Some(limit) = &mut self.limit {
            limit.due = limit.due.max(now()) + limit.time_of(1);
        }
    }

    /// Whether one more may be taken.
    pub(crate) fn has_room(&self, now: impl FnOnce() -> Instant) -> bool {
        self.limit
            .as_ref()
            .is_none_or(|limit| limit.due <= now() + limit.time_of(limit.burst() - 1))
    }

    /// How long who has no room waits.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        let Some(limit) = &self.limit else { return Duration::ZERO };
        let at_once = (limit.per_second / SLEEPS_PER_SECOND).max(1);
        let ahead = now + limit.time_of(limit.burst() - at_once);
        limit.due.saturating_duration_since(ahead)
    }

    /// Waits until one more may be taken; how long that was.
    pub(crate) async fn room(&self) -> Duration {
        let began = Instant::now();
        while !self.has_room(Instant::now) {
            tokio::time::sleep(self.wait(Instant::now())).await;
        }
        began.elapsed()
    }
}

impl Limit {
    fn burst(&self) -> u32 {
        (self.per_second / BURSTS_PER_SECOND).max(1)
    }

    fn time_of(&self, count: u32) -> Duration {
        Duration::from_secs(1) * count / self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes as many as there is room for, waits and so on for `duration`: how many, and in how
    /// many waits.
    fn drive(per_second: u32, start: Instant, duration: Duration) -> (u32, u32) {
        let mut pace = Pace::new(per_second, start);
        let (mut now, mut taken, mut waits) = (start, 0, 0);
        while now < start + duration {
            while pace.has_room(|| now) {
                pace.count(|| now);
                taken += 1;
            }
            now += pace.wait(now);
            waits += 1;
        }
        (taken, waits)
    }

    #[test]
    fn the_rate_is_kept_with_few_waits() {
        for rate in [1, 3, 99, 100, 5_000, 77_777, RATE_MAX] {
            let (taken, waits) = drive(rate, Instant::now(), Duration::from_secs(20));
            let burst = (rate / 10).max(1);
            // The time of one is cut to whole nanoseconds.
            let most = 20 * rate + burst + 1 + rate / 1_000;
            assert!((20 * rate..=most).contains(&taken), "{rate}: {taken}");
            assert!(waits <= (20 * rate + 1).min(20 * 101), "{rate}: {waits} waits");
        }
    }

    #[test]
    fn what_was_left_unused_is_caught_up_with_for_a_tenth_of_a_second() {
        let start = Instant::now();
        let mut pace = Pace::new(1_000, start);
        let later = start + Duration::from_secs(3_600);
        let mut taken = 0;
        while pace.has_room(|| later) {
            pace.count(|| later);
            taken += 1;
        }
        assert_eq!(taken, 100);
        assert_eq!(pace.wait(later), Duration::from_millis(10));
    }

    #[test]
    fn without_a_limit_there_is_always_room_and_no_look_at_the_clock() {
        let mut pace = Pace::new(0, Instant::now());
        for _ in 0..1_000 {
            assert!(pace.has_room(|| panic!("no clock is needed")));
            pace.count(|| panic!("no clock is needed"));
        }
        assert_eq!(pace.wait(Instant::now()), Duration::ZERO);
    }
}
