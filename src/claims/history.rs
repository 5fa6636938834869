//! Histories: how one is made up from a seed, and how a failing one is cut down.

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::operation::Op;
use super::themes::{THEMES, theme};

/// Instances, and clients, of a history.
pub(super) const PLACES: u8 = 3;

/// Operations of a history.
const LENGTH_MAX: usize = 45;

/// What a history is made of.
#[derive(Debug, Clone)]
pub(super) struct History {
    pub is_durable: bool,
    pub log_messages: usize,
    pub ops: Vec<Op>,
}

const KINDS: usize = 30;

/// How often each kind comes, in the order of [`Op`].
const WEIGHTS: [u32; KINDS] = [
    60, 3, 3, 6, 6, 3, 3, 3, 3, 4, 5, 5, 3, 5, 3, 6, 40, 15, 3, 30, 8, 25, 15, 10, 25, 10, 20, 6,
    6, 6,
];

impl History {
    /// The history of a seed, half of them with a theme in it. Some kinds of operations are left out
    /// of each, so that the others meet more often.
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut weights = WEIGHTS;
        for weight in &mut weights[1..] {
            if rng.random_bool(0.35) {
                *weight = 0;
            }
        }
        let total: u32 = weights.iter().sum();
        let mut ops = Vec::new();
        if rng.random_bool(0.7) {
            ops.extend([Op::Start(0), Op::Run(0), Op::Connect(0, 0, 4, false)]);
        }
        for _ in 0..rng.random_range(8..LENGTH_MAX) {
            let mut at = rng.random_range(0..total);
            let kind = weights.iter().position(|weight| {
                let is_it = at < *weight;
                at = at.wrapping_sub(*weight);
                is_it
            });
            let op = op(kind.unwrap_or_default(), &mut rng);
            ops.push(op);
        }
        if rng.random_bool(0.5) {
            let theme = theme(rng.random_range(0..THEMES), &mut rng);
            let at = rng.random_range(0..=ops.len());
            ops.splice(at..at, theme);
        }
        let log_messages = if rng.random_bool(0.3) { 3 } else { 1_000 };
        Self { is_durable: rng.random_bool(0.2), log_messages, ops }
    }

    /// The shortest that still fails of those that are made by leaving operations out.
    pub(super) fn shrink(mut self, fails: impl Fn(&Self) -> bool) -> Self {
        for width in [16, 8, 4, 2, 1, 1] {
            let mut at = 0;
            while at < self.ops.len() {
                let mut shorter = self.clone();
                shorter.ops.drain(at..(at + width).min(self.ops.len()));
                if fails(&shorter) {
                    self = shorter;
                } else {
                    at += 1;
                }
            }
        }
        self
    }
}

fn op(kind: usize, rng: &mut SmallRng) -> Op {
    let mut upto = |max: u8| rng.random_range(0..max);
    match kind {
        0 => Op::Publish(upto(4)),
        1 => Op::PublishUnreadable(upto(4)),
        2 => Op::Rollup(upto(3)),
        3 => Op::Age(1 + upto(3)),
        4 => Op::Delete(upto(4)),
        5 => Op::Purge,
        6 => Op::PurgeChannel(upto(4), upto(2)),
        7 => Op::KeepPerChannel(upto(3)),
        8 => Op::Keep(upto(4)),
        9 => Op::Save,
        10 => Op::Restore,
        11 => Op::LoseTail(1 + upto(3)),
        12 => Op::Recreate,
        13 => Op::Start(upto(PLACES)),
        14 => Op::Stick(upto(PLACES)),
        15 => Op::Unstick(upto(PLACES)),
        16 => Op::Step(upto(PLACES)),
        17 => Op::Send(upto(PLACES), 1 + upto(4)),
        18 => Op::SendElsewhere(upto(PLACES)),
        19 => Op::Run(upto(PLACES)),
        20 => Op::Cut(upto(PLACES)),
        21 => Op::Look(upto(PLACES)),
        22 => Op::Newest(upto(PLACES)),
        23 => Op::Pass([1, 5, 6, 12][usize::from(upto(4))]),
        24 => Op::Connect(upto(PLACES), upto(PLACES), upto(6), upto(2) == 0),
        25 => Op::Disconnect(upto(PLACES)),
        26 => Op::Heartbeat(upto(PLACES)),
        27 => Op::Subscribe(upto(PLACES), upto(6), upto(2) == 0),
        28 => Op::Reload(upto(PLACES)),
        _ => Op::Settle,
    }
}
