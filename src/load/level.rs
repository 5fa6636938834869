//! The level as other threads read it: one atomic word, written by the watcher alone.
//!
//! Reading costs one relaxed load: no lock and no clock. The word holds everything, so a reader
//! never sees the cause of one moment beside the percentage of another.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the process runs short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// `WS_MEMORY_LIMIT` is near.
    Memory,
    /// `WS_CPU_LIMIT` is reached.
    Cpu,
}

impl Cause {
    /// The setting that holds the limit.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Memory => "WS_MEMORY_LIMIT",
            Self::Cpu => "WS_CPU_LIMIT",
        }
    }
}

/// How near its limits the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// What the process is short of, memory before CPU; without a shortage what is nearest to it.
    pub cause: Cause,
    /// What is used of it, in percent of its limit; 0 without a limit.
    pub percent_of_limit: u16,
    /// When the shortage began, if there is one. It goes on while its cause changes.
    pub short_since: Option<Instant>,
}

/// The newest [`Level`], shared between threads.
#[derive(Debug)]
pub struct LoadLevel {
    /// Times in the word count from here.
    origin: Instant,
    word: AtomicU64,
}

// The word, from its lowest bit: percent, cause, whether there is a shortage, and the millisecond
// at which it began (46 bits: 2,000 years).
const CAUSE_SHIFT: u32 = u16::BITS;
const SHORT_SHIFT: u32 = CAUSE_SHIFT + 1;
const SINCE_SHIFT: u32 = SHORT_SHIFT + 1;

impl Default for LoadLevel {
    /// No shortage.
    fn default() -> Self {
        Self { origin: Instant::now(), word: AtomicU64::new(0) }
    }
}

impl LoadLevel {
    /// The newest level.
    pub fn read(&self) -> Level {
        let word = self.word.load(Ordering::Relaxed);
        let is_short = word >> SHORT_SHIFT & 1 == 1;
        let since = || self.origin + Duration::from_millis(word >> SINCE_SHIFT);
        Level {
            cause: if word >> CAUSE_SHIFT & 1 == 1 { Cause::Cpu } else { Cause::Memory },
            // Cut to the lowest 16 bits.
            percent_of_limit: word as u16,
            short_since: is_short.then(since),
        }
    }

    /// Replaces the level.
    pub(crate) fn publish(&self, level: Level) {
        let since = level.short_since.map(|since| since.saturating_duration_since(self.origin));
        let since_ms = since.map_or(0, |since| since.as_millis() as u64);
        let word = u64::from(level.percent_of_limit)
            | u64::from(level.cause == Cause::Cpu) << CAUSE_SHIFT
            | u64::from(since.is_some()) << SHORT_SHIFT
            | since_ms << SINCE_SHIFT;
        self.word.store(word, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_read_as_it_was_published_to_the_millisecond() {
        let shared = LoadLevel::default();
        let nothing = Level { cause: Cause::Memory, percent_of_limit: 0, short_since: None };
        assert_eq!(shared.read(), nothing);
        let begins = [Duration::ZERO, Duration::from_millis(1), Duration::from_secs(3_000_000_000)];
        for cause in [Cause::Memory, Cause::Cpu] {
            for percent_of_limit in [0, 1, 99, u16::MAX] {
                for begin in begins.map(Some).into_iter().chain([None]) {
                    let short_since = begin.map(|begin| shared.origin + begin);
                    let level = Level { cause, percent_of_limit, short_since };
                    shared.publish(level);
                    assert_eq!(shared.read(), level);
                }
            }
        }
        let short_since = Some(shared.origin + Duration::from_micros(7_999));
        shared.publish(Level { short_since, ..nothing });
        let expected = Some(shared.origin + Duration::from_millis(7));
        assert_eq!(shared.read().short_since, expected);
    }
}
