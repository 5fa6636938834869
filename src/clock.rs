//! Time as a value: one origin for all threads of the process, so that what one thread stamps
//! another can compare.
//!
//! Only the composition root makes a [`Clock`]; rules are passed a [`Now`].

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The moment of a call, read once per turn by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Microseconds on a clock that never goes back, since the process started.
    pub monotonic_us: u64,
    /// Milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

impl Now {
    /// Whole milliseconds of the clock that never goes back.
    pub fn monotonic_ms(self) -> u64 {
        self.monotonic_us / 1_000
    }
}

/// Reads the time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose monotonic time begins now.
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// The time on both clocks.
    pub fn now(&self) -> Now {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { monotonic_us: self.monotonic_us(), unix_ms: since_epoch.as_millis() as u64 }
    }

    /// Microseconds since the start.
    pub fn monotonic_us(&self) -> u64 {
        self.origin.elapsed().as_micros() as u64
    }
}
