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

use super::sockets::{Event, Sockets};
use crate::clock::Clock;
use crate::feed::{FEED_CAPACITY, Feed};
use crate::shard::{ConnId, Now, Shard};

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
    pub is_accept_failing: Cell<bool>,
    /// Whether a task waits for the connections that are held back.
    pub is_batching: Cell<bool>,
    /// Whether a task sends what no event caused.
    pub is_sending: Cell<bool>,
}

impl Worker {
    pub fn new(shard: Shard, sockets: Sockets, clock: Clock) -> Self {
        Self {
            shard: RefCell::new(shard),
            sockets: RefCell::new(sockets),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
            clock,
            is_accept_failing: Cell::new(false),
            is_batching: Cell::new(false),
            is_sending: Cell::new(false),
        }
    }

    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Publishes what it can of `batch`.
    pub fn publish(&self, batch: &mut VecDeque<Feed>) {
        self.shard.borrow_mut().publish(batch, self.now(), &mut *self.sockets.borrow_mut());
    }

    /// Does a part of what the shard has marked; whether more is left.
    pub fn step(&self) -> bool {
        let mut shard = self.shard.borrow_mut();
        shard.step(SENDS_PER_STEP, self.now(), &mut *self.sockets.borrow_mut())
    }

    /// Sees to sockets that are ready; whether more are.
    pub fn serve_sockets(&self) -> bool {
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
                Event::Write(id) => self.write(id, now),
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

    fn write(&self, id: ConnId, now: Now) {
        self.shard.borrow_mut().writable(id, now, &mut *self.sockets.borrow_mut());
    }

    /// Holds deadlines and budgets against the clock: every second.
    pub fn tick(&self) {
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

    pub fn begin_drain(&self, window: Duration) {
        self.sockets.borrow_mut().stop_listening();
        let window_ms = window.as_millis() as u64;
        self.shard.borrow_mut().begin_drain(window_ms, self.now());
    }

    /// One step of the drain; whether the next is to follow at once.
    pub fn drain(&self) -> bool {
        self.shard.borrow_mut().drain(self.now())
    }

    /// Listens no more, closes every connection, and waits until they are closed.
    pub async fn shut_down(&self) {
        self.sockets.borrow_mut().stop_listening();
        self.shard.borrow_mut().shut_down(self.now());
        while self.step() {}
        let deadline = Instant::now() + SHUT_DOWN_GRACE;
        while self.sockets.borrow().open() > 0 && Instant::now() < deadline {
            glommio::timer::sleep(SHUT_DOWN_POLL).await;
        }
        self.shard.borrow_mut().abort_all(&mut *self.sockets.borrow_mut());
    }
}
