//! PURE: when clients are told that messages may be lost.
//!
//! What is claimed is taken back at once, with each loss. The notice makes every client load anew,
//! so it is sent at most once per [`NOTICE_EVERY`]: a stream that turns over within a second would
//! have them do so all the time. Until then a loss is untold, and nothing is claimed at all.

use std::time::{Duration, Instant};

/// Time between two notices.
pub(super) const NOTICE_EVERY: Duration = Duration::from_secs(5);

/// What clients were told, and what is left to tell.
#[derive(Debug, Default)]
pub(super) struct Notices {
    told_at: Option<Instant>,
    untold: Untold,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Untold {
    /// Clients know of every loss.
    #[default]
    Nothing,
    /// They are to be told as soon as they may.
    Due,
    /// They are to be told when more is known.
    Held,
}

impl Notices {
    /// Messages may be lost.
    pub(super) fn lost(&mut self, now: Instant) {
        self.untold = Untold::Due;
        // What is to be told first is not older than this.
        self.told_at.get_or_insert_with(|| now.checked_sub(NOTICE_EVERY).unwrap_or(now));
    }

    /// The same, but the notice waits for [`Self::tell`].
    pub(super) fn hold(&mut self) {
        self.untold = Untold::Held;
    }

    /// Whether there is a loss that clients were not told of.
    #[inline]
    pub(super) fn is_untold(&self) -> bool {
        self.untold != Untold::Nothing
    }

    /// When they are to be told; `None` if there is nothing to tell yet.
    #[inline]
    pub(super) fn due(&self) -> Option<Instant> {
        if self.untold != Untold::Due {
            return None;
        }
        self.told_at.map(|at| at + NOTICE_EVERY)
    }

    /// They are told now, if there is anything to tell: whether there was.
    pub(super) fn tell(&mut self, now: Instant) -> bool {
        let is_untold = self.is_untold();
        if is_untold {
            self.told(now);
        }
        is_untold
    }

    /// They are told now, with something else that makes them load anew.
    pub(super) fn told(&mut self, now: Instant) {
        (self.told_at, self.untold) = (Some(now), Untold::Nothing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_loss_is_told_at_once_and_the_next_ones_together() {
        let start = Instant::now() + NOTICE_EVERY;
        let mut notices = Notices::default();
        assert_eq!(notices.due(), None);
        assert!(!notices.tell(start), "which delays nothing");
        notices.lost(start);
        assert!(notices.is_untold());
        assert!(notices.due().is_some_and(|due| due <= start));
        assert!(notices.tell(start));
        let soon = start + NOTICE_EVERY / 5;
        notices.lost(soon);
        notices.lost(soon + NOTICE_EVERY / 5);
        assert_eq!(notices.due(), Some(start + NOTICE_EVERY));
        assert!(notices.is_untold());
        assert!(notices.tell(start + NOTICE_EVERY));
        assert!(!notices.is_untold() && notices.due().is_none());
        notices.lost(start + 3 * NOTICE_EVERY);
        assert_eq!(notices.due(), Some(start + 2 * NOTICE_EVERY), "long since");
    }

    #[test]
    fn what_is_held_is_told_when_it_is_said() {
        let now = Instant::now();
        let mut notices = Notices::default();
        notices.hold();
        assert!(notices.is_untold() && notices.due().is_none());
        assert!(notices.tell(now));
        assert!(!notices.tell(now), "nothing more to tell");
    }
}
