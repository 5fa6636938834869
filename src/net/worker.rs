//! What the tasks of an executor share, and the bounded pieces of work that they do: accepting,
//! reading, publishing, sending, ending. It moves bytes between the shard and the sockets; when
//! which piece is done is said in [`super::turns`].
//!
//! Bounds: [`SENDS_PER_STEP`] connections are sent to at a time, [`EVENTS_PER_TURN`] sockets seen
//! to; `sockets_max` sockets at once.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use super::doorbell::Sleep;
use super::sockets::{Event, Sockets};
use crate::clock::Clock;
use crate::feed::{FEED_CAPACITY, Feed};
use crate::shard::{ConnId, Now, Shard, until_tick_ms};

/// Connections that are sent to before the feed and the sockets are looked at: about 0.5 ms.
const SENDS_PER_STEP: usize = 64;

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

/// How long connections have to answer the closing handshake at shutdown.
const SHUT_DOWN_GRACE: Duration = Duration::from_secs(3);

/// How often a shard that shuts down looks whether its connections have ended.
const SHUT_DOWN_POLL: Duration = Duration::from_millis(20);

/// What the tasks of an executor share.
#[derive(Debug)]
pub(super) struct Worker {
    pub shard: RefCell<Shard>,
    pub sockets: RefCell<Sockets>,
    scratch: RefCell<Vec<u8>>,
    clock: Clock,
    accepting: Cell<Accepting>,
    pub is_draining: Cell<bool>,
}

/// Whether connections can be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepting {
    Freely,
    /// The process has no descriptor or memory for one.
    Failing,
    /// The same, and a task will try again.
    Paused,
}

impl Worker {
    pub(super) fn new(shard: Shard, sockets: Sockets, clock: Clock) -> Self {
        Self {
            shard: RefCell::new(shard),
            sockets: RefCell::new(sockets),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
            clock,
            accepting: Cell::new(Accepting::Freely),
            is_draining: Cell::new(false),
        }
    }

    pub(super) fn now(&self) -> Now {
        self.clock.now()
    }

    /// One step of all that there is to do, with what came from the source; whether there is more.
    pub(super) fn step(&self, batch: &mut VecDeque<Feed>) -> bool {
        if !batch.is_empty() {
            self.publish(batch);
        }
        self.release_held();
        let has_more = self.step_shard();
        self.serve_sockets() || has_more || !batch.is_empty() || self.shard.borrow().has_work()
    }

    /// Publishes what it can of `batch`.
    fn publish(&self, batch: &mut VecDeque<Feed>) {
        self.shard.borrow_mut().publish(batch, self.now(), &mut *self.sockets.borrow_mut());
    }

    /// Has the connections sent to that were held back until now.
    fn release_held(&self) {
        let mut shard = self.shard.borrow_mut();
        if shard.next_due_ms().is_some_and(|due_ms| due_ms <= self.now().monotonic_ms()) {
            shard.release_held(self.now());
        }
    }

    /// Does a part of what the shard has marked; whether more is left.
    fn step_shard(&self) -> bool {
        let mut shard = self.shard.borrow_mut();
        shard.step(SENDS_PER_STEP, self.now(), &mut *self.sockets.borrow_mut())
    }

    /// Sees to sockets that are ready; whether more are.
    fn serve_sockets(&self) -> bool {
        if let Err(error) = self.sockets.borrow_mut().poll_ready() {
            tracing::error!(%error, "cannot ask which sockets are ready");
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
                Event::Write(id) => self.write(id, now),
            }
        }
        true
    }

    /// Sleeps in the ring of the sockets until one is ready, the doorbell rings or a connection
    /// that is held back is due, for `at_most` so long; whether there can be something to do, or
    /// will be soon.
    pub(super) fn doze(&self, at_most: Duration) -> bool {
        let mut sockets = self.sockets.borrow_mut();
        let due_ms = self.shard.borrow().next_due_ms();
        let until_due = due_ms.map(|due_ms| due_ms.saturating_sub(self.now().monotonic_ms()));
        let at_most = until_due.map_or(at_most, |wait| at_most.min(Duration::from_millis(wait)));
        if !sockets.doorbell().fall_asleep(Sleep::Doze) {
            return true;
        }
        if let Err(error) = sockets.doze(at_most) {
            tracing::error!(%error, "cannot wait for sockets");
        }
        sockets.doorbell().wake_up() || !sockets.is_idle() || due_ms.is_some()
    }

    /// Rings for the working task if another task left it something to send or to submit.
    pub(super) fn hand_over(&self) {
        let mut sockets = self.sockets.borrow_mut();
        if self.shard.borrow().has_work() || sockets.has_queued() || !sockets.is_idle() {
            sockets.doorbell().ring();
        }
    }

    /// Whether accepting has just failed: the caller is to see to [`Self::accept_again`].
    pub(super) fn pauses_accepting(&self) -> bool {
        let is_failing = self.accepting.get() == Accepting::Failing;
        if is_failing {
            self.accepting.set(Accepting::Paused);
        }
        is_failing
    }

    /// Tries to accept what was left.
    pub(super) fn accept_again(&self) {
        self.accepting.set(Accepting::Freely);
        self.sockets.borrow_mut().accept_later();
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
                    if self.accepting.get() == Accepting::Freely {
                        tracing::warn!(%error, "cannot accept connections, trying again");
                        self.accepting.set(Accepting::Failing);
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

    fn write(&self, id: ConnId, now: Now) {
        self.shard.borrow_mut().writable(id, now, &mut *self.sockets.borrow_mut());
    }

    /// How long it is until [`Self::tick`] is to be called.
    pub(super) fn until_tick(&self) -> Duration {
        Duration::from_millis(until_tick_ms(self.now().monotonic_ms()))
    }

    /// Holds deadlines and budgets against the clock: every second.
    pub(super) fn tick(&self) {
        let mut shard = self.shard.borrow_mut();
        let sockets = self.sockets.borrow();
        let blocked = sockets.blocked();
        let kernel_send_bytes = blocked.iter().map(|(_, bytes)| bytes).sum();
        for (id, kernel_bytes) in blocked {
            shard.check_budget(id, kernel_bytes, self.now());
        }
        shard.note_io(sockets.memory_bytes(), FIXED_BYTES, kernel_send_bytes);
        shard.tick(self.now());
    }

    pub(super) fn begin_drain(&self, window: Duration) {
        self.sockets.borrow_mut().stop_listening();
        self.is_draining.set(true);
        let window_ms = window.as_millis() as u64;
        self.shard.borrow_mut().begin_drain(window_ms, self.now());
    }

    /// One step of the drain; whether the next is to follow at once.
    pub(super) fn drain(&self) -> bool {
        self.shard.borrow_mut().drain(self.now())
    }

    /// Listens no more, closes every connection, and waits until they are closed.
    pub(super) async fn shut_down(&self) {
        self.sockets.borrow_mut().stop_listening();
        self.shard.borrow_mut().shut_down(self.now());
        self.hand_over();
        let deadline = Instant::now() + SHUT_DOWN_GRACE;
        while self.sockets.borrow().open() > 0 && Instant::now() < deadline {
            glommio::timer::sleep(SHUT_DOWN_POLL).await;
        }
        let mut sockets = self.sockets.borrow_mut();
        self.shard.borrow_mut().abort_all(&mut *sockets);
        if let Err(error) = sockets.poll_ready() {
            tracing::error!(%error, "cannot close the last sockets before the process ends");
        }
    }
}
