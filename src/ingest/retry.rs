//! Backoff with jitter, and a log that does not repeat itself.
//!
//! Bounds: [`DELAY_MAX`] between two attempts, so that a broker that is back is found within
//! seconds; one line per [`REPEAT_AFTER`] while the cause stays the same.

use std::fmt;
use std::time::{Duration, Instant};

use rand::Rng as _;

const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(2);
const REPEAT_AFTER: Duration = Duration::from_secs(30);

/// The state between attempts.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failures: u32,
    said: Option<(String, Instant)>,
}

impl Retry {
    /// An attempt succeeded.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// An attempt failed: logs the cause if it is news; returns how long to wait.
    pub(super) fn failed(&mut self, cause: &impl fmt::Display) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let cause = cause.to_string();
        let is_news = self
            .said
            .as_ref()
            .is_none_or(|(said, at)| *said != cause || at.elapsed() >= REPEAT_AFTER);
        if is_news {
            tracing::warn!(%cause, attempts = self.failures, "the source is away, trying again");
            self.said = Some((cause, Instant::now()));
        }
        self.delay(rand::rng().random_range(0.5..=1.0))
    }

    fn delay(&self, jitter: f64) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(8);
        (DELAY_MIN * 2_u32.pow(doublings)).min(DELAY_MAX).mul_f64(jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_bound_and_start_again() {
        let mut retry = Retry::default();
        let delays: Vec<u128> = (0..8)
            .map(|_| {
                retry.failed(&"away");
                retry.delay(1.0).as_millis()
            })
            .collect();
        assert_eq!(delays, [100, 200, 400, 800, 1_600, 2_000, 2_000, 2_000]);
        retry.succeeded();
        assert!(retry.failed(&"away") <= DELAY_MIN);
    }
}
