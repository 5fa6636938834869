//! Commands per second of one connection: the generic cell rate algorithm (ITU-T I.371), which
//! needs one number of state; and what becomes of a client that does not keep to them.

use super::limits::COMMAND_EXCESS_MAX;

/// When the bucket would be empty again, in microseconds of the monotonic clock.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CommandRate {
    empty_at_us: u64,
}

/// Commands over the rate, less those within it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CommandExcess(u16);

impl CommandExcess {
    /// Counts a command by whether it was taken; whether the client keeps sending too many and is
    /// to be closed.
    pub(super) fn count(&mut self, taken: Result<(), u64>) -> bool {
        self.0 = match taken {
            Ok(()) => self.0.saturating_sub(1),
            Err(_) => self.0.saturating_add(1),
        };
        self.0 >= COMMAND_EXCESS_MAX
    }
}

impl CommandRate {
    /// Takes one command at a rate of `per_second`, with a burst of one second's worth.
    ///
    /// # Errors
    /// The milliseconds after which the next one would be taken.
    pub(super) fn take(&mut self, now_us: u64, per_second: u32) -> Result<(), u64> {
        let interval_us = 1_000_000 / u64::from(per_second.max(1));
        let burst_us = 1_000_000 - interval_us;
        let empty_at_us = self.empty_at_us.max(now_us);
        let ahead_us = empty_at_us - now_us;
        if ahead_us > burst_us {
            return Err((ahead_us - burst_us).div_ceil(1_000));
        }
        self.empty_at_us = empty_at_us + interval_us;
        Ok(())
    }

    /// Counts `commands` more for one that was taken and turned out to be dear.
    pub(super) fn charge(&mut self, commands: usize, per_second: u32) {
        let interval_us = 1_000_000 / u64::from(per_second.max(1));
        self.empty_at_us += commands as u64 * interval_us;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_delays_what_comes_next() {
        let mut rate = CommandRate::default();
        assert_eq!(rate.take(1_000_000, 50), Ok(()));
        rate.charge(59, 50);
        assert_eq!(rate.take(1_000_000, 50), Err(220));
        assert_eq!(rate.take(1_220_000, 50), Ok(()));
    }

    #[test]
    fn a_burst_of_one_second_then_the_rate() {
        let mut rate = CommandRate::default();
        let taken = (0..100).filter(|_| rate.take(5_000_000, 50).is_ok()).count();
        assert_eq!(taken, 50);
        assert_eq!(rate.take(5_000_000, 50), Err(20));
        assert_eq!(rate.take(5_020_000, 50), Ok(()));
        assert!(rate.take(5_020_000, 50).is_err());
        let taken = (0..100).filter(|_| rate.take(60_000_000, 50).is_ok()).count();
        assert_eq!(taken, 50);
    }

    #[test]
    fn one_per_second() {
        let mut rate = CommandRate::default();
        assert_eq!(rate.take(0, 1), Ok(()));
        assert_eq!(rate.take(0, 1), Err(1_000));
        assert_eq!(rate.take(1_000_000, 1), Ok(()));
    }
}
