//! What an engine's thread tells the run: counters, gauges and histograms.
//!
//! The engine counts for itself and adds its sums here once per round, so that no delivery touches
//! what another thread reads. Bound: one histogram of the last interval and one of the run each.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;

use crate::failure::Failures;

/// The longest time that a histogram records, microseconds: a minute.
const MAX_US: u64 = 60_000_000;

/// A histogram of microseconds with three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_US, 3).expect("constant bounds that are in order")
}

/// Records a time; what is longer than a minute counts as a minute.
pub fn record(histogram: &mut Histogram<u64>, us: u64) {
    histogram.saturating_record(us.clamp(1, MAX_US));
}

/// Counts since the start of the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attempts to connect.
    pub attempts: u64,
    /// Connections upgraded.
    pub opened: u64,
    /// Attempts and connections that failed.
    pub failed: u64,
    /// Connections lost after the upgrade.
    pub lost: u64,
    /// Slow clients that the server closed, which is right.
    pub slow_closed: u64,
    /// Events received.
    pub deliveries: u64,
    /// Of these, events that came again because the client resumed from before them.
    pub repeated: u64,
    /// Events received by clients that were made to read slowly.
    pub slow_deliveries: u64,
    /// Bytes received on the wire.
    pub received_bytes: u64,
    /// Bytes of events, after decompression.
    pub message_bytes: u64,
    /// Connections that came back and were promised what they had missed.
    pub recovered: u64,
    /// The missed events that were promised to them.
    pub recovered_events: u64,
    /// Connections that came back and were refused a resume.
    pub not_recovered: u64,
    /// Events missing.
    pub gaps: u64,
    /// Events received twice.
    pub duplicates: u64,
    /// Events out of order.
    pub disordered: u64,
}

impl Counts {
    fn fields(&mut self) -> [&mut u64; 16] {
        [
            &mut self.attempts,
            &mut self.opened,
            &mut self.failed,
            &mut self.lost,
            &mut self.slow_closed,
            &mut self.deliveries,
            &mut self.repeated,
            &mut self.slow_deliveries,
            &mut self.received_bytes,
            &mut self.message_bytes,
            &mut self.recovered,
            &mut self.recovered_events,
            &mut self.not_recovered,
            &mut self.gaps,
            &mut self.duplicates,
            &mut self.disordered,
        ]
    }

    /// Adds another thread's.
    pub fn add(&mut self, mut other: Self) {
        for (ours, theirs) in self.fields().into_iter().zip(other.fields()) {
            *ours += *theirs;
        }
    }

    /// What was counted since `before`.
    pub fn since(mut self, mut before: Self) -> Self {
        for (ours, theirs) in self.fields().into_iter().zip(before.fields()) {
            *ours -= *theirs;
        }
        self
    }
}

/// What the lock protects.
#[derive(Debug)]
pub struct Measured {
    /// The newest sums.
    pub counts: Counts,
    /// Times from connect to the end of the upgrade.
    pub connect_us: Histogram<u64>,
    /// From the intended publish time to the message, since the last take.
    pub interval_us: Histogram<u64>,
    /// Why connections failed.
    pub failures: Failures,
    /// Milliseconds from the drop of all connections until each was back.
    pub back_ms: Vec<u32>,
}

/// What one engine shares with the run.
#[derive(Debug)]
pub struct Shared {
    /// Gauge: upgraded connections.
    pub connected: AtomicU64,
    /// Gauge: upgraded and acknowledged.
    pub subscribed: AtomicU64,
    /// Gauge: under way.
    pub connecting: AtomicU64,
    /// Gauge: clients that have given up.
    pub given_up: AtomicU64,
    /// Clients that were subscribed at least once.
    pub succeeded: AtomicU64,
    measured: Mutex<Measured>,
}

impl Default for Shared {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            connected: zero(),
            subscribed: zero(),
            connecting: zero(),
            given_up: zero(),
            succeeded: zero(),
            measured: Mutex::new(Measured {
                counts: Counts::default(),
                connect_us: histogram(),
                interval_us: histogram(),
                failures: Failures::default(),
                back_ms: Vec::new(),
            }),
        }
    }
}

impl Shared {
    /// Reads or changes what the lock protects.
    pub fn with<T>(&self, look: impl FnOnce(&mut Measured) -> T) -> T {
        match self.measured.lock() {
            Ok(mut measured) => look(&mut measured),
            // These are plain sums: they are valid even if their writer panicked.
            Err(poisoned) => look(&mut poisoned.into_inner()),
        }
    }

    /// Sets a gauge.
    pub fn set(gauge: &AtomicU64, value: usize) {
        gauge.store(value as u64, Ordering::Relaxed);
    }

    /// Reads a gauge.
    pub fn read(gauge: &AtomicU64) -> u64 {
        gauge.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_and_subtract() {
        let mut sum = Counts { attempts: 3, gaps: 1, ..Counts::default() };
        sum.add(Counts { attempts: 2, disordered: 4, ..Counts::default() });
        let expected = Counts { attempts: 5, gaps: 1, disordered: 4, ..Counts::default() };
        assert_eq!(sum, expected);
        assert_eq!(expected.since(sum), Counts::default());
    }

    #[test]
    fn times_beyond_the_bounds_are_kept_at_them() {
        let mut times = histogram();
        record(&mut times, 0);
        record(&mut times, u64::MAX);
        assert_eq!((times.len(), times.min()), (2, 1));
        assert!(times.max() >= MAX_US);
    }
}
