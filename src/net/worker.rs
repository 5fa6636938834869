//! One executor: it accepts, feeds, ticks and obeys, all on its own thread.
//!
//! Bounds: [`FEED_BATCH`] items are taken from the queue at a time; the accept loop waits
//! [`ACCEPT_PAUSE`] when descriptors run out; `sockets_max` sockets at once.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::{FromRawFd as _, IntoRawFd as _};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use glommio::net::TcpListener;
use glommio::spawn_local;
use socket2::Socket;
use tokio::sync::mpsc::Receiver;

use super::socket::{Sockets, serve};
use crate::feed::{FEED_CAPACITY, Feed, FeedReceiver};
use crate::shard::{Census, ConnId, Now, Shard, ShardSettings, Stats};

/// Items taken from the feed at a time.
const FEED_BATCH: usize = 256;

/// Bytes of the buffer that all reads of a shard go through.
const SCRATCH_BYTES: usize = 65_536;

/// Buffers of a shard that do not depend on its load: the scratch and the queue from the source.
const FIXED_BYTES: usize = SCRATCH_BYTES + FEED_CAPACITY * (size_of::<Feed>() + size_of::<usize>());

/// How long the accept loop waits when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often deadlines are looked at: the resolution of the shard's timer wheel.
const TICK: Duration = Duration::from_secs(1);

/// Connections accepted in a row before the others have their turn: about 1 ms of work.
const ACCEPTS_PER_TURN: u64 = 32;

/// A timer that is due as soon as the executor looks at its timers; less could be due already.
const TURN: Duration = Duration::from_micros(1);

/// How long connections have to answer the closing handshake at shutdown.
const SHUT_DOWN_GRACE: Duration = Duration::from_secs(3);

/// How often a shard that shuts down looks whether its connections have ended.
const SHUT_DOWN_POLL: Duration = Duration::from_millis(20);

/// What the control thread asks of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardCommand {
    /// Stop listening, close every connection with 1001, end.
    ShutDown,
}

/// What a worker is made from.
#[derive(Debug)]
pub struct WorkerSettings {
    /// The shard's rules.
    pub shard: ShardSettings,
    /// Its own listening socket.
    pub listener: Socket,
    /// Its end of the feed; `None` if there is no source (echo).
    pub feed: Option<FeedReceiver>,
    /// Its end of the control thread's queue.
    pub commands: Receiver<ShardCommand>,
    /// Sockets of the instance, in any state; what comes beyond is closed at once.
    pub sockets_max: u64,
}

/// What the tasks of an executor share.
#[derive(Debug)]
pub(super) struct Worker {
    pub shard: RefCell<Shard>,
    pub sockets: RefCell<Sockets>,
    pub scratch: RefCell<Vec<u8>>,
    started: Instant,
    open_sockets: Cell<usize>,
}

impl Worker {
    pub(super) fn now(&self) -> Now {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            monotonic_ms: self.started.elapsed().as_millis() as u64,
            unix_ms: since_epoch.as_millis() as u64,
        }
    }

    fn publish(&self, batch: &mut VecDeque<Feed>) {
        let mut sockets = self.sockets.borrow_mut();
        self.shard.borrow_mut().publish(batch, self.now(), &mut *sockets);
    }

    pub(super) fn accepted(&self) -> ConnId {
        self.shard.borrow_mut().accept(self.now())
    }
}

/// Runs a shard inside a glommio executor until it is told to shut down; returns what it did.
pub async fn run(settings: WorkerSettings) -> Stats {
    let WorkerSettings { shard, listener, feed, mut commands, sockets_max } = settings;
    let number = shard.shard;
    let census = Arc::clone(&shard.census);
    let worker = Rc::new(Worker {
        shard: RefCell::new(Shard::new(shard, Now::default())),
        sockets: RefCell::default(),
        scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
        started: Instant::now(),
        open_sockets: Cell::new(0),
    });
    let listener = into_listener(listener);
    let accepting = spawn_local(accept(Rc::clone(&worker), listener, census, sockets_max));
    let feeding = feed.map(|feed| spawn_local(consume(Rc::clone(&worker), feed)));
    let ticking = spawn_local(tick(Rc::clone(&worker)));
    // The queue closes only if the control thread is gone, which ends the shard all the same.
    let _command = commands.recv().await;
    accepting.cancel().await;
    worker.shard.borrow_mut().shut_down(worker.now(), &mut *worker.sockets.borrow_mut());
    let deadline = Instant::now() + SHUT_DOWN_GRACE;
    while worker.open_sockets.get() > 0 && Instant::now() < deadline {
        glommio::timer::sleep(SHUT_DOWN_POLL).await;
    }
    worker.shard.borrow_mut().abort_all(&mut *worker.sockets.borrow_mut());
    while worker.open_sockets.get() > 0 {
        turn().await;
    }
    ticking.cancel().await;
    if let Some(feeding) = feeding {
        feeding.cancel().await;
    }
    let stats = worker.shard.borrow().stats();
    tracing::info!(shard = number, ?stats, "shard ended");
    stats
}

/// Lets the executor look at its sockets and timers before the caller goes on.
///
/// The executor does that when no task can run. `yield_if_needed` would do only if it preempted
/// tasks by time, which it must not: see [`crate::control::machine`].
pub(super) async fn turn() {
    glommio::timer::sleep(TURN).await;
}

#[expect(unsafe_code, reason = "glommio takes a listener with options of ours only as a number")]
fn into_listener(socket: Socket) -> TcpListener {
    // SAFETY: the descriptor is an open, bound and listening TCP socket that nothing else owns:
    // `into_raw_fd` has just given it up.
    unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) }
}

async fn accept(worker: Rc<Worker>, listener: TcpListener, census: Arc<Census>, sockets_max: u64) {
    let mut is_failing = false;
    let mut accepted = 0_u64;
    loop {
        match listener.accept().await {
            Ok(stream) => {
                is_failing = false;
                if !census.take_socket(sockets_max) {
                    drop(stream);
                    turn().await;
                    continue;
                }
                worker.open_sockets.set(worker.open_sockets.get() + 1);
                let (worker, census) = (Rc::clone(&worker), Arc::clone(&census));
                spawn_local(async move {
                    serve(Rc::clone(&worker), stream).await;
                    census.release_socket();
                    worker.open_sockets.set(worker.open_sockets.get() - 1);
                })
                .detach();
                accepted += 1;
                if accepted.is_multiple_of(ACCEPTS_PER_TURN) {
                    turn().await;
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "cannot accept connections, trying again");
                }
                glommio::timer::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn consume(worker: Rc<Worker>, feed: FeedReceiver) {
    let mut batch = VecDeque::with_capacity(FEED_BATCH);
    while feed.ready().await {
        feed.drain(&mut batch, FEED_BATCH);
        while !batch.is_empty() {
            worker.publish(&mut batch);
            if !batch.is_empty() || !feed.is_empty() {
                turn().await;
            }
        }
    }
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
        let io_bytes = sockets.memory_bytes(worker.open_sockets.get());
        shard.note_io(io_bytes, FIXED_BYTES, kernel_send_bytes);
        shard.tick(worker.now(), &mut *sockets);
    }
}
