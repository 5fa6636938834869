//! A shard: its connections from the first byte to the last, and its timers.
//!
//! Inputs are method calls with `now`; outputs are sends through [`Wire`]. Each call leaves
//! nothing to be flushed. Bounds: see `limits`; the table of connections is bounded by the
//! descriptors that the caller accepts.

use core::net::SocketAddr;
use std::cell::Cell;
use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;

use super::batches::Batches;
use super::census::{Census, Stats};
use super::connection::{Connection, State};
use super::drain::Phase;
use super::id::ConnId;
use super::limits::{ANSWER_BYTES_PAUSE, Limits};
use super::memory::{ConnectionMemory, ShardMemory};
use super::newest::NewestEvents;
use super::recent::RecentLog;
use super::resume::WaitingResumes;
use super::subscriptions::SubscriptionIndex;
use super::table::ConnectionTable;
use super::timers::TimerWheel;
use super::transmit::Batch;
use super::{Now, Wire};
use crate::channel::Pattern;
use crate::feed::SourceStatus;
use crate::position::Epoch;
use crate::protocol::close::CloseReason;
use crate::protocol::decoder::{DecodeLimits, Input};
use crate::protocol::deflate::Deflater;
use crate::protocol::frame::{self, Opcode};
use crate::protocol::inflate::Inflater;
use crate::protocol::message::{Error, ErrorCode, ErrorDetail, ServerMessage};

/// How long a client has at least to answer the last ping before its idle timeout.
const PONG_GRACE_MS: u64 = 5_000;

/// What connections are for.
#[derive(Debug, Clone)]
pub enum Mode {
    /// Channels: `/ws`, `/health`, `/ready`; subscriptions within these subjects.
    Channels {
        /// The patterns that cover everything a client may subscribe to.
        allowed: Arc<[Pattern]>,
    },
    /// Every message comes back, on any path: for protocol conformance tools.
    Echo,
}

/// What a shard is made from.
#[derive(Debug, Clone)]
pub struct ShardSettings {
    /// The shard's number, from 0.
    pub shard: usize,
    /// The instance's name.
    pub instance: Arc<str>,
    /// What connections are for.
    pub mode: Mode,
    /// The bounds.
    pub limits: Limits,
    /// The instance's counters.
    pub census: Arc<Census>,
}

/// One core's connections and what they are subscribed to.
#[derive(Debug)]
pub struct Shard {
    pub(super) settings: ShardSettings,
    pub(super) connections: ConnectionTable,
    pub(super) index: SubscriptionIndex,
    pub(super) log: RecentLog,
    pub(super) newest: NewestEvents,
    pub(super) epoch: Option<Epoch>,
    pub(super) source: SourceStatus,
    pub(super) phase: Phase,
    /// Connections with something to send at the end of the turn.
    pub(super) touched: VecDeque<u32>,
    /// Connections with events that have to wait.
    pub(super) batches: Batches,
    /// Scratch: the subscribers of one event.
    pub(super) matched: Vec<u32>,
    /// Connections whose queue refused too much.
    pub(super) slow: Vec<ConnId>,
    pub(super) batch: Batch,
    pub(super) deflater: Deflater,
    inflater: Inflater,
    pub(super) stats: Stats,
    /// Events seen, which names each one for `Connection::last_event`.
    pub(super) events_seen: u64,
    /// How many events this shard holds, wherever.
    pub(super) events_alive: Rc<Cell<usize>>,
    /// Connections that are sent what they missed.
    pub(super) catching_up: Vec<ConnId>,
    /// How many events wait for them.
    pub(super) catch_up_events: Rc<Cell<usize>>,
    pub(super) waiting_resumes: WaitingResumes,
    /// What all connections are charged.
    pub(super) charged: ShardMemory,
    pub(super) timers: TimerWheel,
    fired: Vec<ConnId>,
    generation: u32,
}

impl Shard {
    /// A shard without connections.
    pub fn new(settings: ShardSettings, now: Now) -> Self {
        Self {
            settings,
            connections: ConnectionTable::default(),
            index: SubscriptionIndex::default(),
            log: RecentLog::default(),
            newest: NewestEvents::default(),
            epoch: None,
            source: SourceStatus::Connecting,
            phase: Phase::default(),
            touched: VecDeque::new(),
            batches: Batches::default(),
            matched: Vec::new(),
            slow: Vec::new(),
            batch: Batch::default(),
            deflater: Deflater::default(),
            inflater: Inflater::default(),
            stats: Stats::default(),
            events_seen: 0,
            events_alive: Rc::default(),
            catching_up: Vec::new(),
            catch_up_events: Rc::default(),
            waiting_resumes: WaitingResumes::default(),
            charged: ShardMemory::default(),
            timers: TimerWheel::new(now.monotonic_ms),
            fired: Vec::new(),
            generation: 0,
        }
    }

    /// A connection was accepted, from this address.
    pub fn accept(&mut self, peer: SocketAddr, now: Now) -> ConnId {
        self.generation = self.generation.wrapping_add(1);
        self.stats.accepted += 1;
        let id = ConnId { index: self.connections.next_index(), generation: self.generation };
        let deadline_ms = now.monotonic_ms + self.settings.limits.handshake_timeout_ms;
        let number = self.stats.accepted;
        self.connections.insert(Connection::new(id, peer, number, now.monotonic_ms, deadline_ms));
        self.schedule(id, deadline_ms);
        id
    }

    /// Bytes came from a connection. They are unmasked in place.
    pub fn receive(&mut self, id: ConnId, bytes: &mut [u8], now: Now, wire: &mut impl Wire) {
        self.flush_pending(id, wire);
        let Some(connection) = self.find(id) else { return };
        connection.last_received_ms = now.monotonic_ms;
        match &connection.state {
            State::Handshake { .. } => self.receive_head(id, bytes, now, wire),
            State::Open | State::Closing => self.receive_frames(id, bytes, now, wire),
            State::Finishing { .. } => {}
        }
        self.flush(id, wire);
        self.check_budget(id, 0, now, wire);
    }

    /// The client ended the connection, or the socket failed.
    pub fn lost(&mut self, id: ConnId) {
        if self.find(id).is_some() {
            self.forget(id);
        }
    }

    /// Whether the connection still exists.
    pub fn is_alive(&self, id: ConnId) -> bool {
        self.connections.get(id).is_some()
    }

    /// Whether the connection may be read: not while the answers to what it asked wait for it.
    pub fn wants_read(&self, id: ConnId) -> bool {
        self.connections.get(id).is_some_and(|connection| {
            let waiting = connection.outbox.as_ref().map_or(0, |outbox| outbox.answer_bytes());
            waiting < ANSWER_BYTES_PAUSE
        })
    }

    /// Sees to deadlines; to be called every [`super::timers::TICK_MS`].
    pub fn tick(&mut self, now: Now, wire: &mut impl Wire) {
        self.log.expire(now.monotonic_ms, &self.settings.limits);
        let mut fired = std::mem::take(&mut self.fired);
        self.timers.advance(now.monotonic_ms, &mut fired);
        for id in fired.drain(..) {
            self.check_deadline(id, now, wire);
        }
        self.fired = fired;
        self.check_catch_ups();
        self.close_slow(now);
        self.waiting_resumes.expire(now.monotonic_ms);
        self.resume_waiting(now, wire);
        self.report();
    }

    /// Connections in any state.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// What the shard has done.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Heap of what everything that is sent or received goes through.
    pub(super) fn scratch_bytes(&self) -> usize {
        self.batch.memory_bytes() + self.deflater.memory_bytes() + self.inflater.memory_bytes()
    }

    pub(super) fn find(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.connections.find(id)
    }

    /// The handshake is over: the connection counts as open.
    pub(super) fn open(&mut self, id: ConnId, now: Now) {
        let interval_ms = self.settings.limits.heartbeat_interval_ms;
        let batch_ms = self.settings.limits.client.batch_ms;
        if let Some(connection) = self.find(id) {
            connection.state = State::Open;
            connection.deadline_ms = 0;
            connection.batch_ms = batch_ms;
            self.stats.upgraded += 1;
            self.settings.census.add(self.settings.shard);
            self.begin_ageing(id, now);
            self.schedule(id, now.monotonic_ms + interval_ms);
        }
    }

    /// Queues a message to the client.
    pub(super) fn answer(&mut self, id: ConnId, message: &ServerMessage<'_>) {
        self.queue(id, message.to_frame());
    }

    /// Queues whole bytes behind everything that waits.
    pub(super) fn queue(&mut self, id: ConnId, bytes: Vec<u8>) {
        if self.find(id).is_some() {
            self.outbox_of(id.index).push_answer(bytes);
        }
    }

    /// Starts the closing handshake: nothing more is delivered, the close frame goes out next.
    pub(super) fn close(&mut self, id: ConnId, reason: CloseReason, now: Now) {
        self.say_close(id, reason.code(), reason.text(), now);
        if let Some(connection) = self.find(id) {
            // After a broken frame there is no telling where the client's close would begin.
            connection.state = match reason {
                CloseReason::Wire(_) => State::Finishing { is_shut_down: false },
                _ => State::Closing,
            };
        }
    }

    /// Everything that had to be said is queued: send it and shut down.
    pub(super) fn finish(&mut self, id: ConnId, now: Now) {
        self.leave(id);
        let deadline_ms = now.monotonic_ms + self.settings.limits.close_timeout_ms;
        if let Some(connection) = self.find(id) {
            connection.state = State::Finishing { is_shut_down: false };
            connection.deadline_ms = deadline_ms;
            self.schedule(id, deadline_ms);
        }
    }

    /// Forgets a connection and has its socket closed without lingering.
    pub(super) fn abort(&mut self, id: ConnId, wire: &mut impl Wire) {
        self.forget(id);
        wire.abort(id);
    }

    fn receive_frames(&mut self, id: ConnId, bytes: &mut [u8], now: Now, wire: &mut impl Wire) {
        let message_bytes_max = self.settings.limits.client.message_bytes;
        let ratio_max = self.settings.limits.inflate_ratio_max;
        let Some(connection) = self.find(id) else { return };
        let compression = connection.deflate.into();
        let limits = DecodeLimits { message_bytes_max, compression, ratio_max };
        let mut decoder = std::mem::take(&mut connection.decoder);
        let mut inflater = std::mem::take(&mut self.inflater);
        let mut rest = bytes;
        while !rest.is_empty() {
            match decoder.decode(rest, limits, &mut inflater) {
                Ok((used, input)) => {
                    if let Some(input) = input {
                        self.on_input(id, input, now);
                    }
                    rest = &mut rest[used..];
                }
                Err(error) => {
                    self.on_wire_error(id, CloseReason::Wire(error), now);
                    break;
                }
            }
            if !matches!(self.find(id).map(|it| &it.state), Some(State::Open | State::Closing)) {
                break;
            }
            self.flush_if_long(id, wire);
        }
        decoder.settle();
        inflater.settle();
        self.inflater = inflater;
        let message_deadline_ms = now.monotonic_ms + self.settings.limits.idle_timeout_ms;
        if let Some(connection) = self.find(id) {
            connection.decoder = decoder;
            if connection.is_open() {
                match (connection.decoder.is_idle(), connection.deadline_ms) {
                    (true, _) => connection.deadline_ms = 0,
                    (false, 0) => connection.deadline_ms = message_deadline_ms,
                    (false, _) => {}
                }
            }
        }
    }

    fn on_input(&mut self, id: ConnId, input: Input<'_>, now: Now) {
        let is_open = self.find(id).is_some_and(|connection| connection.is_open());
        match input {
            Input::Close(code) => self.on_close(id, code, now),
            _ if !is_open => {}
            Input::Ping(payload) => self.queue(id, frame::encode(Opcode::Pong, payload)),
            Input::Pong(payload) => self.on_pong(id, payload, now),
            Input::Text(text) => match self.settings.mode {
                Mode::Echo => self.echo(id, Opcode::Text, text.as_bytes()),
                Mode::Channels { .. } => self.on_text(id, text, now),
            },
            Input::Binary(payload) => match self.settings.mode {
                Mode::Echo => self.echo(id, Opcode::Binary, payload),
                Mode::Channels { .. } => self.close(id, CloseReason::BinaryCommand, now),
            },
        }
    }

    fn echo(&mut self, id: ConnId, opcode: Opcode, payload: &[u8]) {
        let deflate = self.find(id).and_then(|connection| connection.deflate);
        let compressed = deflate
            .and_then(|deflate| self.deflater.compress_message(payload, deflate.window_bits));
        let answer = match compressed {
            Some(compressed) => {
                let mut answer = frame::encode(opcode, &compressed);
                frame::mark_compressed(&mut answer);
                answer
            }
            None => frame::encode(opcode, payload),
        };
        self.queue(id, answer);
    }

    fn on_close(&mut self, id: ConnId, code: Option<u16>, now: Now) {
        let Some(connection) = self.find(id) else { return };
        if connection.is_open() {
            let answer = match code {
                Some(code) => frame::encode_close(code, ""),
                None => frame::encode(Opcode::Close, &[]),
            };
            self.queue(id, answer);
        }
        self.finish(id, now);
    }

    fn on_wire_error(&mut self, id: ConnId, reason: CloseReason, now: Now) {
        let is_open = self.find(id).is_some_and(|connection| connection.is_open());
        if !is_open {
            self.finish(id, now);
            return;
        }
        if let (1009, Mode::Channels { .. }) = (reason.code(), &self.settings.mode) {
            let limit = self.settings.limits.client.message_bytes;
            let code = ErrorCode::MessageTooLarge;
            let message = match reason {
                CloseReason::Wire(error) => error.to_string().into(),
                _ => reason.text().into(),
            };
            let detail = ErrorDetail::Limit { limit };
            self.answer(id, &ServerMessage::Error(Error { code, message, detail, id: None }));
        }
        self.close(id, reason, now);
    }

    fn on_pong(&mut self, id: ConnId, payload: &[u8], now: Now) {
        let Some(connection) = self.find(id) else { return };
        let Some(sent_ms) = connection.ping_sent_ms else { return };
        if payload == sent_ms.get().to_be_bytes() {
            connection.ping_sent_ms = None;
            let elapsed = now.monotonic_ms.saturating_sub(sent_ms.get());
            connection.latency_ms = Some(u32::try_from(elapsed).unwrap_or(u32::MAX));
        }
    }

    pub(super) fn ping(&mut self, id: ConnId, now: Now) {
        if let Some(connection) = self.find(id) {
            connection.ping_sent_ms = NonZeroU64::new(now.monotonic_ms);
            self.queue(id, frame::encode(Opcode::Ping, &now.monotonic_ms.to_be_bytes()));
        }
    }

    fn say_close(&mut self, id: ConnId, code: u16, reason: &str, now: Now) {
        self.leave(id);
        let deadline_ms = now.monotonic_ms + self.settings.limits.close_timeout_ms;
        if let Some(connection) = self.find(id) {
            connection.deadline_ms = deadline_ms;
            self.schedule(id, deadline_ms);
            self.queue(id, frame::encode_close(code, reason));
        }
    }

    fn check_deadline(&mut self, id: ConnId, now: Now, wire: &mut impl Wire) {
        let (heartbeat_ms, idle_ms) = {
            let limits = &self.settings.limits;
            (limits.heartbeat_interval_ms, limits.idle_timeout_ms)
        };
        let now_ms = now.monotonic_ms;
        self.flush_pending(id, wire);
        let Some(connection) = self.find(id) else { return };
        if now_ms < connection.timer_ms() {
            return;
        }
        if !connection.is_open() {
            let deadline_ms = connection.deadline_ms;
            if now_ms >= deadline_ms {
                self.abort(id, wire);
            } else {
                self.schedule(id, deadline_ms);
            }
            return;
        }
        self.check_age(id, now, wire);
        let Some(connection) = self.find(id).filter(|connection| connection.is_open()) else {
            return;
        };
        let silent_ms = now_ms.saturating_sub(connection.last_received_ms);
        let mut idle_deadline_ms = connection.last_received_ms + idle_ms;
        if connection.deadline_ms > 0 {
            idle_deadline_ms = idle_deadline_ms.min(connection.deadline_ms);
        }
        if connection.deadline_ms > 0 && now_ms >= connection.deadline_ms {
            self.close(id, CloseReason::UnfinishedMessage, now);
            self.flush(id, wire);
        } else if silent_ms >= idle_ms {
            self.close(id, CloseReason::Idle, now);
            self.flush(id, wire);
        } else if silent_ms >= heartbeat_ms {
            if silent_ms + heartbeat_ms + PONG_GRACE_MS > idle_ms {
                self.ping(id, now);
            } else {
                // Keeps middleboxes from cutting the connection at a third of a ping's cost: no
                // answer comes, and none is needed yet (RFC 6455, section 5.5.3).
                self.queue(id, frame::encode(Opcode::Pong, &[]));
            }
            self.flush(id, wire);
            self.schedule(id, idle_deadline_ms.min(now_ms + heartbeat_ms));
        } else {
            let ping_ms = connection.last_received_ms + heartbeat_ms;
            self.schedule(id, ping_ms.min(idle_deadline_ms));
        }
    }

    /// Has the deadlines of a connection looked at then, or when it is to leave.
    fn schedule(&mut self, id: ConnId, deadline_ms: u64) {
        let leave_ms = self.find(id).and_then(|connection| connection.leave_ms());
        let deadline_ms = leave_ms.map_or(deadline_ms, |leave_ms| leave_ms.min(deadline_ms));
        let timer_ms = self.timers.insert(id, deadline_ms);
        if let Some(connection) = self.find(id) {
            connection.timer_at(timer_ms);
        }
    }

    /// Ends deliveries: the connection is not open any more.
    fn leave(&mut self, id: ConnId) {
        let Some(connection) = self.find(id) else { return };
        if connection.is_open() {
            connection.state = State::Closing;
            connection.catch_up = None;
            self.settings.census.remove(self.settings.shard);
            self.index.remove_connection(id.index);
            self.waiting_resumes.remove_connection(id.index);
        }
    }

    fn forget(&mut self, id: ConnId) {
        self.leave(id);
        if let Some(connection) = self.connections.remove(id) {
            self.charged.settle(connection.charged, ConnectionMemory::default());
        }
    }
}
