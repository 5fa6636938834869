//! Full-jitter exponential back-off: a server that comes back is not met by everybody at once.

use std::time::{Duration, Instant};

const DELAY_MIN: Duration = Duration::from_secs(1);

/// A connection that was subscribed for so long ends a row of failures.
const STABLE: Duration = Duration::from_secs(30);

/// The waits of one client.
#[derive(Debug)]
pub(super) struct Backoff {
    /// The longest wait.
    max: Duration,
    /// Attempts since the last connection that lasted.
    failures: u32,
}

impl Backoff {
    pub(super) fn new(max: Duration) -> Self {
        Self { max, failures: 0 }
    }

    /// The wait before the next attempt; `subscribed` is when the last connection was subscribed,
    /// if it was, and `jitter` is random, from 0 to 1.
    pub(super) fn next(&mut self, subscribed: Option<Instant>, jitter: f64) -> Duration {
        if subscribed.is_some_and(|since| since.elapsed() >= STABLE) {
            self.failures = 0;
        }
        let doublings = self.failures.min(12);
        self.failures = self.failures.saturating_add(1);
        (DELAY_MIN * 2_u32.pow(doublings)).min(self.max).mul_f64(jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_bound() {
        let mut backoff = Backoff::new(Duration::from_secs(30));
        let waits: Vec<u64> = (0..7).map(|_| backoff.next(None, 1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff.next(Some(Instant::now()), 0.5), Duration::from_secs(15));
        if let Some(before) = Instant::now().checked_sub(STABLE) {
            assert_eq!(backoff.next(Some(before), 1.0), DELAY_MIN);
        }
    }
}
