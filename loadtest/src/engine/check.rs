//! Checks that a connection gets every event once and in order: by `seq` on the connection, by
//! `pos` and `prev` on each channel. The first event of a channel is checked against the position
//! in the subscription's acknowledgement: it must be later, and no event between the two may be
//! missing. If the server lets a returning client resume, the check continues from the client's
//! last event.
//!
//! Bound: [`CHANNELS_MAX`] channels of a connection are watched by position, 16 bytes each; `seq`
//! is watched always.

use super::event::Event;

/// Channels of one connection that are watched by position.
const CHANNELS_MAX: usize = 512;

/// What one event showed. All fields are zero if it was the expected one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Events that should have come before it.
    pub gaps: u64,
    /// Whether it had come before.
    pub is_duplicate: bool,
    /// Whether it came after an event that should have followed it.
    pub is_disordered: bool,
}

/// How far one connection has come in its channels.
#[derive(Debug, Default)]
pub struct Checker {
    last_seq: u64,
    /// The server's newest position when it acknowledged the subscription; 0 if it told none.
    acknowledged_pos: u64,
    /// Channel number and newest position.
    channels: Vec<(u32, u64)>,
    /// Position and store time of the last event, or of the acknowledgement before the first.
    position: Option<(u64, u64)>,
}

impl Checker {
    /// The connection is lost: the next one numbers its events afresh.
    pub fn on_lost(&mut self) {
        self.last_seq = 0;
    }

    /// Position and store time to resume from.
    pub fn position(&self) -> Option<(u64, u64)> {
        self.position
    }

    /// The subscription was acknowledged at this position and store time, without what came before.
    pub fn on_acknowledged(&mut self, pos: u64, ts: u64) {
        self.acknowledged_pos = pos;
        self.channels.clear();
        self.position = Some((pos, ts));
    }

    /// After a resync positions may start afresh: later events are not compared with earlier ones.
    pub fn on_resync(&mut self) {
        self.acknowledged_pos = 0;
        self.channels.clear();
        self.position = None;
    }

    /// Takes the next event.
    pub fn check(&mut self, seq: u64, event: &Event) -> Verdict {
        let mut verdict = Verdict::default();
        if seq > self.last_seq + 1 {
            verdict.gaps = seq - self.last_seq - 1;
        }
        verdict.is_disordered = seq < self.last_seq;
        self.last_seq = self.last_seq.max(seq);
        self.position = self.position.max(Some((event.pos, event.ts)));
        let known = self.channels.iter().position(|(number, _)| *number == event.channel);
        match known {
            Some(at) => {
                let last = &mut self.channels[at].1;
                if event.pos == *last {
                    verdict.is_duplicate = true;
                } else if event.pos < *last {
                    verdict.is_disordered = true;
                } else {
                    // A hole in seq is a hole here, too: it counts once.
                    if event.prev != *last && event.prev != 0 && verdict.gaps == 0 {
                        verdict.gaps = 1;
                    }
                    *last = event.pos;
                }
            }
            None if self.channels.len() < CHANNELS_MAX => {
                self.check_first(event, &mut verdict);
                self.channels.push((event.channel, event.pos));
            }
            None => {}
        }
        verdict
    }

    /// The server reads its position and adds the subscription in one step, so no event can come
    /// between them. An event up to this position is out of order; no later one may be missing.
    fn check_first(&self, event: &Event, verdict: &mut Verdict) {
        if self.acknowledged_pos == 0 {
            return;
        }
        if event.pos <= self.acknowledged_pos {
            verdict.is_disordered = true;
        } else if event.prev > self.acknowledged_pos && verdict.gaps == 0 {
            verdict.gaps = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks an event of a channel.
    fn check(checker: &mut Checker, channel: u32, seq: u64, pos: u64, prev: u64) -> Verdict {
        checker.check(seq, &Event { channel, ts: pos, pos, prev, sent_us: None })
    }

    #[test]
    fn holes_repetitions_and_disorder_are_seen() {
        let mut checker = Checker::default();
        let fine = Verdict::default();
        assert_eq!(check(&mut checker, 0, 1, 10, 0), fine);
        assert_eq!(check(&mut checker, 0, 2, 12, 10), fine);
        assert_eq!(check(&mut checker, 1, 3, 11, 7), fine, "another channel");
        assert_eq!(check(&mut checker, 0, 6, 20, 18).gaps, 2, "by seq, counted once");
        assert_eq!(check(&mut checker, 0, 7, 30, 25).gaps, 1, "by prev");
        assert!(check(&mut checker, 0, 8, 30, 25).is_duplicate);
        assert!(check(&mut checker, 0, 9, 29, 25).is_disordered);
        assert!(check(&mut checker, 0, 4, 40, 30).is_disordered, "by seq");
        assert_eq!(check(&mut checker, 0, 10, 50, 0), fine, "the server knew none before");
        checker.on_lost();
        assert_eq!(checker.position(), Some((50, 50)));
        assert_eq!(check(&mut checker, 0, 1, 60, 50), fine, "it recovered");
        assert_eq!(check(&mut checker, 0, 2, 80, 70).gaps, 1, "it said so, but did not");
        checker.on_lost();
        checker.on_acknowledged(85, 85);
        assert_eq!(check(&mut checker, 0, 1, 90, 85), fine, "it did not recover");
    }

    #[test]
    fn the_first_event_of_a_channel_follows_the_acknowledgement() {
        let mut checker = Checker::default();
        let fine = Verdict::default();
        checker.on_acknowledged(100, 100);
        assert_eq!(check(&mut checker, 0, 1, 101, 90), fine);
        assert_eq!(check(&mut checker, 1, 2, 102, 0), fine, "the channel's first at all");
        assert_eq!(check(&mut checker, 2, 3, 103, 100), fine, "prev was the newest of all");
        assert!(check(&mut checker, 3, 4, 100, 90).is_disordered, "before the subscription");
        assert_eq!(check(&mut checker, 4, 5, 110, 105).gaps, 1, "105 was due");
        assert_eq!(check(&mut checker, 5, 7, 120, 115).gaps, 1, "by seq, counted once");
        checker.on_resync();
        assert_eq!(check(&mut checker, 0, 8, 3, 0), fine, "another stream");
    }
}
