//! A model checker of the claims: histories of a simulated stream, real followers, queues and
//! shards, and clients that follow the rules.
//!
//! ```text
//! operation   what may happen
//! history     operations made up from a seed, and cut down when they fail
//! themes      what random operations meet too seldom
//! world       carries it out
//! stream      a JetStream stream and its consumers
//! driver      drives a follower as the JetStream source does
//! instance    a source, the real queue and a real shard
//! client      what a client keeps, and what it was promised
//! invariants  what no client may ever see
//! cases       the shortest histories that failed once
//! ```
//!
//! `ODIN_MODEL_HISTORIES` says how many histories are tried (20,000), `ODIN_MODEL_SEED` the first
//! seed. A failure names its seed and the shortest history that fails in the same way. What each rule
//! of the code is needed for shows `scripts/claims_mutants`.

#[rustfmt::skip]
mod cases;
mod client;
mod driver;
mod history;
mod instance;
mod invariants;
mod operation;
mod stream;
mod themes;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use self::history::History;
use self::world::World;

/// Histories that are tried if nothing else is said.
const HISTORIES: u64 = 20_000;

/// Carries out a history; what was broken, and after how many operations.
fn failure(history: &History) -> Option<(usize, String)> {
    let result = catch_unwind(AssertUnwindSafe(|| World::run(history)));
    match result {
        Ok(result) => result.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Some((history.ops.len(), format!("panic: {}", text.unwrap_or("without words"))))
        }
    }
}

/// The kind of a failure: its first word.
fn kind(broken: &str) -> &str {
    broken.split([' ', ':', ',']).next().unwrap_or_default()
}

/// The shortest history that fails as this one does.
fn shortest(seed: u64) -> Option<String> {
    let mut history = History::new(seed);
    let (at, broken) = failure(&history)?;
    history.ops.truncate(at);
    let is_same = |other: &History| failure(other).is_some_and(|it| kind(&it.1) == kind(&broken));
    let history = history.shrink(is_same);
    let broken = failure(&history).map_or(broken, |it| it.1);
    Some(format!("seed {seed}: {broken}\n{history:?}"))
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn no_client_is_told_what_is_not_so() {
    let histories = number("ODIN_MODEL_HISTORIES", HISTORIES);
    let first = number("ODIN_MODEL_SEED", 0);
    let next = AtomicU64::new(first);
    let is_failed = AtomicBool::new(false);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let search = || {
        while !is_failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + histories {
                break;
            }
            if failure(&History::new(seed)).is_some() {
                is_failed.store(true, Ordering::Relaxed);
                return Some(seed);
            }
        }
        None
    };
    let failed: Vec<u64> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(search)).collect();
        handles.into_iter().filter_map(|it| it.join().expect("it catches panics")).collect()
    });
    if let Some(text) = failed.into_iter().min().and_then(shortest) {
        panic!("a claim is false, {text}");
    }
}
