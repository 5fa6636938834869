//! Holds the source back while the process is short of memory or of CPU.
//!
//! Reads the level that the watcher publishes: one atomic load per message, no lock, and no clock
//! unless there is a shortage. The rules are those of [`Pauses`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pause::Pauses;
use super::report::SourceReport;
use crate::load::{Cause, LoadLevel};

/// Whoever waits reads the level so often: the watcher renews it four times a second.
const READ_EVERY: Duration = Duration::from_millis(50);

/// The gate that every message passes; open while the level says so.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    level: Arc<LoadLevel>,
    pauses: Pauses,
}

impl Gate {
    pub(crate) fn new(level: Arc<LoadLevel>) -> Self {
        Self { level, pauses: Pauses::default() }
    }

    /// Whether one more message may be taken now.
    pub(crate) fn is_open(&self) -> bool {
        self.pause().is_none()
    }

    /// Waits until one more may be taken, and counts the time for its cause.
    pub(crate) async fn opened(&self, report: &SourceReport) {
        while let Some((cause, pause)) = self.pause() {
            let began = Instant::now();
            tokio::time::sleep(pause.min(READ_EVERY)).await;
            let paused = match cause {
                Cause::Memory => &report.memory_pause,
                Cause::Cpu => &report.cpu_pause,
            };
            paused.add(began.elapsed());
        }
    }

    /// Counts one message that was taken.
    pub(crate) fn count(&mut self) {
        if let Some(short_since) = self.level.read().short_since {
            self.pauses.count(short_since, Instant::now());
        }
    }

    /// Why the source has to wait, and how long at most.
    fn pause(&self) -> Option<(Cause, Duration)> {
        let level = self.level.read();
        let pause = self.pauses.pause(level.short_since?, Instant::now())?;
        Some((level.cause, pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Level;

    #[test]
    fn without_a_level_the_gate_is_open() {
        let mut gate = Gate::default();
        assert!(gate.is_open());
        gate.count();
        assert!(gate.is_open());
    }

    #[tokio::test]
    async fn whoever_waits_goes_on_when_the_shortage_ends_and_the_time_is_counted() {
        let level = Arc::new(LoadLevel::default());
        let gate = Gate::new(Arc::clone(&level));
        let report = SourceReport::default();
        let short_since = Some(Instant::now());
        let short = Level { cause: Cause::Memory, percent_of_limit: 100, short_since };
        level.publish(short);
        assert!(!gate.is_open());
        let end = async {
            tokio::time::sleep(READ_EVERY / 2).await;
            level.publish(Level { short_since: None, ..short });
        };
        tokio::join!(gate.opened(&report), end);
        assert!(gate.is_open());
        assert!(report.memory_pause.seconds() > 0.0);
        assert_eq!(report.cpu_pause.seconds(), 0.0);
    }
}
