//! The memory that the process uses: our own accounting, corrected by the allocator's figure.
//!
//! The allocator's figure (mallinfo2(3)) counts everything, but the call walks the free chunks
//! while it holds the allocator's locks: 0.2 µs each, 170 ms with a million of them, in which a
//! shard that allocates stands still. So the allocator is asked once per [`READ_EVERY`] at most,
//! and only if somebody wants the figure. Between two readings our own accounting says what has
//! changed: shards report what they hold once a second, payloads are counted as they come and go.
//!
//! What nobody accounts for (the client library, a backend's answer) shows at the next reading.
//! Shards that had yet to report at the first reading are counted twice until the second: about a
//! megabyte each.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::event::payload_bytes;
use crate::shard::Census;

/// How long a reading of the allocator's figure is used.
const READ_EVERY: Duration = Duration::from_secs(60);

/// Measures the memory of this process.
#[derive(Debug)]
pub(crate) struct MemoryMeter {
    census: Arc<Census>,
    readings: Mutex<Readings>,
}

/// The newest reading, taken again when it is old.
#[derive(Debug, Default)]
struct Readings {
    newest: Option<Reading>,
}

/// What the allocator and our own accounting said in one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    at: Instant,
    heap_bytes: usize,
    accounted_bytes: usize,
}

impl MemoryMeter {
    /// A meter that asks nothing yet.
    pub(crate) fn new(census: Arc<Census>) -> Self {
        Self { census, readings: Mutex::default() }
    }

    /// Bytes in use now: the heap, and what the kernel holds for blocked connections. Not the
    /// resident set, which does not fall when memory is freed.
    pub(crate) fn bytes_in_use(&self, now: Instant) -> usize {
        let (accounted, kernel) = self.accounted();
        self.reading(now).heap_bytes_now(accounted) + kernel
    }

    /// Bytes of heap in use by the allocator's own figure, at most [`READ_EVERY`] old.
    pub(crate) fn heap_bytes(&self, now: Instant) -> usize {
        self.reading(now).heap_bytes
    }

    /// Asks the allocator now, however new its figure is: it may stop shards, see above.
    pub(crate) fn read_heap(&self, now: Instant) {
        self.with_readings(|readings| *readings = Readings::default());
        self.reading(now);
    }

    fn reading(&self, now: Instant) -> Reading {
        self.with_readings(|readings| {
            readings.newest(now, || (allocator_heap_bytes(), self.accounted().0))
        })
    }

    fn with_readings<T>(&self, work: impl FnOnce(&mut Readings) -> T) -> T {
        // A reading is assigned whole: it is right whatever happened to the last holder.
        work(&mut self.readings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Bytes of heap that we account for, and bytes of the kernel's send queues.
    fn accounted(&self) -> (usize, usize) {
        self.census.reports().fold((payload_bytes(), 0), |(heap, kernel), report| {
            (heap + report.memory.user_bytes(), kernel + report.memory.kernel_send)
        })
    }
}

impl Readings {
    /// The newest reading; taken with `read` (heap and accounted bytes) if there is none, or if it
    /// is [`READ_EVERY`] old.
    fn newest(&mut self, now: Instant, read: impl FnOnce() -> (usize, usize)) -> Reading {
        if let Some(reading) = self.newest
            && now.saturating_duration_since(reading.at) < READ_EVERY
        {
            return reading;
        }
        let (heap_bytes, accounted_bytes) = read();
        *self.newest.insert(Reading { at: now, heap_bytes, accounted_bytes })
    }
}

impl Reading {
    /// The heap in use when our accounting says `accounted_bytes`.
    fn heap_bytes_now(&self, accounted_bytes: usize) -> usize {
        (self.heap_bytes + accounted_bytes).saturating_sub(self.accounted_bytes)
    }
}

/// Bytes of heap in use by the allocator's own figure, mapped blocks included; 0 with an allocator
/// that does not say.
fn allocator_heap_bytes() -> usize {
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
    fn the_allocator_is_asked_once_a_minute_at_most() {
        let start = Instant::now();
        let mut readings = Readings::default();
        let mut calls = 0;
        let asked_at: Vec<u64> = (0..=125)
            .filter(|second| {
                let before = calls;
                let now = start + Duration::from_secs(*second);
                let reading = readings.newest(now, || {
                    calls += 1;
                    (calls, 0)
                });
                assert_eq!(reading.heap_bytes, calls, "the newest");
                calls > before
            })
            .collect();
        assert_eq!(asked_at, [0, 60, 120]);
    }

    #[test]
    fn between_two_readings_our_own_accounting_says_what_has_changed() {
        let reading = Reading { at: Instant::now(), heap_bytes: 1_000, accounted_bytes: 700 };
        let cases = [(700, 1_000), (900, 1_200), (100, 400), (0, 300)];
        for (accounted, expected) in cases {
            assert_eq!(reading.heap_bytes_now(accounted), expected, "{accounted}");
        }
        let odd = Reading { heap_bytes: 500, ..reading };
        assert_eq!(odd.heap_bytes_now(0), 0, "more was accounted for than the allocator knew");
    }

    #[test]
    fn the_kernels_send_queues_and_what_shards_report_are_counted() {
        const QUEUED: usize = 1 << 40;
        let census = Census::new(2);
        let meter = MemoryMeter::new(Arc::clone(&census));
        let now = Instant::now();
        let before = meter.bytes_in_use(now);
        for shard in 0..2 {
            let memory = ShardMemory { kernel_send: QUEUED, log: QUEUED, ..ShardMemory::default() };
            census.report(shard, ShardReport { memory, ..ShardReport::default() });
        }
        // Payloads of tests that run beside this one come and go.
        let grown = meter.bytes_in_use(now) - before;
        assert!(grown.abs_diff(4 * QUEUED) < QUEUED, "{grown}");
    }

    #[test]
    fn a_figure_that_is_asked_for_explicitly_is_of_now() {
        let meter = MemoryMeter::new(Census::new(0));
        let now = Instant::now();
        let before = meter.heap_bytes(now);
        let block = vec![1_u8; 1 << 28];
        assert_eq!(meter.heap_bytes(now), before);
        meter.read_heap(now);
        assert!(meter.heap_bytes(now) > before + block.len() / 2);
    }
}
