//! One executor: it accepts, reads, feeds, ticks and obeys, all on its own thread.
//!
//! Four tasks share a [`Worker`]: one waits for sockets, one for the feed, one for the clock, and
//! the one that was spawned for the control thread. Each does a bounded piece of work and then
//! gives way; while events are sent, which can take long, the sockets are seen to in between.
//!
//! Bounds: [`FEED_BATCH`] items are taken from the queue at a time, [`SENDS_PER_STEP`] connections
//! sent to, [`EVENTS_PER_TURN`] sockets seen to; accepting waits [`ACCEPT_PAUSE`] when descriptors
//! run out; `sockets_max` sockets at once.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use glommio::spawn_local;
use socket2::Socket;

use super::ring::Signal;
use super::sockets::{Event, Sockets};
use crate::feed::{FEED_CAPACITY, Feed, FeedReceiver};
use crate::shard::{ConnId, DRAIN_STEP_MS, Now, Shard, ShardSettings, Stats};
use crate::shard_command::{CommandReceiver, ShardCommand};

/// Items taken from the feed at a time.
const FEED_BATCH: usize = 64;

/// Connections that are sent to before the feed and the sockets are looked at: about 0.5 ms.
const SENDS_PER_STEP: usize = 64;

/// Steps of publishing and sending before the executor has its turn, with the clock and what the
/// control thread asks: 10 to 50 ms under load.
const STEPS_PER_TURN: u32 = 16;

/// Sockets that are seen to before the executor has its turn.
const EVENTS_PER_TURN: usize = 256;

/// Connections accepted in a row before the others have their turn: about 1 ms of work.
const ACCEPTS_PER_TURN: usize = 32;

/// Reads of one connection before the others have their turn.
const READS_PER_TURN: usize = 4;

/// Bytes of the buffer that all reads of a shard go through.
const SCRATCH_BYTES: usize = 65_536;

/// Buffers of a shard that do not depend on its load: the scratch and the queue from the source.
const FIXED_BYTES: usize = SCRATCH_BYTES + FEED_CAPACITY * (size_of::<Feed>() + size_of::<usize>());

/// How long accepting waits when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often deadlines are looked at: the resolution of the shard's timer wheel.
const TICK: Duration = Duration::from_secs(1);

/// How often a shard that drains looks who is to leave.
const DRAIN_STEP: Duration = Duration::from_millis(DRAIN_STEP_MS);

/// A timer that is due as soon as the executor looks at its timers; less could be due already.
const TURN: Duration = Duration::from_micros(1);

/// How long connections have to answer the closing handshake at shutdown.
const SHUT_DOWN_GRACE: Duration = Duration::from_secs(3);

/// How often connections that are held back are looked at.
const BATCH_LOOK: Duration = Duration::from_millis(10);

/// How often a shard that shuts down looks whether its connections have ended.
const SHUT_DOWN_POLL: Duration = Duration::from_millis(20);

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
}

/// What the tasks of an executor share.
#[derive(Debug)]
struct Worker {
    shard: RefCell<Shard>,
    sockets: RefCell<Sockets>,
    scratch: RefCell<Vec<u8>>,
    started: Instant,
    is_accept_failing: Cell<bool>,
    /// Whether a task waits for the connections that are held back.
    is_batching: Cell<bool>,
    /// Whether a task sends what no event caused.
    is_sending: Cell<bool>,
}

/// Runs a shard inside a glommio executor until it is told to shut down; returns what it did.
///
/// # Errors
/// The kernel refuses what the sockets need.
pub async fn run(settings: WorkerSettings) -> io::Result<Stats> {
    let WorkerSettings { shard, listener, feed, mut commands, sockets_max } = settings;
    let number = shard.shard;
    let (sockets, signal) = Sockets::new(listener, Arc::clone(&shard.census), sockets_max)?;
    let worker = Rc::new(Worker {
        shard: RefCell::new(Shard::new(shard, Now::default())),
        sockets: RefCell::new(sockets),
        scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
        started: Instant::now(),
        is_accept_failing: Cell::new(false),
        is_batching: Cell::new(false),
        is_sending: Cell::new(false),
    });
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
        if worker.drain() {
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
            let has_more = worker.flush_some();
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

/// Sees to it that clients which came back are sent what they missed, whether events come or not.
fn send_on(worker: &Rc<Worker>) {
    if !worker.shard.borrow().has_touched() || worker.is_sending.replace(true) {
        return;
    }
    let worker = Rc::clone(worker);
    spawn_local(async move {
        while worker.flush_some() {
            worker.serve_sockets();
            turn().await;
        }
        worker.is_sending.set(false);
    })
    .detach();
}

/// Sees to it that connections are sent to that may not be yet.
fn send_batches(worker: &Rc<Worker>) {
    if worker.shard.borrow().next_batch_ms().is_none() || worker.is_batching.replace(true) {
        return;
    }
    let worker = Rc::clone(worker);
    spawn_local(async move {
        loop {
            let Some(due_ms) = worker.shard.borrow().next_batch_ms() else { break };
            let wait_ms = due_ms.saturating_sub(worker.now().monotonic_ms);
            // Another connection may have become due earlier.
            let wait = Duration::from_millis(wait_ms).min(BATCH_LOOK);
            glommio::timer::sleep(wait.max(TURN)).await;
            worker.shard.borrow_mut().release_batches(worker.now());
            send_on(&worker);
        }
        worker.is_batching.set(false);
    })
    .detach();
}

async fn tick(worker: Rc<Worker>) {
    loop {
        glommio::timer::sleep(TICK).await;
        let mut shard = worker.shard.borrow_mut();
        let mut sockets = worker.sockets.borrow_mut();
        let blocked = sockets.blocked();
        let kernel_send_bytes = blocked.iter().map(|(_, bytes)| bytes).sum();
        for (id, kernel_bytes) in blocked {
            shard.check_budget(id, kernel_bytes, worker.now(), &mut *sockets);
        }
        shard.note_io(sockets.memory_bytes(), FIXED_BYTES, kernel_send_bytes);
        shard.tick(worker.now(), &mut *sockets);
        drop((shard, sockets));
        send_on(&worker);
    }
}

impl Worker {
    fn now(&self) -> Now {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            monotonic_ms: self.started.elapsed().as_millis() as u64,
            unix_ms: since_epoch.as_millis() as u64,
        }
    }

    /// Publishes what it can of `batch`.
    fn publish(&self, batch: &mut VecDeque<Feed>) {
        self.shard.borrow_mut().publish(batch, self.now(), &mut *self.sockets.borrow_mut());
    }

    fn flush_some(&self) -> bool {
        let mut shard = self.shard.borrow_mut();
        shard.flush_some(SENDS_PER_STEP, self.now(), &mut *self.sockets.borrow_mut())
    }

    /// Sees to sockets that are ready; whether more are.
    fn serve_sockets(&self) -> bool {
        if let Err(error) = self.sockets.borrow_mut().look() {
            tracing::error!(%error, "cannot look for sockets that are ready");
        }
        let now = self.now();
        for _ in 0..EVENTS_PER_TURN {
            let Some(event) = self.sockets.borrow_mut().next_event() else { return false };
            match event {
                Event::Accept => {
                    if !self.accept(now) {
                        return true;
                    }
                }
                Event::Read(id) => self.read(id, now),
                Event::Write(id) => self.write(id),
            }
        }
        true
    }

    /// Accepts what the kernel has; whether that was all.
    fn accept(&self, now: Now) -> bool {
        let mut sockets = self.sockets.borrow_mut();
        for _ in 0..ACCEPTS_PER_TURN {
            match sockets.accept() {
                Ok(Some((socket, peer))) => {
                    let id = self.shard.borrow_mut().accept(peer, now);
                    sockets.add(id, socket);
                }
                Ok(None) => return true,
                Err(error) => {
                    if !self.is_accept_failing.replace(true) {
                        tracing::warn!(%error, "cannot accept connections, trying again");
                    }
                    return true;
                }
            }
        }
        sockets.accept_later();
        false
    }

    fn read(&self, id: ConnId, now: Now) {
        let mut shard = self.shard.borrow_mut();
        let mut sockets = self.sockets.borrow_mut();
        let mut scratch = self.scratch.borrow_mut();
        for _ in 0..READS_PER_TURN {
            if !shard.wants_read(id) {
                return sockets.pause(id);
            }
            match sockets.read(id, &mut scratch) {
                Ok(count) if count > 0 => {
                    shard.receive(id, &mut scratch[..count], now, &mut *sockets);
                    // What comes later is told anew, but an end that came before is not.
                    if count < scratch.len() && !sockets.has_ended(id) {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    shard.lost(id);
                    return sockets.remove(id);
                }
            }
        }
        sockets.read_later(id);
    }

    fn write(&self, id: ConnId) {
        let mut shard = self.shard.borrow_mut();
        let mut sockets = self.sockets.borrow_mut();
        shard.writable(id, &mut *sockets);
        if shard.wants_read(id) {
            sockets.resume(id);
        }
    }

    fn begin_drain(&self, window: Duration) {
        let mut sockets = self.sockets.borrow_mut();
        sockets.stop_listening();
        let window_ms = window.as_millis() as u64;
        self.shard.borrow_mut().begin_drain(window_ms, self.now(), &mut *sockets);
    }

    /// One step of the drain; whether the next is to follow at once.
    fn drain(&self) -> bool {
        self.shard.borrow_mut().drain(self.now(), &mut *self.sockets.borrow_mut())
    }

    /// Listens no more, closes every connection, and waits until they are closed.
    async fn shut_down(&self) {
        self.sockets.borrow_mut().stop_listening();
        self.shard.borrow_mut().shut_down(self.now(), &mut *self.sockets.borrow_mut());
        let deadline = Instant::now() + SHUT_DOWN_GRACE;
        while self.sockets.borrow().open() > 0 && Instant::now() < deadline {
            glommio::timer::sleep(SHUT_DOWN_POLL).await;
        }
        self.shard.borrow_mut().abort_all(&mut *self.sockets.borrow_mut());
    }
}
