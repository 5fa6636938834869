//! What the source tells about itself: counters that the admin port reads.
//!
//! The ingest thread alone writes them, and other threads read them, all as atomics. Bound: one
//! per process.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::feed::SourceStatus;

/// A counter that one thread adds to.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// How many so far.
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

/// Time that adds up.
#[derive(Debug, Default)]
pub struct Elapsed(Counter);

impl Elapsed {
    /// The sum in seconds.
    pub fn seconds(&self) -> f64 {
        Duration::from_micros(self.0.total()).as_secs_f64()
    }

    pub(crate) fn add(&self, time: Duration) {
        self.0.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
}

/// What the source has done since the start, and how it is doing.
#[derive(Debug, Default)]
pub struct SourceReport {
    status: AtomicU8,
    /// Messages taken from the broker.
    pub messages: Counter,
    /// Messages that had been handled before: dropped by position.
    pub repeats: Counter,
    /// Messages left out because their subject is no channel.
    pub refused: Counter,
    /// Events handed to the shards.
    pub events: Counter,
    /// Connections made to the broker.
    pub connections: Counter,
    /// Consumers that were read.
    pub consumers: Counter,
    /// Epochs announced: one at the start, and one whenever positions began anew.
    pub epochs: Counter,
    /// Times that messages may have been lost, and claims were taken back.
    pub losses: Counter,
    /// Times that clients were told of losses.
    pub notices: Counter,
    /// Times that the newest message of each channel was read again.
    pub newest_reads: Counter,
    /// Shards that were given up because they took nothing.
    pub overruns: Counter,
    /// Time without pulling because of WS_MAX_NATS_RATE.
    pub nats_rate_pause: Elapsed,
    /// Time without pulling because of WS_MAX_BROADCAST_RATE.
    pub broadcast_rate_pause: Elapsed,
    /// Time without pulling because of WS_MEMORY_LIMIT.
    pub memory_pause: Elapsed,
    /// Time without pulling because of WS_CPU_LIMIT.
    pub cpu_pause: Elapsed,
    /// Time without pulling because a shard's queue was full.
    pub shard_pause: Elapsed,
}

impl SourceReport {
    /// How the source is doing.
    pub fn status(&self) -> SourceStatus {
        let known = self.status.load(Ordering::Relaxed);
        let all = SourceStatus::ALL;
        all.into_iter().find(|status| *status as u8 == known).unwrap_or(SourceStatus::Connecting)
    }

    pub(crate) fn set_status(&self, status: SourceStatus) {
        self.status.store(status as u8, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_what_was_set() {
        let report = SourceReport::default();
        assert_eq!(report.status(), SourceStatus::Connecting);
        for status in SourceStatus::ALL {
            report.set_status(status);
            assert_eq!(report.status(), status);
        }
    }

    #[test]
    fn times_add_up() {
        let elapsed = Elapsed::default();
        elapsed.add(Duration::from_millis(300));
        elapsed.add(Duration::from_millis(1_200));
        assert!((elapsed.seconds() - 1.5).abs() < 1e-9);
    }
}
