//! How long to wait before the next try, and when a failure is worth another line in the log.
//!
//! Pure: the dice and the clock are passed in. Bounds: a wait lies between [`DELAY_MIN`] / 2 (with
//! full jitter: nothing) and [`DELAY_MAX`], so that a source is back within seconds of its broker;
//! each cause is logged at once and then once per [`REPEAT_AFTER`], which makes [`CAUSES_MAX`]
//! lines in that time at most.

use std::time::{Duration, Instant};

/// The first wait, before jitter.
const DELAY_MIN: Duration = Duration::from_millis(100);

/// The longest wait, before jitter.
const DELAY_MAX: Duration = Duration::from_secs(2);

/// A cause that goes on is logged again after this time.
const REPEAT_AFTER: Duration = Duration::from_secs(10);

/// Causes that are remembered: several servers that each fail in ways of their own. While all of
/// them were logged within [`REPEAT_AFTER`], a further cause is counted and not logged.
const CAUSES_MAX: usize = 16;

/// The failures since the last success.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    failures: u32,
    logged: Vec<Logged>,
}

#[derive(Debug)]
struct Logged {
    cause: String,
    at: Instant,
}

impl Retry {
    /// Counts a failure; true if it should be logged: its cause was not logged within
    /// [`REPEAT_AFTER`]. Cost: a comparison with each of at most [`CAUSES_MAX`] causes.
    pub(crate) fn failed(&mut self, cause: &str, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.logged.retain(|logged| now.duration_since(logged.at) < REPEAT_AFTER);
        let is_known = self.logged.iter().any(|logged| logged.cause == cause);
        if is_known || self.logged.len() >= CAUSES_MAX {
            return false;
        }
        self.logged.push(Logged { cause: cause.to_owned(), at: now });
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

    #[test]
    fn servers_that_fail_in_different_ways_in_turn_are_each_logged_now_and_then() {
        let mut retry = Retry::default();
        let start = Instant::now();
        let causes = ["a: refused", "b: time-out", "c: no such host"];
        let mut logged = Vec::new();
        for attempt in 0..220 {
            let at_ms = 100 * attempt as u64;
            let cause = causes[attempt % causes.len()];
            if retry.failed(cause, start + Duration::from_millis(at_ms)) {
                logged.push((at_ms / 1_000, cause));
            }
        }
        let in_turn = |second| causes.map(|cause| (second, cause));
        assert_eq!(logged, [in_turn(0), in_turn(10), in_turn(20)].concat());
    }

    #[test]
    fn causes_beyond_the_bound_are_counted_and_not_logged() {
        let mut retry = Retry::default();
        let start = Instant::now();
        let many: Vec<String> = (0..3 * CAUSES_MAX).map(|number| number.to_string()).collect();
        let logged_at = |retry: &mut Retry, second| {
            let now = start + Duration::from_secs(second);
            many.iter().filter(|cause| retry.failed(cause, now)).count()
        };
        assert_eq!(logged_at(&mut retry, 0), CAUSES_MAX);
        assert_eq!(logged_at(&mut retry, 9), 0);
        assert_eq!(logged_at(&mut retry, 10), CAUSES_MAX);
        assert_eq!(retry.failures() as usize, 3 * many.len());
    }
}
