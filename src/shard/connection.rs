//! The state of one connection, as small as an idle one can be: what is needed only while
//! something is incomplete or waits lives behind an option.

use core::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};

use super::Now;
use super::delivery::Delivery;
use super::id::ConnId;
use super::limits::STATE_BYTES;
use super::memory::ConnectionMemory;
use super::rate::{CommandExcess, CommandRate};
use super::timers::TICK_MS;
use super::turns::Marks;
use crate::heap::allocation_bytes;
use crate::protocol::decoder::Decoder;
use crate::protocol::frame::{self, Opcode};
use crate::protocol::message::ServerMessage;

/// Where a connection is in its life.
#[derive(Debug)]
pub(super) enum State {
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
pub(super) struct Handshake {
    /// The address that it connected from.
    pub peer: SocketAddr,
    /// What came so far of its request head.
    pub head: Vec<u8>,
}

/// What a delivery touches stands first, in two cache lines.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Connection {
    /// What it is to be sent.
    pub delivery: Delivery,
    pub id: ConnId,
    /// What the shard's sums hold for this connection.
    pub charged: ConnectionMemory,
    /// Among which connections it is looked at next.
    pub marks: Marks,
    /// Whether it was told that it has reached its age.
    pub is_leaving: bool,
    pub state: State,
    pub decoder: Decoder,
    pub last_received_ms: u64,
    /// When the handshake, the message that is incomplete, or the closing must be over; 0 if
    /// nothing of it is under way.
    pub deadline_ms: u64,
    /// The running number in the connection's public name.
    pub number: u64,
    pub rate: CommandRate,
    /// When the ping that is not answered yet was sent, on the monotonic clock.
    ping_sent_us: Option<NonZeroU64>,
    /// The newest round trip.
    latency_us: Option<NonZeroU32>,
    /// When the connection's newest timer fires, in ticks of the timer wheel; what fires earlier is
    /// out of date.
    timer_tick: u32,
    /// When it is to be told that it has reached its age, or closed once it was told: in ticks of
    /// the timer wheel; 0 if never.
    leave_tick: u32,
    pub excess: CommandExcess,
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
            last_received_ms: now_ms,
            decoder: Decoder::default(),
            delivery: Delivery::default(),
            marks: Marks::default(),
            rate: CommandRate::default(),
            excess: CommandExcess::default(),
            ping_sent_us: None,
            latency_us: None,
            timer_tick: 0,
            leave_tick: 0,
            is_leaving: false,
            charged: ConnectionMemory::default(),
        }
    }

    /// Queues a message to the client.
    pub(super) fn answer(&mut self, message: &ServerMessage<'_>) {
        self.delivery.answer(message.to_frame());
    }

    /// Queues a ping, which the answer is measured by.
    pub(super) fn ping(&mut self, now: Now) {
        self.ping_sent_us = NonZeroU64::new(now.monotonic_us);
        self.delivery.answer(frame::encode(Opcode::Ping, &now.monotonic_us.to_be_bytes()));
    }

    /// Measures the round trip, unless that is under way.
    pub(super) fn measure(&mut self, now: Now) {
        if self.ping_sent_us.is_none() {
            self.ping(now);
        }
    }

    /// A pong came: the round trip is known if it answers the last ping.
    pub(super) fn on_pong(&mut self, payload: &[u8], now: Now) {
        if let Some(sent_us) = self.ping_sent_us
            && payload == sent_us.get().to_be_bytes()
        {
            self.ping_sent_us = None;
            let elapsed_us = now.monotonic_us.saturating_sub(sent_us.get());
            let elapsed_us = u32::try_from(elapsed_us).unwrap_or(u32::MAX);
            self.latency_us = Some(NonZeroU32::MIN.saturating_add(elapsed_us.saturating_sub(1)));
        }
    }

    /// The newest round trip.
    pub(super) fn latency_ms(&self) -> Option<u32> {
        self.latency_us.map(|us| us.get() / 1_000)
    }

    /// What the connection takes now beside its place in the tables.
    pub(super) fn memory(&self) -> ConnectionMemory {
        let handshake = match &self.state {
            State::Handshake(handshake) => handshake.memory_bytes(),
            _ => 0,
        };
        let partial = self.decoder.memory_bytes() + handshake;
        let bytes = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        ConnectionMemory {
            queue: bytes(self.delivery.queue_bytes()),
            replay: bytes(self.delivery.replay_bytes()),
            partial: bytes(partial),
        }
    }

    /// What counts against the connection's budget, beside its subscriptions, its resumes that wait
    /// and what the kernel holds: its own memory, and the events that wait for it. The frame that is
    /// sent next does not count: one event alone may be longer than any budget.
    pub(super) fn budgeted_bytes(&self) -> usize {
        size_of::<Self>() + self.memory().total() + self.delivery.held_bytes()
    }

    /// Sets when it is to be told to leave, or closed; 0 for never.
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
