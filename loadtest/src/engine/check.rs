//! Checks that a connection gets every event once and in order: by `seq` on the connection, by
//! `pos` and `prev` on each channel. The first event of a channel is checked against the position
//! in the subscription's acknowledgement: it must be later, and no event between the two may be
//! missing. If the server lets a returning client resume, the check continues from the client's
//! position. What moves the position is in docs/client-guide.md.
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
    /// Whether it had come on an earlier connection, and comes again because the client resumed from
    /// before it.
    pub is_repetition: bool,
}

/// How far one connection has come in its channels.
#[derive(Debug, Default)]
pub struct Checker {
    last_seq: u64,
    /// The server's newest position when it acknowledged the subscription; 0 if it told none.
    acknowledged_pos: u64,
    /// Channel number and newest position.
    channels: Vec<(u32, u64)>,
    /// The number of the epoch.
    epoch: Option<u32>,
    /// Position and store time up to which everything has come.
    position: Option<(u64, u64)>,
    /// `seq` has a hole: the position stays before it.
    has_hole: bool,
    /// The newest position on this connection, or the one that it resumed from.
    connection_pos: u64,
}

impl Checker {
    /// The connection is lost: the next one numbers its events afresh. If it resumes, what came
    /// behind the position comes again, and rightly so.
    pub fn on_lost(&mut self) {
        self.last_seq = 0;
        self.has_hole = false;
        self.connection_pos = self.position.map_or(0, |(pos, _)| pos);
    }

    /// Epoch, position and store time to resume from.
    pub fn position(&self) -> Option<(u32, u64, u64)> {
        self.epoch.zip(self.position).map(|(epoch, (pos, ts))| (epoch, pos, ts))
    }

    /// The subscription was acknowledged at this position and store time, without what came before.
    pub fn on_acknowledged(&mut self, epoch: Option<u32>, (pos, ts): (u64, u64)) {
        self.acknowledged_pos = pos;
        self.channels.clear();
        self.epoch = epoch;
        self.position = epoch.map(|_| (pos, ts));
    }

    /// The subscription goes on from the position.
    pub fn on_recovered(&mut self) {
        self.acknowledged_pos = self.position.map_or(0, |(pos, _)| pos);
    }

    /// After a resync positions may start afresh: later events are not compared with earlier ones.
    pub fn on_resync(&mut self, epoch: Option<u32>) {
        self.acknowledged_pos = 0;
        self.channels.clear();
        self.epoch = epoch;
        self.position = None;
        self.has_hole = false;
        self.connection_pos = 0;
    }

    /// The server names its epoch; events before belong to it if none was named so far.
    pub fn on_epoch(&mut self, epoch: Option<u32>) {
        self.epoch = self.epoch.or(epoch);
    }

    /// All events up to this position and store time have been sent.
    pub fn on_reached(&mut self, epoch: u32, reached: (u64, u64)) {
        if *self.epoch.get_or_insert(epoch) == epoch && !self.has_hole {
            self.position = self.position.max(Some(reached));
        }
    }

    /// Takes the next event.
    pub fn check(&mut self, seq: u64, event: &Event) -> Verdict {
        let mut verdict = Verdict::default();
        if seq > self.last_seq + 1 {
            verdict.gaps = seq - self.last_seq - 1;
            self.has_hole = true;
        }
        verdict.is_disordered = seq < self.last_seq;
        self.last_seq = self.last_seq.max(seq);
        // With `prev` 0 the server cannot prove that nothing is missing before the event.
        if event.prev != 0 && !self.has_hole {
            self.position = self.position.max(Some((event.pos, event.ts)));
        }
        // On one connection positions rise, over all channels.
        let is_new_here = event.pos > self.connection_pos;
        self.connection_pos = self.connection_pos.max(event.pos);
        let known = self.channels.iter().position(|(number, _)| *number == event.channel);
        match known {
            Some(at) => {
                let last = &mut self.channels[at].1;
                if event.pos <= *last && is_new_here {
                    verdict.is_repetition = true;
                } else if event.pos == *last {
                    verdict.is_duplicate = true;
                } else if event.pos < *last {
                    verdict.is_disordered = true;
                } else {
                    // A hole in seq is a hole here, too: it counts once.
                    if event.prev > *last && verdict.gaps == 0 {
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
    }

    #[test]
    fn the_position_is_what_can_be_resumed_from() {
        let mut checker = Checker::default();
        let fine = Verdict::default();
        checker.on_acknowledged(Some(0), (40, 40));
        check(&mut checker, 0, 1, 50, 30);
        check(&mut checker, 0, 2, 55, 0);
        assert_eq!(checker.position(), Some((0, 50, 50)), "prev 0 proves nothing");
        checker.on_lost();
        checker.on_recovered();
        assert!(check(&mut checker, 0, 1, 55, 50).is_repetition, "so it comes again");
        assert_eq!(check(&mut checker, 0, 2, 60, 55), fine, "it recovered");
        assert_eq!(check(&mut checker, 0, 3, 80, 70).gaps, 1, "it said so, but did not");
        assert_eq!(check(&mut checker, 0, 5, 90, 80).gaps, 1);
        checker.on_reached(0, (95, 95));
        assert_eq!(checker.position(), Some((0, 80, 80)), "before the hole");
        checker.on_lost();
        checker.on_acknowledged(Some(0), (85, 85));
        assert_eq!(check(&mut checker, 0, 1, 90, 85), fine, "it did not recover");
        checker.on_reached(1, (99, 99));
        assert_eq!(checker.position(), Some((0, 90, 90)), "another epoch");
        checker.on_resync(Some(1));
        assert_eq!(checker.position(), None);
        checker.on_reached(1, (99, 99));
        assert_eq!(checker.position(), Some((1, 99, 99)));
        checker.on_acknowledged(None, (0, 0));
        check(&mut checker, 0, 1, 9, 8);
        assert_eq!(checker.position(), None, "no epoch");
        checker.on_epoch(Some(2));
        assert_eq!(checker.position(), Some((2, 9, 9)));
    }

    #[test]
    fn the_first_event_of_a_channel_follows_the_acknowledgement() {
        let mut checker = Checker::default();
        let fine = Verdict::default();
        checker.on_acknowledged(Some(0), (100, 100));
        assert_eq!(check(&mut checker, 0, 1, 101, 90), fine);
        assert_eq!(check(&mut checker, 1, 2, 102, 0), fine, "the channel's first at all");
        assert_eq!(check(&mut checker, 2, 3, 103, 100), fine, "prev was the newest of all");
        assert!(check(&mut checker, 3, 4, 100, 90).is_disordered, "before the subscription");
        assert_eq!(check(&mut checker, 4, 5, 110, 105).gaps, 1, "105 was due");
        assert_eq!(check(&mut checker, 5, 7, 120, 115).gaps, 1, "by seq, counted once");
        checker.on_resync(Some(0));
        assert_eq!(check(&mut checker, 0, 8, 3, 0), fine, "another stream");
    }
}
