//! Measures what the process uses, four times a second, and publishes the level.
//!
//! It runs as a task beside the signals and the admin port. Without limits there is nothing to
//! measure against, and it ends at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::level::LoadLevel;
use super::limits::PressureLimits;
use super::memory::MemoryMeter;
use super::pressure::{Change, Pressure};
use super::usage::ProcessMeter;

/// Time between two measurements. The CPU's share is that of this time.
const MEASURE_EVERY: Duration = Duration::from_millis(250);

/// The only writer of the level.
#[derive(Debug)]
pub(crate) struct Watcher {
    limits: PressureLimits,
    meter: ProcessMeter,
    pressure: Pressure,
    level: Arc<LoadLevel>,
}

impl Watcher {
    /// Measures once, so that whoever reads the level from now on reads a true one.
    pub(crate) fn new(limits: PressureLimits, memory: Arc<MemoryMeter>) -> Self {
        let mut watcher = Self {
            limits,
            meter: ProcessMeter::new(memory),
            pressure: Pressure::new(limits),
            level: Arc::default(),
        };
        if !limits.is_off() {
            watcher.measure();
        }
        watcher
    }

    /// The level, which this watcher keeps up to date while it runs.
    pub(crate) fn level(&self) -> Arc<LoadLevel> {
        Arc::clone(&self.level)
    }

    /// Measures for ever; ends at once without limits. It must be called within tokio.
    pub(crate) async fn run(mut self) {
        if self.limits.is_off() {
            return;
        }
        let mut ticks = tokio::time::interval(MEASURE_EVERY);
        // Two readings in one moment would say nothing of the CPU.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        loop {
            ticks.tick().await;
            self.measure();
        }
    }

    fn measure(&mut self) {
        let now = Instant::now();
        let usage = self.meter.usage(&self.limits, now);
        self.pressure.sample(now, usage).for_each(log);
        self.level.publish(self.pressure.level());
    }
}

fn log(change: Change) {
    let Change { cause, is_short, percent_of_limit } = change;
    let setting = cause.setting();
    match is_short {
        true => tracing::warn!(setting, percent_of_limit, "the source pauses: near the limit"),
        false => tracing::info!(setting, percent_of_limit, "the source goes on: below the limit"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Cause;
    use crate::shard::Census;

    fn watcher(limits: PressureLimits) -> Watcher {
        Watcher::new(limits, Arc::new(MemoryMeter::new(Census::new(0))))
    }

    #[test]
    fn the_level_is_true_before_the_watcher_runs() {
        let limits = PressureLimits { memory_bytes: 1, cpu_percent: 0 };
        let level = watcher(limits).level().read();
        assert_eq!((level.cause, level.percent_of_limit), (Cause::Memory, u16::MAX));
        assert!(level.short_since.is_some());
    }

    #[tokio::test]
    async fn without_limits_nothing_is_measured() {
        let watcher = watcher(PressureLimits::default());
        let level = watcher.level();
        watcher.run().await;
        assert_eq!(level.read().short_since, None);
    }

    #[tokio::test]
    async fn the_level_follows_while_nobody_reads_it() {
        let census = Census::new(1);
        let limits = PressureLimits { memory_bytes: 1 << 50, cpu_percent: 0 };
        let watcher = Watcher::new(limits, Arc::new(MemoryMeter::new(Arc::clone(&census))));
        let level = watcher.level();
        assert_eq!(level.read().short_since, None);
        let watching = tokio::spawn(watcher.run());
        let memory = crate::shard::ShardMemory { kernel_send: 1 << 50, ..Default::default() };
        census.report(0, crate::shard::ShardReport { memory, ..Default::default() });
        while level.read().short_since.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        watching.abort();
    }
}
