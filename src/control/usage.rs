//! What this process uses of the machine: memory and CPU time.
//!
//! A reading costs microseconds and, as the allocator goes through them, 0.2 µs per free block.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::ingest::{Meter, Usage};
use crate::shard::Census;

/// Reads the usage of this process.
#[derive(Debug)]
pub struct ProcessMeter {
    census: Arc<Census>,
    cpus: u32,
}

impl ProcessMeter {
    /// Counts the CPUs that the process may use: by its affinity and by the quota of its cgroup,
    /// whole ones, at least one.
    pub fn new(census: Arc<Census>) -> Self {
        let cpus = available_parallelism().map_or(1, |cpus| cpus.get() as u32);
        Self { census, cpus }
    }
}

impl Meter for ProcessMeter {
    /// Memory is the heap in use and what the kernel holds for blocked connections, a second old
    /// at most. Not the resident set: it does not fall when memory is freed.
    fn usage(&self) -> Usage {
        let kernel: usize = self.census.reports().map(|report| report.memory.kernel_send).sum();
        let memory_bytes = (heap_bytes() + kernel) as u64;
        Usage { memory_bytes, cpu_time: cpu_time(), cpus: self.cpus }
    }
}

/// CPU time of all threads since the start.
fn cpu_time() -> Duration {
    // The clock counts from zero, so it is never negative.
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// Bytes of heap in use by the allocator's own figure (mallinfo2(3)), mapped blocks included; 0
/// with an allocator that does not say.
pub(crate) fn heap_bytes() -> usize {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the figure has no safe wrapper")]
    {
        // SAFETY: the function takes nothing, and returns numbers that it reads under its locks.
        let info = unsafe { libc::mallinfo2() };
        info.uordblks + info.hblkhd
    }
    #[cfg(not(target_env = "gnu"))]
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{ShardMemory, ShardReport};

    #[test]
    fn the_kernels_send_queues_and_the_heap_are_counted() {
        const QUEUED: usize = 1 << 40;
        let census = Census::new(2);
        for shard in 0..2 {
            let memory = ShardMemory { kernel_send: QUEUED, ..ShardMemory::default() };
            census.report(shard, ShardReport { memory, ..ShardReport::default() });
        }
        let usage = ProcessMeter::new(census).usage();
        assert!(usage.memory_bytes > 2 * QUEUED as u64, "{usage:?}");
        assert!(usage.cpus >= 1);
    }

    #[test]
    fn work_takes_cpu_time() {
        let meter = ProcessMeter::new(Census::new(0));
        let before = meter.usage().cpu_time;
        assert!(before > Duration::ZERO);
        let mut rounds = 0_u64;
        while meter.usage().cpu_time == before {
            rounds += 1;
            assert!(rounds < 1_000_000, "the clock stands still");
        }
    }
}
