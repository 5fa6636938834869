//! The tasks of one executor, all on its own thread.
//!
//! One does the shard's work, be it from the source or from sockets; one has the clock; the one
//! that was spawned obeys the control thread; a drain has one of its own while it lasts. Each has
//! the [`Worker`] do a bounded piece of work and then gives way.
//!
//! **Where the shard sleeps.** A wake of glommio's executor costs 22 µs of CPU, most of it because
//! each of its three rings is entered, some twice. So when there is nothing to do, the working task
//! first dozes in the shard's own ring, which is one system call and wakes for sockets and for the
//! feed ([`super::doorbell`]). Only when nothing has come for [`DOZE`] it parks in glommio. While
//! it dozes no other task runs: timers may come late by [`DOZE`], and so they may under load, for
//! the other tasks have their turn as often. A command of the control thread ends a doze.
//!
//! Bounds: [`FEED_BATCH`] items are taken from the queue at a time; the other tasks have their turn
//! every [`DOZE`]; accepting waits [`ACCEPT_PAUSE`] when descriptors run out.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use glommio::spawn_local;
use socket2::Socket;

use super::doorbell::{Doorbell, Sleep};
use super::ring::Signal;
use super::sockets::Sockets;
use super::worker::Worker;
use crate::clock::Clock;
use crate::feed::FeedReceiver;
use crate::shard::{DRAIN_STEP_MS, Shard, ShardSettings, Stats};
use crate::shard_command::{CommandReceiver, ShardCommand};

/// Items taken from the feed at a time.
const FEED_BATCH: usize = 64;

/// How long the working task dozes before it parks, and works before the other tasks have their
/// turn: 1 % of the resolution of the clock, and at 15 µs a turn costs 0.2 % of a core.
const DOZE: Duration = Duration::from_millis(10);

/// The same while the shard drains: its steps are timed more closely.
const DOZE_IN_DRAIN: Duration = Duration::from_millis(1);

/// How long accepting waits when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a shard that drains looks who is to leave.
const DRAIN_STEP: Duration = Duration::from_millis(DRAIN_STEP_MS);

/// A timer that is due as soon as the executor looks at its timers; less could be due already.
const TURN: Duration = Duration::from_micros(1);

/// What a worker is made from.
#[derive(Debug)]
pub(crate) struct WorkerSettings {
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
pub(crate) async fn run(settings: WorkerSettings) -> io::Result<Stats> {
    let WorkerSettings { shard, listener, feed, mut commands, sockets_max, clock } = settings;
    let number = shard.shard;
    let (sockets, signal) = Sockets::new(listener, Arc::clone(&shard.census), sockets_max)?;
    let worker = Rc::new(Worker::new(Shard::new(shard, clock.now()), sockets, clock));
    let working = spawn_local(work(Rc::clone(&worker), signal, feed));
    let ticking = spawn_local(tick(Rc::clone(&worker)));
    obey(&worker, &mut commands).await;
    worker.shut_down().await;
    ticking.cancel().await;
    working.cancel().await;
    let stats = worker.shard.borrow().stats();
    tracing::info!(shard = number, ?stats, "shard ended");
    Ok(stats)
}

/// Does what other threads ask for, until the shard is to end.
async fn obey(worker: &Rc<Worker>, commands: &mut CommandReceiver) {
    let mut draining = None;
    // The queue closes only if every thread that could ask is gone, which ends the shard as well.
    while let Some(command) = next_command(worker, commands).await {
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
        worker.hand_over();
    }
    if let Some(draining) = draining {
        draining.cancel().await;
    }
}

/// Waits for a command, for which the working task gives way.
async fn next_command(worker: &Rc<Worker>, commands: &mut CommandReceiver) -> Option<ShardCommand> {
    let doorbell = Arc::clone(worker.sockets.borrow().doorbell());
    poll_fn(|cx| {
        let waker = doorbell.waker_of_other(cx.waker());
        commands.poll_recv(&mut Context::from_waker(&waker))
    })
    .await
}

/// Listens no more and has the clients leave one after the other.
async fn drain(worker: Rc<Worker>, window: Duration) {
    worker.begin_drain(window);
    loop {
        let has_more = worker.drain();
        worker.hand_over();
        if has_more {
            turn().await;
        } else {
            glommio::timer::sleep(DRAIN_STEP).await;
        }
    }
}

/// Holds deadlines and budgets against the clock.
async fn tick(worker: Rc<Worker>) {
    loop {
        glommio::timer::sleep(worker.until_tick()).await;
        worker.tick();
        worker.hand_over();
    }
}

/// Accepts again when descriptors may have been closed.
async fn accept_again(worker: Rc<Worker>) {
    glommio::timer::sleep(ACCEPT_PAUSE).await;
    worker.accept_again();
    worker.hand_over();
}

/// Lets the executor look at its rings and timers before the caller goes on.
///
/// The executor does that when no task can run. `yield_if_needed` would do only if it preempted
/// tasks by time, which it must not: see [`crate::control::machine`].
async fn turn() {
    glommio::timer::sleep(TURN).await;
}

/// Publishes what comes from the source, sends, and sees to the sockets.
///
/// Taking events and sending them alternate in small steps. A connection is sent everything that
/// has come until it has its turn, and goes to the end of the line with what comes then: under
/// load each waits for one round of the others at most, and the longer the round, the more goes
/// into one send.
async fn work(worker: Rc<Worker>, signal: Signal, mut feed: Option<FeedReceiver>) {
    let doorbell = Arc::clone(worker.sockets.borrow().doorbell());
    poll_fn(|cx| {
        doorbell.belongs_to(cx.waker());
        Poll::Ready(())
    })
    .await;
    let bell = Waker::from(Arc::clone(&doorbell));
    let mut batch = VecDeque::with_capacity(FEED_BATCH);
    let mut signalled = pin!(signal.wait());
    let mut turn_ms = worker.now().monotonic_ms();
    loop {
        doorbell.wake_up();
        if let Some(feed) = &feed {
            let room = FEED_BATCH - batch.len();
            feed.take(&mut batch, room);
        }
        let has_more = worker.step(&mut batch);
        if worker.pauses_accepting() {
            spawn_local(accept_again(Rc::clone(&worker))).detach();
        }
        let doze = if worker.is_draining.get() { DOZE_IN_DRAIN } else { DOZE };
        let since_turn_ms = worker.now().monotonic_ms() - turn_ms;
        if doorbell.takes_turn_wish() || since_turn_ms >= doze.as_millis() as u64 {
            turn().await;
            turn_ms = worker.now().monotonic_ms();
        }
        if has_more || has_come(&mut feed, &bell) || worker.doze(doze) {
            continue;
        }
        if has_come(&mut feed, &bell) {
            continue;
        }
        let told = poll_fn(|cx| park(&worker, &doorbell, signalled.as_mut(), cx)).await;
        turn_ms = worker.now().monotonic_ms();
        if let Some(told) = told {
            signalled.set(signal.wait());
            if let Err(error) = told {
                tracing::error!(%error, "cannot wait for sockets, trying again");
                glommio::timer::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether something waits in the feed; if not, the bell rings as soon as something does.
fn has_come(feed: &mut Option<FeedReceiver>, bell: &Waker) -> bool {
    let Some(receiver) = feed else { return false };
    let come = pin!(receiver.ready()).poll(&mut Context::from_waker(bell));
    if come == Poll::Ready(false) {
        // The source is gone; there will be no more.
        *feed = None;
    }
    come == Poll::Ready(true)
}

/// Sleeps in the executor until the ring's signal or the doorbell wakes the task; with what the
/// signal said, if it was the signal.
fn park(
    worker: &Worker,
    doorbell: &Doorbell,
    signalled: Pin<&mut impl Future<Output = io::Result<()>>>,
    cx: &mut Context<'_>,
) -> Poll<Option<io::Result<()>>> {
    // The signal is awaited first: what comes after the ring was found quiet is told by it.
    if let Poll::Ready(told) = signalled.poll(cx) {
        return Poll::Ready(Some(told));
    }
    if worker.sockets.borrow_mut().may_park() && doorbell.fall_asleep(Sleep::Park) {
        return Poll::Pending;
    }
    Poll::Ready(None)
}
