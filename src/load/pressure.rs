//! PURE: when the process is short of memory or of CPU.
//!
//! The clock and the readings are passed in. A shortage begins at 85 % of the memory limit or at
//! the CPU limit and ends a tenth lower, so that it does not flicker.

use std::time::Instant;

use super::level::{Cause, Level};
use super::limits::PressureLimits;
use super::usage::Usage;
use crate::retry::Retry;

/// Where a shortage begins, in thousandths of the limit. What is left of the memory is for what
/// cannot be held back.
const MEMORY_HIGH: u128 = 850;
const CPU_HIGH: u128 = 1_000;

/// A shortage that began or ended and is worth a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) cause: Cause,
    pub(crate) is_short: bool,
    /// What is used, in percent of the limit.
    pub(crate) percent_of_limit: u16,
}

/// The readings against their limits.
#[derive(Debug)]
pub(crate) struct Pressure {
    limits: PressureLimits,
    memory: Watch,
    cpu: Watch,
    /// The newest reading and its time.
    sampled: Option<(Instant, Usage)>,
    /// When the shortage that holds began, whatever its cause is now.
    short_since: Option<Instant>,
}

impl Pressure {
    pub(crate) fn new(limits: PressureLimits) -> Self {
        Self {
            limits,
            memory: Watch::new(Cause::Memory, MEMORY_HIGH),
            cpu: Watch::new(Cause::Cpu, CPU_HIGH),
            sampled: None,
            short_since: None,
        }
    }

    /// Takes in a reading of `now`; returns what to log.
    pub(crate) fn sample(
        &mut self,
        now: Instant,
        usage: Usage,
    ) -> impl Iterator<Item = Change> + use<> {
        let changes = [
            self.memory.take(self.memory_permille(usage), now),
            self.cpu.take(self.cpu_permille(now, usage), now),
        ];
        self.sampled = Some((now, usage));
        let is_short = self.memory.is_short || self.cpu.is_short;
        self.short_since = is_short.then(|| self.short_since.unwrap_or(now));
        changes.into_iter().flatten()
    }

    /// The level of the newest reading.
    pub(crate) fn level(&self) -> Level {
        let worst = match (self.memory.is_short, self.cpu.is_short) {
            (true, _) => &self.memory,
            (false, true) => &self.cpu,
            (false, false) if self.cpu.nearness() > self.memory.nearness() => &self.cpu,
            (false, false) => &self.memory,
        };
        Level {
            cause: worst.cause,
            percent_of_limit: worst.percent_of_limit(),
            short_since: self.short_since,
        }
    }

    /// Thousandths of the limit; 0 without one.
    fn memory_permille(&self, usage: Usage) -> u128 {
        let used = u128::from(usage.memory_bytes) * 1_000;
        used.checked_div(self.limits.memory_bytes.into()).unwrap_or(0)
    }

    /// Thousandths of the limit since the reading before; 0 without a limit or a reading before.
    fn cpu_permille(&self, now: Instant, usage: Usage) -> u128 {
        let Some((then, before)) = self.sampled else { return 0 };
        let used = usage.cpu_time.saturating_sub(before.cpu_time).as_nanos();
        let passed = now.saturating_duration_since(then).as_nanos();
        let percent = passed * u128::from(usage.cpus) * u128::from(self.limits.cpu_percent);
        (used * 1_000 * 100).checked_div(percent).unwrap_or(0)
    }
}

/// One figure against its limit.
#[derive(Debug)]
struct Watch {
    cause: Cause,
    /// Where the shortage begins; it ends a tenth lower.
    high: u128,
    is_short: bool,
    /// The newest figure, in thousandths of the limit.
    permille: u128,
    /// Whether the shortage that holds was logged.
    is_logged: bool,
    retry: Retry,
}

impl Watch {
    fn new(cause: Cause, high: u128) -> Self {
        Self {
            cause,
            high,
            is_short: false,
            permille: 0,
            is_logged: false,
            retry: Retry::default(),
        }
    }

    fn take(&mut self, permille: u128, now: Instant) -> Option<Change> {
        self.permille = permille;
        let was_short = self.is_short;
        let threshold = if was_short { self.high - self.high / 10 } else { self.high };
        self.is_short = permille >= threshold;
        if self.is_short == was_short {
            return None;
        }
        let is_worth_logging = if self.is_short {
            self.is_logged = self.retry.failed(self.cause.setting(), now);
            self.is_logged
        } else {
            std::mem::take(&mut self.is_logged)
        };
        let percent_of_limit = self.percent_of_limit();
        let change = Change { cause: self.cause, is_short: self.is_short, percent_of_limit };
        is_worth_logging.then_some(change)
    }

    fn percent_of_limit(&self) -> u16 {
        u16::try_from(self.permille / 10).unwrap_or(u16::MAX)
    }

    /// Thousandths of the figure at which the shortage begins.
    fn nearness(&self) -> u128 {
        self.permille.saturating_mul(1_000) / self.high
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LIMITS: PressureLimits = PressureLimits { memory_bytes: 1_000, cpu_percent: 50 };

    /// A process with 2 CPUs, in time that passes as the test says.
    struct Process {
        pressure: Pressure,
        now: Instant,
        usage: Usage,
        logged: Vec<(Cause, bool)>,
    }

    impl Process {
        fn new(limits: PressureLimits) -> Self {
            let usage = Usage { cpus: 2, ..Usage::default() };
            let pressure = Pressure::new(limits);
            let mut process = Self { pressure, now: Instant::now(), usage, logged: vec![] };
            process.sample();
            process
        }

        fn sample(&mut self) {
            let changes = self.pressure.sample(self.now, self.usage);
            self.logged.extend(changes.map(|change| (change.cause, change.is_short)));
        }

        /// A quarter second passes, in which so much of one CPU is used; what is short then.
        fn step(&mut self, memory_bytes: u64, cpu_ms: u64) -> Option<Cause> {
            self.now += Duration::from_millis(250);
            self.usage.memory_bytes = memory_bytes;
            self.usage.cpu_time += Duration::from_millis(cpu_ms);
            self.sample();
            let level = self.pressure.level();
            level.short_since.map(|_| level.cause)
        }
    }

    #[test]
    fn a_shortage_begins_at_the_limit_and_ends_a_tenth_lower() {
        let (memory, cpu) = (Some(Cause::Memory), Some(Cause::Cpu));
        // 50 % of 2 CPUs in a quarter second are 250 ms.
        let steps = [
            (849, 249, None),
            (850, 0, memory),
            (765, 0, memory),
            (764, 0, None),
            (849, 0, None),
            (0, 250, cpu),
            (0, 225, cpu),
            (900, 225, memory),
            (0, 225, cpu),
            (0, 224, None),
            (0, 249, None),
            (u64::MAX, 500, memory),
            (0, 0, None),
        ];
        let mut process = Process::new(LIMITS);
        for (index, (memory_bytes, cpu_ms, expected)) in steps.into_iter().enumerate() {
            assert_eq!(process.step(memory_bytes, cpu_ms), expected, "step {index}");
        }
    }

    #[test]
    fn what_has_no_limit_is_never_short() {
        let cases = [
            (PressureLimits { cpu_percent: 0, ..LIMITS }, 0, 500, None),
            (PressureLimits { cpu_percent: 0, ..LIMITS }, 900, 500, Some(Cause::Memory)),
            (PressureLimits { memory_bytes: 0, ..LIMITS }, u64::MAX, 0, None),
            (PressureLimits { memory_bytes: 0, ..LIMITS }, u64::MAX, 500, Some(Cause::Cpu)),
        ];
        for (limits, memory_bytes, cpu_ms, expected) in cases {
            assert_eq!(Process::new(limits).step(memory_bytes, cpu_ms), expected, "{limits:?}");
        }
        assert!(PressureLimits::default().is_off() && !LIMITS.is_off());
    }

    #[test]
    fn the_first_reading_knows_no_cpu_and_two_in_one_moment_do_no_harm() {
        let mut process = Process::new(LIMITS);
        process.usage.cpu_time = Duration::from_secs(1_000);
        process.sample();
        assert_eq!(process.pressure.level().short_since, None);
    }

    #[test]
    fn the_level_is_that_of_what_is_nearest_to_its_shortage() {
        let mut process = Process::new(LIMITS);
        let cases = [
            (0, 0, Cause::Memory, 0),
            (10, 0, Cause::Memory, 1),
            (10, 25, Cause::Cpu, 10),
            (400, 100, Cause::Memory, 40),
            (400, 125, Cause::Cpu, 50),
            (850, 500, Cause::Memory, 85),
            (0, 500, Cause::Cpu, 200),
            (u64::MAX, 0, Cause::Memory, u16::MAX),
        ];
        for (memory_bytes, cpu_ms, cause, percent) in cases {
            process.step(memory_bytes, cpu_ms);
            let level = process.pressure.level();
            assert_eq!((level.cause, level.percent_of_limit), (cause, percent), "{memory_bytes}");
        }
    }

    #[test]
    fn a_shortage_goes_on_while_its_cause_changes() {
        let mut process = Process::new(LIMITS);
        process.step(1_000, 0);
        let since = process.pressure.level().short_since;
        assert_eq!(since, Some(process.now));
        assert_eq!(process.step(1_000, 500), Some(Cause::Memory));
        assert_eq!(process.step(0, 500), Some(Cause::Cpu));
        assert_eq!(process.pressure.level().short_since, since);
        assert_eq!(process.step(0, 0), None);
        process.step(1_000, 0);
        assert_eq!(process.pressure.level().short_since, Some(process.now), "a new one");
    }

    #[test]
    fn a_lasting_shortage_is_logged_once_and_so_is_its_end() {
        let mut process = Process::new(LIMITS);
        for _ in 0..100 {
            process.step(1_000, 0);
        }
        assert_eq!(process.logged, [(Cause::Memory, true)]);
        process.step(0, 0);
        assert_eq!(process.logged, [(Cause::Memory, true), (Cause::Memory, false)]);
    }

    #[test]
    fn a_shortage_that_comes_and_goes_is_logged_every_ten_seconds_and_so_is_its_end() {
        let mut process = Process::new(LIMITS);
        for _ in 0..41 {
            process.step(1_000, 0);
            process.step(0, 0);
        }
        let memory = |is_short| (Cause::Memory, is_short);
        let expected = [memory(true), memory(false)].repeat(3);
        assert_eq!(process.logged, expected, "in 20.5 s");
    }
}
