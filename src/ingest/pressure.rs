//! When the source pauses because the process is short of memory or of CPU.
//!
//! Pure: the clock and the figures are passed in. Bounds: one look at the figures every
//! [`LOOK_EVERY`], and a hundredth of the time for them; a pause lasts [`PAUSE_MAX`] at most, then
//! [`MESSAGES_LET_THROUGH`] are taken before the next one, for a shortage that the source does not
//! cause must not starve clients.

use std::time::{Duration, Instant};

use crate::retry::Retry;

/// The figures are looked at so often at most, and only when somebody wants to take a message.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Looks take at most this part of the time: the allocator's figure costs 0.2 µs per free block,
/// 170 ms with a million of them.
const LOOKS_SHARE: u32 = 100;

/// The longest pause. Shorter than the two missed heartbeats after which a source would take its
/// broker for dead.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What is taken between two pauses: a pull of JetStream.
const MESSAGES_LET_THROUGH: u32 = 256;

/// Where a pause begins, in thousandths of the limit. The memory's own limit is left to what
/// cannot be held back.
const MEMORY_HIGH: u128 = 850;
const CPU_HIGH: u128 = 1_000;

/// At what use of the machine the server takes in less. 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PressureLimits {
    /// Bytes of [`Usage::memory_bytes`]; ingest pauses at 85 % of them.
    pub memory_bytes: u64,
    /// Percent of the CPUs that the process may use.
    pub cpu_percent: u32,
}

impl PressureLimits {
    /// Whether there is none.
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }
}

/// What the process uses.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Memory that falls when something is freed.
    pub memory_bytes: u64,
    /// CPU time of all threads since the start.
    pub cpu_time: Duration,
    /// CPUs that the process may use.
    pub cpus: u32,
}

/// What the process is short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Memory,
    Cpu,
}

impl Cause {
    /// The setting that holds the limit.
    pub(crate) fn setting(self) -> &'static str {
        match self {
            Self::Memory => "WS_MEMORY_LIMIT",
            Self::Cpu => "WS_CPU_LIMIT",
        }
    }
}

/// A shortage that began or ended, if that is worth a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) cause: Cause,
    pub(crate) is_short: bool,
    /// What is used, in percent of the limit.
    pub(crate) percent_of_limit: u64,
}

/// Who may not take a message asks again after this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pause {
    pub(crate) cause: Cause,
    pub(crate) wait: Duration,
}

/// Whether the source may take messages.
#[derive(Debug)]
pub(crate) struct Pressure {
    limits: PressureLimits,
    memory: Watch,
    cpu: Watch,
    looked: Option<(Instant, Usage)>,
    next_look: Option<Instant>,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// There is no shortage.
    Free,
    /// No messages are taken.
    Paused { since: Instant },
    /// There is a shortage, and these are taken all the same.
    LetThrough { left: u32 },
}

impl Pressure {
    pub(crate) fn new(limits: PressureLimits) -> Self {
        Self {
            limits,
            memory: Watch::new(Cause::Memory, MEMORY_HIGH),
            cpu: Watch::new(Cause::Cpu, CPU_HIGH),
            looked: None,
            next_look: None,
            state: State::Free,
        }
    }

    /// Whether it is time for [`Self::look`].
    pub(crate) fn is_look_due(&self, now: Instant) -> bool {
        self.next_look.is_none_or(|next| now >= next)
    }

    /// Takes the figures of now, which took `cost` to read; what is to be told.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        usage: Usage,
        cost: Duration,
    ) -> impl Iterator<Item = Change> + use<> {
        let changes = [
            self.memory.take(self.memory_level(usage), now),
            self.cpu.take(self.cpu_level(now, usage), now),
        ];
        self.looked = Some((now, usage));
        self.next_look = Some(now + LOOK_EVERY.max(cost * LOOKS_SHARE));
        self.state = match (self.cause(), self.state) {
            (None, _) => State::Free,
            (Some(_), State::Free) => State::Paused { since: now },
            (Some(_), state) => state,
        };
        changes.into_iter().flatten()
    }

    /// The pause that whoever wants to take a message has to make, if any.
    pub(crate) fn pause(&mut self, now: Instant) -> Option<Pause> {
        let (State::Paused { since }, Some(cause)) = (self.state, self.cause()) else {
            return None;
        };
        let ends = since + PAUSE_MAX;
        if now >= ends {
            self.state = State::LetThrough { left: MESSAGES_LET_THROUGH };
            return None;
        }
        let next = self.next_look.map_or(ends, |next| next.min(ends));
        Some(Pause { cause, wait: next.saturating_duration_since(now) })
    }

    /// Counts one message that was taken.
    pub(crate) fn count(&mut self, now: impl FnOnce() -> Instant) {
        if let State::LetThrough { left } = &mut self.state {
            *left -= 1;
            if *left == 0 {
                self.state = State::Paused { since: now() };
            }
        }
    }

    /// What there is too little of; memory before CPU.
    fn cause(&self) -> Option<Cause> {
        [&self.memory, &self.cpu].into_iter().find(|watch| watch.is_short).map(|watch| watch.cause)
    }

    /// Thousandths of the limit; 0 without one.
    fn memory_level(&self, usage: Usage) -> u128 {
        let used = u128::from(usage.memory_bytes) * 1_000;
        used.checked_div(self.limits.memory_bytes.into()).unwrap_or(0)
    }

    /// Thousandths of the limit since the look before; 0 without a limit or a look before.
    fn cpu_level(&self, now: Instant, usage: Usage) -> u128 {
        let Some((then, before)) = self.looked else { return 0 };
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
    /// Whether the shortage that holds was told.
    is_told: bool,
    retry: Retry,
}

impl Watch {
    fn new(cause: Cause, high: u128) -> Self {
        Self { cause, high, is_short: false, is_told: false, retry: Retry::default() }
    }

    fn take(&mut self, level: u128, now: Instant) -> Option<Change> {
        let was_short = self.is_short;
        let threshold = if was_short { self.high - self.high / 10 } else { self.high };
        self.is_short = level >= threshold;
        if self.is_short == was_short {
            return None;
        }
        let is_worth_telling = if self.is_short {
            self.is_told = self.retry.failed(self.cause.setting(), now);
            self.is_told
        } else {
            std::mem::take(&mut self.is_told)
        };
        let percent_of_limit = u64::try_from(level / 10).unwrap_or(u64::MAX);
        let change = Change { cause: self.cause, is_short: self.is_short, percent_of_limit };
        is_worth_telling.then_some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PressureLimits = PressureLimits { memory_bytes: 1_000, cpu_percent: 50 };

    /// A process with 2 CPUs, in time that passes as the test says.
    struct Process {
        pressure: Pressure,
        now: Instant,
        usage: Usage,
        told: Vec<(Cause, bool)>,
    }

    impl Process {
        fn new(limits: PressureLimits) -> Self {
            let usage = Usage { cpus: 2, ..Usage::default() };
            let mut process =
                Self { pressure: Pressure::new(limits), now: Instant::now(), usage, told: vec![] };
            assert!(process.pressure.is_look_due(process.now));
            process.look();
            process
        }

        fn look(&mut self) {
            let changes = self.pressure.look(self.now, self.usage, Duration::ZERO);
            self.told.extend(changes.map(|change| (change.cause, change.is_short)));
        }

        /// A quarter second passes, in which so much of one CPU is used; what must be paused for.
        fn step(&mut self, memory_bytes: u64, cpu_ms: u64) -> Option<Cause> {
            self.now += LOOK_EVERY;
            self.usage.memory_bytes = memory_bytes;
            self.usage.cpu_time += Duration::from_millis(cpu_ms);
            self.look();
            self.pressure.pause(self.now).map(|pause| pause.cause)
        }

        /// Takes messages for a time under this pressure: how many at which millisecond.
        fn take_for(&mut self, time: Duration, memory_bytes: u64) -> Vec<(u128, u32)> {
            self.usage.memory_bytes = memory_bytes;
            let start = self.now;
            let mut batches = Vec::new();
            while self.now < start + time {
                if self.pressure.is_look_due(self.now) {
                    self.look();
                }
                let mut taken = 0;
                let pause = loop {
                    match self.pressure.pause(self.now) {
                        Some(pause) => break pause,
                        None => self.pressure.count(|| self.now),
                    }
                    taken += 1;
                    assert!(taken < 10_000, "no pause follows");
                };
                if taken > 0 {
                    batches.push((self.now.duration_since(start).as_millis(), taken));
                }
                assert!(pause.wait > Duration::ZERO && pause.wait <= LOOK_EVERY, "{pause:?}");
                self.now += pause.wait;
            }
            batches
        }
    }

    #[test]
    fn a_pause_begins_at_the_limit_and_ends_a_tenth_lower() {
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
    fn the_first_look_knows_no_cpu_and_two_in_one_moment_do_no_harm() {
        let mut process = Process::new(LIMITS);
        process.usage.cpu_time = Duration::from_secs(1_000);
        process.look();
        assert_eq!(process.pressure.pause(process.now), None);
    }

    #[test]
    fn looks_that_cost_much_are_rare_and_a_pause_is_no_longer_for_it() {
        let start = Instant::now();
        let mut pressure = Pressure::new(LIMITS);
        let usage = Usage { memory_bytes: 1_000, cpus: 1, ..Usage::default() };
        for (cost_ms, expected_ms) in [(0, 250), (2, 250), (3, 300), (170, 17_000)] {
            let changes = pressure.look(start, usage, Duration::from_millis(cost_ms));
            assert!(changes.count() <= 1);
            let next = start + Duration::from_millis(expected_ms);
            assert!(!pressure.is_look_due(next - Duration::from_millis(1)), "{cost_ms} ms");
            assert!(pressure.is_look_due(next), "{cost_ms} ms");
        }
        assert_eq!(pressure.pause(start), Some(Pause { cause: Cause::Memory, wait: PAUSE_MAX }));
    }

    #[test]
    fn a_lasting_shortage_lets_a_batch_through_every_two_seconds() {
        let mut process = Process::new(LIMITS);
        process.now += LOOK_EVERY;
        let batches = process.take_for(Duration::from_secs(9), 1_000);
        assert_eq!(batches, [(2_000, 256), (4_000, 256), (6_000, 256), (8_000, 256)]);
        assert_eq!(process.told, [(Cause::Memory, true)]);
        assert_eq!(process.step(0, 0), None);
        assert_eq!(process.told, [(Cause::Memory, true), (Cause::Memory, false)]);
    }

    #[test]
    fn what_was_let_through_and_not_taken_is_forgotten_when_the_shortage_ends() {
        let mut process = Process::new(LIMITS);
        assert_eq!(process.step(1_000, 0), Some(Cause::Memory));
        process.now += PAUSE_MAX;
        assert_eq!(process.pressure.pause(process.now), None);
        process.pressure.count(|| panic!("no clock is needed"));
        assert_eq!(process.step(1_000, 0), None, "the rest of the batch");
        assert_eq!(process.step(0, 0), None);
        assert_eq!(process.step(1_000, 0), Some(Cause::Memory), "a new shortage");
    }

    #[test]
    fn a_shortage_that_comes_and_goes_is_told_every_ten_seconds_and_so_is_its_end() {
        let mut process = Process::new(LIMITS);
        for _ in 0..41 {
            process.step(1_000, 0);
            process.step(0, 0);
        }
        let memory = |is_short| (Cause::Memory, is_short);
        let expected = [memory(true), memory(false)].repeat(3);
        assert_eq!(process.told, expected, "in 20.5 s");
    }
}
