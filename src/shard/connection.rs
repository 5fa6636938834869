//! The state of one connection, as small as an idle one can be: what is needed only while
//! something is incomplete or waits lives behind an option.

use core::net::SocketAddr;
use std::num::NonZeroU64;

use super::Now;
use super::catch_up::CatchUp;
use super::id::ConnId;
use super::limits::STATE_BYTES;
use super::memory::ConnectionMemory;
use super::outbox::Outbox;
use super::rate::CommandRate;
use super::replay::ReplayRing;
use super::timers::TICK_MS;
use crate::heap::allocation_bytes;
use crate::protocol::decoder::Decoder;
use crate::protocol::extension::Deflate;

/// Where a connection is in its life.
#[derive(Debug)]
pub enum State {
    /// Waiting for a complete request head.
    Handshake(Box<Handshake>),
    /// Upgraded.
    Open,
    /// Our close frame is queued or sent; the client's is awaited.
    Closing,
    /// Nothing more will be said: what is queued is sent, then the writing side is shut down,
    /// and what still comes is ignored until the client ends the connection.
    Finishing { is_shut_down: bool },
}

/// What is known of a client before its connection is open, and forgotten then.
#[derive(Debug)]
pub struct Handshake {
    /// The address that it connected from.
    pub peer: SocketAddr,
    /// What came so far of its request head.
    pub head: Vec<u8>,
}

#[derive(Debug)]
pub struct Connection {
    pub id: ConnId,
    pub state: State,
    /// The running number in the connection's public name.
    pub number: u64,
    /// When the handshake, the message that is incomplete, or the closing must be over; 0 if
    /// nothing of it is under way.
    pub deadline_ms: u64,
    /// When the connection's newest timer fires, in ticks of the timer wheel; what fires earlier is
    /// out of date.
    pub timer_tick: u32,
    pub last_received_ms: u64,
    pub decoder: Decoder,
    /// The compression that was agreed.
    pub deflate: Option<Deflate>,
    pub outbox: Option<Box<Outbox>>,
    pub replay: ReplayRing,
    /// What it missed before it resumed, and what came since.
    pub catch_up: Option<Box<CatchUp>>,
    /// The newest events of the replay ring that are not sent yet. With an outbox it is 0.
    pub pending: u32,
    /// The last event that was considered for this connection, so that none is sent twice.
    pub last_event: u64,
    /// Whether this one is among the connections to flush, now or when it is due.
    pub is_touched: bool,
    pub is_blocked: bool,
    /// The least time between two sends of events.
    pub batch_ms: u16,
    /// The last such send, in milliseconds of the monotonic clock, wrapping.
    pub sent_ms: u32,
    pub drops_in_row: u8,
    pub command_excess: u16,
    /// When it is to be told that it has reached its age, or closed once it was told: in ticks of
    /// the timer wheel; 0 if never.
    pub leave_tick: u32,
    /// Whether it was told.
    pub is_leaving: bool,
    pub rate: CommandRate,
    /// When the ping that is not answered yet was sent.
    pub ping_sent_ms: Option<NonZeroU64>,
    /// The newest round trip.
    pub latency_ms: Option<u32>,
    /// What the shard's sums hold for this connection.
    pub charged: ConnectionMemory,
}

/// LIMITS.md counts with it: what every connection costs the shard, idle or not.
const _: () = assert!(size_of::<Connection>() <= 192 && 192 < STATE_BYTES);

impl Handshake {
    fn memory_bytes(&self) -> usize {
        allocation_bytes(size_of::<Self>()) + allocation_bytes(self.head.capacity())
    }
}

impl Connection {
    pub(super) fn new(
        id: ConnId,
        peer: SocketAddr,
        number: u64,
        now_ms: u64,
        deadline_ms: u64,
    ) -> Self {
        Self {
            id,
            state: State::Handshake(Box::new(Handshake { peer, head: Vec::new() })),
            number,
            deadline_ms,
            timer_tick: 0,
            last_received_ms: now_ms,
            decoder: Decoder::default(),
            deflate: None,
            outbox: None,
            replay: ReplayRing::default(),
            catch_up: None,
            pending: 0,
            last_event: 0,
            is_touched: false,
            is_blocked: false,
            batch_ms: 0,
            sent_ms: 0,
            drops_in_row: 0,
            command_excess: 0,
            leave_tick: 0,
            is_leaving: false,
            rate: CommandRate::default(),
            ping_sent_ms: None,
            latency_ms: None,
            charged: ConnectionMemory::default(),
        }
    }

    /// The queue, which is made if there is none.
    pub(super) fn outbox(&mut self) -> &mut Outbox {
        let deflate = self.deflate;
        self.outbox.get_or_insert_with(|| Box::new(Outbox::new(deflate)))
    }

    /// What the connection takes now beside its place in the tables.
    pub(super) fn memory(&self) -> ConnectionMemory {
        let handshake = match &self.state {
            State::Handshake(handshake) => handshake.memory_bytes(),
            _ => 0,
        };
        let partial = self.decoder.memory_bytes() + handshake;
        let queue = self.outbox.as_ref().map_or(0, |outbox| outbox.memory_bytes())
            + self.catch_up.as_ref().map_or(0, |catch_up| catch_up.memory_bytes());
        let bytes = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        ConnectionMemory {
            queue: bytes(queue),
            replay: bytes(self.replay.memory_bytes()),
            partial: bytes(partial),
        }
    }

    /// What counts against the connection's budget, beside its subscriptions, its resumes that wait
    /// and what the kernel holds: its own memory, and the events that wait for it. The frame that is
    /// sent next does not count: one event alone may be longer than any budget.
    pub(super) fn budgeted_bytes(&self) -> usize {
        let held = self.outbox.as_ref().map_or(0, |outbox| outbox.held_bytes());
        size_of::<Self>() + self.memory().total() + held
    }

    /// When the next events may be sent; `None` if they may be at once.
    pub(super) fn due_ms(&self, now: Now) -> Option<u64> {
        let since_ms = (now.monotonic_ms as u32).wrapping_sub(self.sent_ms);
        let wait_ms = u32::from(self.batch_ms).checked_sub(since_ms).filter(|wait| *wait > 0)?;
        Some(now.monotonic_ms + u64::from(wait_ms))
    }

    /// Sets when it is to be told to leave, or closed.
    pub(super) fn leave_at(&mut self, leave_ms: u64) {
        self.leave_tick = tick_of(leave_ms);
    }

    /// When it is to be told to leave, or closed.
    pub(super) fn leave_ms(&self) -> Option<u64> {
        (self.is_open() && self.leave_tick > 0).then(|| u64::from(self.leave_tick) * TICK_MS)
    }

    /// The newest timer fires then.
    pub(super) fn timer_at(&mut self, timer_ms: u64) {
        self.timer_tick = tick_of(timer_ms);
    }

    /// When the newest timer fires.
    pub(super) fn timer_ms(&self) -> u64 {
        u64::from(self.timer_tick) * TICK_MS
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }
}

/// The first tick of the timer wheel at or after `ms`: the clock has 136 years of them.
fn tick_of(ms: u64) -> u32 {
    u32::try_from(ms.div_ceil(TICK_MS)).unwrap_or(u32::MAX)
}
