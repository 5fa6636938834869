//! Themes: what random operations meet too seldom. A history may have one of them in its middle.
//!
//! Bounds: [`THEMES`] of them, each of some 30 operations at most.

use rand::Rng as _;
use rand::rngs::SmallRng;

use super::operation::Op;
use super::operation::Op::{
    Age, Connect, Cut, Delete, Disconnect, Heartbeat, Look, LoseTail, Newest, Pass, Publish, Purge,
    Recreate, Restore, Run, Save, Send, Start, Step, Stick, Unstick,
};

/// How many there are.
pub(super) const THEMES: u8 = 8;

/// The operations of a theme.
pub(super) fn theme(number: u8, rng: &mut SmallRng) -> Vec<Op> {
    let mut theme = Theme { ops: Vec::new(), rng };
    match number {
        0 => theme.overrun(),
        1 => theme.resume_after_loss(),
        2 => theme.position_over_restore(),
        3 => theme.newest_over_change(),
        4 => theme.loading(),
        5 => theme.fresh_without_end(),
        6 => theme.back_while_opening(),
        _ => theme.untold(),
    }
    theme.ops
}

struct Theme<'a> {
    ops: Vec<Op>,
    rng: &'a mut SmallRng,
}

impl Theme<'_> {
    fn upto(&mut self, max: u8) -> u8 {
        self.rng.random_range(0..max)
    }

    /// So many of an operation, made with a number each.
    fn some(&mut self, count: std::ops::RangeInclusive<u8>, numbers: u8, op: impl Fn(u8) -> Op) {
        for _ in 0..self.rng.random_range(count) {
            let number = self.upto(numbers);
            self.ops.push(op(number));
        }
    }

    fn maybe(&mut self, op: Op) {
        if self.rng.random_bool(0.5) {
            self.ops.push(op);
        }
    }

    fn connect(&mut self, client: u8, instance: u8) {
        let (pattern, snapshot) = (self.upto(6), self.upto(2) == 0);
        self.ops.push(Connect(client, instance, pattern, snapshot));
    }

    /// Messages that are published and removed.
    fn lose(&mut self) {
        self.some(1..=2, 4, Publish);
        match self.upto(3) {
            0 => self.ops.push(Age(3)),
            _ => self.some(1..=2, 2, Delete),
        }
    }

    /// A shard that takes nothing is given up, and goes on; newest messages are read again.
    fn overrun(&mut self) {
        self.ops.push(Stick(0));
        for _ in 0..2 {
            self.some(5..=7, 4, Publish);
            self.ops.push(Run(0));
        }
        self.ops.push(Unstick(0));
        self.maybe(Step(0));
        self.some(0..=1, 1, Newest);
        self.some(0..=2, 4, Publish);
        self.some(0..=6, 1, Newest);
        self.connect(1, 0);
    }

    /// A client comes back right after a loss.
    fn resume_after_loss(&mut self) {
        self.ops.push(Disconnect(0));
        self.lose();
        self.some(0..=1, 4, Publish);
        self.ops.push(Run(0));
        self.some(0..=6, 1, Look);
        self.connect(0, 0);
    }

    /// A client keeps its position over a restore that gives it out again.
    fn position_over_restore(&mut self) {
        self.ops.push(Save);
        self.some(1..=3, 3, Publish);
        self.ops.extend([Run(0), Heartbeat(0), Disconnect(0), Restore]);
        self.some(1..=3, 4, Publish);
        self.maybe(Purge);
        self.ops.extend([Start(1), Run(1)]);
        self.some(0..=5, 4, Publish);
        self.maybe(Run(1));
        self.connect(0, 1);
    }

    /// Newest messages are being read while the stream changes.
    fn newest_over_change(&mut self) {
        self.lose();
        self.some(1..=2, 3, Publish);
        self.ops.push(Run(0));
        self.some(1..=3, 1, Newest);
        let change = [Recreate, LoseTail(1), LoseTail(2), Delete(0)];
        let change = change[usize::from(self.upto(4))];
        self.ops.push(change);
        self.some(1..=3, 3, Publish);
        self.ops.push(Run(0));
        self.maybe(Run(0));
        self.some(1..=4, 1, Newest);
        self.connect(1, 0);
    }

    /// A client comes while what the stream retains is being read.
    fn loading(&mut self) {
        self.some(3..=6, 3, Publish);
        self.ops.push(Start(1));
        self.some(2..=4, 1, |_| Step(1));
        self.some(1..=2, 3, |count| Send(1, count + 1));
        self.some(0..=3, 1, |_| Step(1));
        self.connect(1, 1);
    }

    /// An instance starts when the last messages are gone; a client of another one comes to it.
    fn fresh_without_end(&mut self) {
        self.some(1..=2, 3, Publish);
        self.ops.extend([Run(0), Heartbeat(0)]);
        self.maybe(Disconnect(0));
        self.some(1..=2, 3, Publish);
        self.maybe(Run(0));
        self.ops.push(Disconnect(0));
        self.some(1..=2, 1, Delete);
        self.ops.extend([Start(1), Run(1)]);
        self.some(0..=3, 1, |_| Look(1));
        self.connect(0, 1);
    }

    /// The stream goes back to an older copy between a contact and the consumer.
    fn back_while_opening(&mut self) {
        self.ops.push(Save);
        self.some(0..=2, 3, Publish);
        self.ops.extend([Run(0), Cut(0)]);
        self.some(1..=3, 1, Step);
        let change = [Restore, Restore, LoseTail(1), LoseTail(2)];
        let change = change[usize::from(self.upto(4))];
        self.ops.push(change);
        self.some(1..=3, 4, Publish);
        self.some(0..=2, 2, Delete);
        self.some(0..=2, 1, Step);
        self.ops.push(Run(0));
    }

    /// Two losses: clients are not told of the second one for a while.
    fn untold(&mut self) {
        for _ in 0..2 {
            self.lose();
            self.some(1..=2, 3, Publish);
            self.ops.push(Run(0));
        }
        self.connect(1, 0);
        self.some(0..=2, 3, Publish);
        self.ops.push(Run(0));
        self.some(0..=1, 2, Heartbeat);
        self.some(0..=1, 2, Disconnect);
        self.maybe(Pass(12));
        self.connect(1, 0);
    }
}
