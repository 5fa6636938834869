//! How long to wait before the next try, and when a failure is worth another line in the log.
//!
//! Pure: the dice and the clock are passed in. Bounds: a wait lies between [`DELAY_MIN`] / 2 (with
//! full jitter: nothing) and [`DELAY_MAX`], so that a source is back within seconds of its broker; the same failure is
//! logged once per [`REPEAT_AFTER`].

use std::time::{Duration, Instant};

/// The first wait, before jitter.
const DELAY_MIN: Duration = Duration::from_millis(100);

/// The longest wait, before jitter.
const DELAY_MAX: Duration = Duration::from_secs(2);

/// A failure that goes on is logged again after this time.
const REPEAT_AFTER: Duration = Duration::from_secs(10);

/// The failures since the last success.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    failures: u32,
    logged: Option<(String, Instant)>,
}

impl Retry {
    /// Counts a failure; true if it should be logged: its cause is new, or was last logged
    /// [`REPEAT_AFTER`] ago.
    pub(crate) fn failed(&mut self, cause: &str, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        if let Some((known, at)) = &self.logged
            && known == cause
            && now.duration_since(*at) < REPEAT_AFTER
        {
            return false;
        }
        self.logged = Some((cause.to_owned(), now));
        true
    }

    /// Failures since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Forgets the failures.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// The wait before the next try: doubled with each failure, between half and all of it
    /// (`roll` from 0 to 1), so that instances do not come back in step.
    pub(crate) fn delay(&self, roll: f64) -> Duration {
        self.delay_max().mul_f64(0.5 + roll.clamp(0.0, 1.0) / 2.0)
    }

    /// The same with full jitter, between nothing and all of it: for a caller who has a least
    /// wait of his own.
    pub(crate) fn delay_full_jitter(&self, roll: f64) -> Duration {
        self.delay_max().mul_f64(roll.clamp(0.0, 1.0))
    }

    fn delay_max(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        DELAY_MIN.saturating_mul(1 << doublings).min(DELAY_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_start_again_after_a_success() {
        let mut retry = Retry::default();
        let now = Instant::now();
        let waits: Vec<u128> = (0..7)
            .map(|_| {
                retry.failed("refused", now);
                retry.delay(1.0).as_millis()
            })
            .collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 2_000, 2_000]);
        assert_eq!(retry.delay(0.0).as_millis(), 1_000);
        let full_jitter = [0.0, 0.25, 1.0].map(|roll| retry.delay_full_jitter(roll).as_millis());
        assert_eq!(full_jitter, [0, 500, 2_000]);
        retry.succeeded();
        assert_eq!((retry.failures(), retry.delay(1.0).as_millis()), (0, 100));
    }

    #[test]
    fn a_failure_that_goes_on_is_logged_now_and_then_and_a_new_cause_at_once() {
        let mut retry = Retry::default();
        let start = Instant::now();
        let cases = [
            (0, "refused", true),
            (1, "refused", false),
            (2, "time-out", true),
            (3, "time-out", false),
            (12, "time-out", true),
        ];
        for (second, cause, expected) in cases {
            let now = start + Duration::from_secs(second);
            assert_eq!(retry.failed(cause, now), expected, "{cause} at {second} s");
        }
    }
}
