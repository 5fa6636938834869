//! What this process uses of the machine: memory and CPU time.
//!
//! A reading costs microseconds, but for the allocator's figure once a minute: see `memory`.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::limits::PressureLimits;
use super::memory::MemoryMeter;

/// What the process uses.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Memory that falls when something is freed; 0 if it has no limit.
    pub(crate) memory_bytes: u64,
    /// CPU time of all threads since the start.
    pub(crate) cpu_time: Duration,
    /// CPUs that the process may use.
    pub(crate) cpus: u32,
}

/// Measures the usage of this process.
#[derive(Debug)]
pub(crate) struct ProcessMeter {
    memory: Arc<MemoryMeter>,
    cpus: u32,
}

impl ProcessMeter {
    /// Counts the CPUs that the process may use: by its affinity and by the quota of its cgroup,
    /// whole ones, at least one.
    pub(crate) fn new(memory: Arc<MemoryMeter>) -> Self {
        let cpus = available_parallelism().map_or(1, |cpus| cpus.get() as u32);
        Self { memory, cpus }
    }

    /// The usage now; memory is not measured unless it has a limit.
    pub(crate) fn usage(&self, limits: &PressureLimits, now: Instant) -> Usage {
        let memory_bytes = match limits.memory_bytes {
            0 => 0,
            _ => self.memory.bytes_in_use(now) as u64,
        };
        Usage { memory_bytes, cpu_time: cpu_time(), cpus: self.cpus }
    }
}

/// CPU time of all threads since the start.
fn cpu_time() -> Duration {
    // The clock counts from zero, so it is never negative.
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Census;

    #[test]
    fn memory_is_measured_only_where_it_has_a_limit() {
        let meter = ProcessMeter::new(Arc::new(MemoryMeter::new(Census::new(0))));
        let usage = |memory_bytes| {
            meter.usage(&PressureLimits { memory_bytes, cpu_percent: 0 }, Instant::now())
        };
        assert_eq!(usage(0).memory_bytes, 0);
        assert!(usage(1).memory_bytes > 0);
        assert!(usage(1).cpus >= 1);
    }

    #[test]
    fn work_takes_cpu_time() {
        let before = cpu_time();
        assert!(before > Duration::ZERO);
        let mut rounds = 0_u64;
        while cpu_time() == before {
            rounds += 1;
            assert!(rounds < 1_000_000, "the clock stands still");
        }
    }
}
