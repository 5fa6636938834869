//! What the shards tell about themselves: counters and gauges that other threads read.
//!
//! Touched when a connection comes or goes and once per tick, never per delivery. Bound: one
//! [`ShardReport`] per shard.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::memory::ShardMemory;
use super::stats::Stats;

/// The newest report of a shard: a tick old, two if somebody was reading the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardReport {
    /// What it has done.
    pub stats: Stats,
    /// What it holds.
    pub memory: ShardMemory,
    /// Connections in any state.
    pub connections: usize,
    /// Subscriptions of all connections.
    pub subscriptions: usize,
    /// Whether `/ready` fails because the server is about to end.
    pub is_draining: bool,
}

#[derive(Debug, Default)]
struct Entry {
    open: AtomicU64,
    report: Mutex<ShardReport>,
}

/// Connections and sockets of the instance, and a report of each shard.
#[derive(Debug)]
pub struct Census {
    shards: Vec<Entry>,
    sockets: AtomicU64,
}

impl Census {
    /// Counters for so many shards.
    pub fn new(shards: usize) -> Arc<Self> {
        let shards = (0..shards).map(|_| Entry::default()).collect();
        Arc::new(Self { shards, sockets: AtomicU64::new(0) })
    }

    /// Counts one more socket, unless there are `max` already; whether it was counted.
    pub fn take_socket(&self, max: u64) -> bool {
        let is_full = self.sockets.fetch_add(1, Ordering::Relaxed) >= max;
        if is_full {
            self.release_socket();
        }
        !is_full
    }

    /// A counted socket was closed.
    pub fn release_socket(&self) {
        self.sockets.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counted sockets of all shards.
    pub fn sockets(&self) -> u64 {
        self.sockets.load(Ordering::Relaxed)
    }

    /// Open connections of all shards.
    pub fn total(&self) -> u64 {
        self.open().sum()
    }

    /// Open connections of each shard.
    pub fn open(&self) -> impl Iterator<Item = u64> {
        self.shards.iter().map(|shard| shard.open.load(Ordering::Relaxed))
    }

    /// The newest report of each shard.
    pub fn reports(&self) -> impl Iterator<Item = ShardReport> {
        self.shards.iter().map(|shard| match shard.report.lock() {
            Ok(report) => *report,
            // The report is plain numbers: it is whole whatever happened to its writer.
            Err(poisoned) => *poisoned.into_inner(),
        })
    }

    /// Takes a shard's report, unless somebody is copying the one before: a shard waits for nobody,
    /// and its next report comes with the next tick.
    pub fn report(&self, shard: usize, newest: ShardReport) {
        if let Ok(mut report) = self.shards[shard].report.try_lock() {
            *report = newest;
        }
    }

    pub(super) fn add(&self, shard: usize) {
        self.shards[shard].open.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, shard: usize) {
        self.shards[shard].open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_waits_for_no_reader() {
        let census = Census::new(1);
        let newest = ShardReport { connections: 7, ..ShardReport::default() };
        let reader = census.shards[0].report.lock().unwrap();
        census.report(0, newest);
        drop(reader);
        assert_eq!(
            census.reports().next(),
            Some(ShardReport::default()),
            "left out, not waited for"
        );
        census.report(0, newest);
        assert_eq!(census.reports().next(), Some(newest));
    }
}
