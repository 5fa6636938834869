//! When events are due, and how a thread wakes on time.
//!
//! The schedule does not shift when its user is late: when an event is due follows from the rate
//! and the number of events before it, and latencies count from there (coordinated omission).

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The longest sleep, so that the thread notices the end and a new rate.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// Events at a rate.
#[derive(Debug)]
pub struct Schedule {
    base: Instant,
    since_base: u64,
    rate: f64,
}

impl Schedule {
    /// The first event is due at `base`.
    pub fn new(base: Instant, rate: f64) -> Self {
        Self { base, since_base: 0, rate }
    }

    /// When the next event is due.
    pub fn due(&self) -> Instant {
        self.base + Duration::from_secs_f64(self.since_base as f64 / self.rate)
    }

    /// The next event has been taken.
    pub fn advance(&mut self) {
        self.since_base += 1;
    }

    /// Changes the rate; when the next event is due stays the same.
    pub fn set_rate(&mut self, rate: f64) {
        if rate != self.rate {
            *self = Self::new(self.due(), rate);
        }
    }
}

/// Sleeps until `due`, or for [`SLEEP_MAX`] if that is sooner; whether it is due.
pub fn sleep_until(due: Instant) -> bool {
    let left = due.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        std::thread::sleep(left.min(SLEEP_MAX));
    }
    Instant::now() >= due
}

/// Makes this thread's sleeps end on time instead of up to 50 us late (proc(5), timerslack_ns).
/// If that cannot be set, sleeps end late, and the lateness is measured.
pub fn sharpen_sleep() {
    // "PID/task/TID"
    let Ok(thread) = fs::read_link("/proc/thread-self") else { return };
    if let Some(id) = thread.file_name().and_then(|id| id.to_str()) {
        fs::write(format!("/proc/{id}/timerslack_ns"), "1").unwrap_or_default();
    }
}

/// Converts moments to times of day, which processes of one machine can compare.
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    began: Instant,
    since_epoch: Duration,
}

impl WallClock {
    /// Reads both clocks.
    pub fn read() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { began: Instant::now(), since_epoch }
    }

    /// Microseconds since the Unix epoch.
    pub fn unix_us(&self, moment: Instant) -> u64 {
        (self.since_epoch + moment.saturating_duration_since(self.began)).as_micros() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_keep_their_places_and_another_rate_goes_on_from_there() {
        let base = Instant::now();
        let mut schedule = Schedule::new(base, 4.0);
        assert_eq!(schedule.due(), base);
        schedule.advance();
        schedule.advance();
        assert_eq!(schedule.due(), base + Duration::from_millis(500));
        schedule.set_rate(10.0);
        assert_eq!(schedule.due(), base + Duration::from_millis(500));
        schedule.advance();
        assert_eq!(schedule.due(), base + Duration::from_millis(600));
    }

    #[test]
    fn a_sleep_says_whether_its_time_has_come() {
        sharpen_sleep();
        let slack = fs::read_to_string("/proc/self/timerslack_ns").unwrap();
        assert!(slack.trim().parse::<u64>().is_ok(), "the others keep theirs");
        assert!(sleep_until(Instant::now()));
        assert!(!sleep_until(Instant::now() + Duration::from_secs(3_600)));
        let clock = WallClock::read();
        let later = clock.unix_us(clock.began + Duration::from_millis(3));
        assert_eq!(later - clock.unix_us(clock.began), 3_000);
    }
}
