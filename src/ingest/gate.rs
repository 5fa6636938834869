//! Holds the source back while the process is short of memory or of CPU.
//!
//! Owns the way to the figures and the log; the rules are those of [`Pressure`]. The lock is the
//! source's alone, one uncontended turn per message; without limits there is none.

use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::pressure::{Cause, Change, Pause, Pressure, PressureLimits, Usage};
use super::report::SourceReport;

/// Knows what the process uses; asked four times a second at most.
pub trait Meter: Debug + Send {
    /// The figures of now.
    fn usage(&self) -> Usage;
}

/// The gate that every message passes; open unless it was given limits.
#[derive(Debug, Default)]
pub(crate) struct Gate(Option<Mutex<Guarded>>);

#[derive(Debug)]
struct Guarded {
    pressure: Pressure,
    meter: Box<dyn Meter>,
}

impl Gate {
    pub(crate) fn new(limits: PressureLimits, meter: Box<dyn Meter>) -> Self {
        let guarded = || Mutex::new(Guarded { pressure: Pressure::new(limits), meter });
        Self((!limits.is_off()).then(guarded))
    }

    /// Whether one more message may be taken now.
    pub(crate) fn is_open(&self) -> bool {
        self.pause().is_none()
    }

    /// Waits until one more may be taken, and counts the time for its cause.
    pub(crate) async fn opened(&self, report: &SourceReport) {
        while let Some(pause) = self.pause() {
            let began = Instant::now();
            tokio::time::sleep(pause.wait).await;
            let paused = match pause.cause {
                Cause::Memory => &report.memory_pause,
                Cause::Cpu => &report.cpu_pause,
            };
            paused.add(began.elapsed());
        }
    }

    /// Counts one message that was taken.
    pub(crate) fn count(&mut self) {
        if let Some(guarded) = &mut self.0 {
            let guarded = guarded.get_mut().unwrap_or_else(PoisonError::into_inner);
            guarded.pressure.count(Instant::now);
        }
    }

    fn pause(&self) -> Option<Pause> {
        let mut guarded = lock(self.0.as_ref()?);
        let Guarded { pressure, meter } = &mut *guarded;
        let now = Instant::now();
        if pressure.is_look_due(now) {
            let usage = meter.usage();
            pressure.look(now, usage, now.elapsed()).for_each(tell);
        }
        pressure.pause(now)
    }
}

/// The figures are whole whatever happened to the lock's last holder.
fn lock(guarded: &Mutex<Guarded>) -> MutexGuard<'_, Guarded> {
    guarded.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tell(change: Change) {
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Debug, Default)]
    struct FakeMeter(Arc<AtomicU64>);

    impl Meter for FakeMeter {
        fn usage(&self) -> Usage {
            let memory_bytes = self.0.load(Ordering::Relaxed);
            Usage { memory_bytes, cpus: 1, ..Usage::default() }
        }
    }

    #[test]
    fn without_limits_nobody_looks() {
        #[derive(Debug)]
        struct Untouchable;
        impl Meter for Untouchable {
            fn usage(&self) -> Usage {
                panic!("no figures are needed")
            }
        }
        let mut gate = Gate::new(PressureLimits::default(), Box::new(Untouchable));
        assert!(gate.is_open());
        gate.count();
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_the_shortage_ends_and_the_time_is_counted() {
        let memory = Arc::new(AtomicU64::new(100));
        let meter = FakeMeter(Arc::clone(&memory));
        let limits = PressureLimits { memory_bytes: 100, cpu_percent: 0 };
        let gate = Gate::new(limits, Box::new(meter));
        let report = SourceReport::default();
        assert!(!gate.is_open());
        memory.store(50, Ordering::Relaxed);
        gate.opened(&report).await;
        assert!(gate.is_open());
        assert!(report.memory_pause.seconds() > 0.0);
        assert_eq!(report.cpu_pause.seconds(), 0.0);
    }
}
