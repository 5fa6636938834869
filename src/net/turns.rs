//! The tasks of one executor, all on its own thread.
//!
//! One waits for sockets, one for the feed, one for the clock, and the one that was spawned obeys
//! the control thread; a drain and what is sent without an event have a task of their own while
//! they last. Each has the [`Worker`] do a bounded piece of work and then gives way; while events
//! are sent, which can take long, the sockets are seen to in between.
//!
//! Bounds: [`FEED_BATCH`] items are taken from the queue at a time, [`STEPS_PER_TURN`] steps done
//! before the executor has its turn; accepting waits [`ACCEPT_PAUSE`] when descriptors run out.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use glommio::spawn_local;
use socket2::Socket;

use super::ring::Signal;
use super::sockets::Sockets;
use super::worker::Worker;
use crate::clock::Clock;
use crate::feed::FeedReceiver;
use crate::shard::{DRAIN_STEP_MS, Shard, ShardSettings, Stats};
use crate::shard_command::{CommandReceiver, ShardCommand};

/// Items taken from the feed at a time.
const FEED_BATCH: usize = 64;

/// Steps of publishing and sending before the executor has its turn, with the clock and what the
/// control thread asks: 10 to 50 ms under load.
const STEPS_PER_TURN: u32 = 16;

/// How long accepting waits when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often deadlines are looked at: the resolution of the shard's timer wheel.
const TICK: Duration = Duration::from_secs(1);

/// How often a shard that drains looks who is to leave.
const DRAIN_STEP: Duration = Duration::from_millis(DRAIN_STEP_MS);

/// A timer that is due as soon as the executor looks at its timers; less could be due already.
const TURN: Duration = Duration::from_micros(1);

/// How often connections that are held back are looked at.
const BATCH_LOOK: Duration = Duration::from_millis(10);

/// What a worker is made from.
#[derive(Debug)]
pub struct WorkerSettings {
    /// The shard's rules.
    pub shard: ShardSettings,
    /// Its own listening socket.
    pub listener: Socket,
    /// Its end of the feed; `None` if there is no source (echo).
    pub feed: Option<FeedReceiver>,
    /// What other threads ask of it.
    pub commands: CommandReceiver,
    /// Sockets of the instance, in any state; what comes beyond is closed at once.
    pub sockets_max: u64,
    /// The clock of the process.
    pub clock: Clock,
}

/// Runs a shard inside a glommio executor until it is told to shut down; returns what it did.
///
/// # Errors
/// The kernel refuses what the sockets need.
pub async fn run(settings: WorkerSettings) -> io::Result<Stats> {
    let WorkerSettings { shard, listener, feed, mut commands, sockets_max, clock } = settings;
    let number = shard.shard;
    let (sockets, signal) = Sockets::new(listener, Arc::clone(&shard.census), sockets_max)?;
    let worker = Rc::new(Worker::new(Shard::new(shard, clock.now()), sockets, clock));
    let serving = spawn_local(serve(Rc::clone(&worker), signal));
    let feeding = feed.map(|feed| spawn_local(consume(Rc::clone(&worker), feed)));
    let ticking = spawn_local(tick(Rc::clone(&worker)));
    obey(&worker, &mut commands).await;
    worker.shut_down().await;
    ticking.cancel().await;
    serving.cancel().await;
    if let Some(feeding) = feeding {
        feeding.cancel().await;
    }
    let stats = worker.shard.borrow().stats();
    tracing::info!(shard = number, ?stats, "shard ended");
    Ok(stats)
}

/// Does what other threads ask for, until the shard is to end.
async fn obey(worker: &Rc<Worker>, commands: &mut CommandReceiver) {
    let mut draining = None;
    // The queue closes only if every thread that could ask is gone, which ends the shard as well.
    while let Some(command) = commands.recv().await {
        match command {
            ShardCommand::Retire(reply) => {
                worker.shard.borrow_mut().retire();
                reply.send(());
            }
            ShardCommand::Drain(window) => {
                draining = Some(spawn_local(drain(Rc::clone(worker), window)));
            }
            ShardCommand::ShutDown => break,
        }
    }
    if let Some(draining) = draining {
        draining.cancel().await;
    }
}

/// Listens no more and has the clients leave one after the other.
async fn drain(worker: Rc<Worker>, window: Duration) {
    worker.begin_drain(window);
    loop {
        let has_more = worker.drain();
        send_on(&worker);
        if has_more {
            turn().await;
        } else {
            glommio::timer::sleep(DRAIN_STEP).await;
        }
    }
}

/// Lets the executor look at its rings and timers before the caller goes on.
///
/// The executor does that when no task can run. `yield_if_needed` would do only if it preempted
/// tasks by time, which it must not: see [`crate::control::machine`].
async fn turn() {
    glommio::timer::sleep(TURN).await;
}

/// Sees to the sockets whenever the ring says that something has happened.
async fn serve(worker: Rc<Worker>, signal: Signal) {
    loop {
        while worker.serve_sockets() {
            turn().await;
        }
        send_on(&worker);
        if worker.is_accept_failing.replace(false) {
            glommio::timer::sleep(ACCEPT_PAUSE).await;
            worker.sockets.borrow_mut().accept_later();
            continue;
        }
        if let Err(error) = signal.wait().await {
            tracing::error!(%error, "cannot wait for sockets, trying again");
            glommio::timer::sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// Publishes what comes from the source.
///
/// Taking events and sending them alternate in small steps. A connection is sent everything that
/// has come until it has its turn, and goes to the end of the line with what comes then: under
/// load each waits for one round of the others at most, and the longer the round, the more goes
/// into one send.
async fn consume(worker: Rc<Worker>, feed: FeedReceiver) {
    let mut batch = VecDeque::with_capacity(FEED_BATCH);
    while feed.ready().await {
        let mut steps = 0;
        loop {
            let room = FEED_BATCH - batch.len();
            feed.drain(&mut batch, room);
            worker.publish(&mut batch);
            send_batches(&worker);
            let has_more = worker.step();
            worker.serve_sockets();
            if batch.is_empty() && !has_more && feed.is_empty() {
                send_on(&worker);
                break;
            }
            steps += 1;
            if steps % STEPS_PER_TURN == 0 {
                turn().await;
            }
        }
    }
}

/// Has the shard do what it has marked, also when no event comes.
fn send_on(worker: &Rc<Worker>) {
    if !worker.shard.borrow().has_work() || worker.is_sending.replace(true) {
        return;
    }
    let worker = Rc::clone(worker);
    spawn_local(async move {
        while worker.step() {
            worker.serve_sockets();
            turn().await;
        }
        worker.is_sending.set(false);
    })
    .detach();
}

/// Wakes up when connections that are held back become due.
fn send_batches(worker: &Rc<Worker>) {
    if worker.shard.borrow().next_due_ms().is_none() || worker.is_batching.replace(true) {
        return;
    }
    let worker = Rc::clone(worker);
    spawn_local(async move {
        loop {
            let Some(due_ms) = worker.shard.borrow().next_due_ms() else { break };
            let wait_ms = due_ms.saturating_sub(worker.now().monotonic_ms());
            // Another connection may have become due earlier.
            let wait = Duration::from_millis(wait_ms).min(BATCH_LOOK);
            glommio::timer::sleep(wait.max(TURN)).await;
            worker.shard.borrow_mut().release_held(worker.now());
            send_on(&worker);
        }
        worker.is_batching.set(false);
    })
    .detach();
}

async fn tick(worker: Rc<Worker>) {
    loop {
        glommio::timer::sleep(TICK).await;
        worker.tick();
        send_on(&worker);
    }
}
