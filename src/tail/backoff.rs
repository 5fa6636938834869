//! Full-jitter exponential backoff: a server that comes back is not met by everybody at once.

use std::time::Duration;

const DELAY_MIN: Duration = Duration::from_millis(100);

/// The longest delay between two attempts.
pub(super) const DELAY_MAX: Duration = Duration::from_secs(10);

/// The delay before attempt `attempt` (from 1); `jitter` is random, from 0 to 1.
pub(super) fn delay(attempt: u32, jitter: f64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(10);
    (DELAY_MIN * 2_u32.pow(doublings)).min(DELAY_MAX).mul_f64(jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_bound() {
        let delays: Vec<u128> = (1..10).map(|attempt| delay(attempt, 1.0).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        assert_eq!(delay(u32::MAX, 0.5), Duration::from_secs(5));
    }
}
