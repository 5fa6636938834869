//! A shard: its connections from the first byte to the last, and their deadlines.
//!
//! Inputs are method calls with `now`. They mark connections in `turns`; what was marked is sent by
//! [`Shard::step`], and by the inputs that are given the [`Wire`]. Bounds: see `limits`; the table of
//! connections is bounded by the descriptors that the caller accepts.

use core::net::SocketAddr;
use std::cell::Cell;
use std::rc::Rc;

use super::accounting::budget_used;
use super::admission::{Admission, Verdict};
use super::announcement::Announcement;
use super::census::ShardReport;
use super::commands::Commands;
use super::connection::{Connection, State};
use super::delivery::{Encoder, SendBuffer};
use super::drain::Phase;
use super::history::{History, WaitingResumes};
use super::id::ConnId;
use super::limits::ANSWER_BYTES_PAUSE;
use super::memory::{ConnectionMemory, ShardMemory};
use super::settings::{Mode, ShardSettings};
use super::stats::Stats;
use super::subscriptions::SubscriptionIndex;
use super::table::ConnectionTable;
use super::timers::TimerWheel;
use super::turns::Turns;
use super::{Now, Wire};
use crate::heap::allocation_bytes;
use crate::protocol::close::CloseReason;
use crate::protocol::decoder::{DecodeLimits, Input};
use crate::protocol::frame::{self, Opcode};
use crate::protocol::inflate::Inflater;
use crate::protocol::message::{Error, ErrorCode, ErrorDetail, ServerMessage};

/// What everything that is sent or received goes through.
#[derive(Debug)]
pub(super) struct Scratch {
    pub send: SendBuffer,
    pub encoder: Encoder,
    inflater: Inflater,
    /// The subscribers of one event.
    pub matched: Vec<u32>,
    /// Connections that are due.
    pub due: Vec<u32>,
}

/// One core's connections and what they are subscribed to.
#[derive(Debug)]
pub struct Shard {
    pub(super) settings: ShardSettings,
    pub(super) connections: ConnectionTable,
    pub(super) index: SubscriptionIndex,
    pub(super) history: History,
    pub(super) waiting: WaitingResumes,
    pub(super) turns: Turns,
    pub(super) announcement: Option<Box<Announcement>>,
    pub(super) scratch: Scratch,
    pub(super) stats: Stats,
    /// The events of all backlogs.
    pub(super) backlog_events: Rc<Cell<usize>>,
    /// What all connections are charged.
    pub(super) charged: ShardMemory,
    pub(super) phase: Phase,
    timers: TimerWheel,
    generation: u32,
}

impl Shard {
    /// A shard without connections.
    pub fn new(settings: ShardSettings, now: Now) -> Self {
        let scratch = Scratch {
            send: SendBuffer::default(),
            encoder: Encoder::new(settings.limits.deflate_bytes_min),
            inflater: Inflater::default(),
            matched: Vec::new(),
            due: Vec::new(),
        };
        Self {
            settings,
            connections: ConnectionTable::default(),
            index: SubscriptionIndex::default(),
            history: History::default(),
            waiting: WaitingResumes::default(),
            turns: Turns::default(),
            announcement: None,
            scratch,
            stats: Stats::default(),
            backlog_events: Rc::default(),
            charged: ShardMemory::default(),
            phase: Phase::default(),
            timers: TimerWheel::new(now.monotonic_ms()),
            generation: 0,
        }
    }

    /// A connection was accepted, from this address.
    pub fn accept(&mut self, peer: SocketAddr, now: Now) -> ConnId {
        self.generation = self.generation.wrapping_add(1);
        self.stats.accepted += 1;
        let now_ms = now.monotonic_ms();
        let id = ConnId { index: self.connections.next_index(), generation: self.generation };
        let deadline_ms = now_ms + self.settings.limits.handshake_timeout_ms;
        let number = self.stats.accepted;
        self.connections.insert(Connection::new(id, peer, number, now_ms, deadline_ms));
        self.schedule(id, deadline_ms);
        id
    }

    /// Bytes came from a connection. They are unmasked in place.
    pub fn receive(&mut self, id: ConnId, bytes: &mut [u8], now: Now, wire: &mut impl Wire) {
        self.tell(id.index);
        let Some(connection) = self.connections.find(id) else { return };
        connection.last_received_ms = now.monotonic_ms();
        match &connection.state {
            State::Handshake(_) => self.receive_head(id, bytes, now, wire),
            State::Open | State::Closing => self.receive_frames(id, bytes, now, wire),
            State::Finishing { .. } => {}
        }
        self.send(id, now, wire);
        if self.check_budget(id, 0, now) {
            self.send(id, now, wire);
        }
        self.end_aborted(wire);
    }

    /// The client ended the connection, or the socket failed.
    pub fn lost(&mut self, id: ConnId) {
        self.leave(id);
        if let Some(connection) = self.connections.remove(id) {
            self.charged.settle(connection.charged, ConnectionMemory::default());
        }
    }

    /// Whether the connection may be read: not while the answers to what it asked wait for it. After
    /// a no, [`Wire::resume`] says when.
    pub fn wants_read(&mut self, id: ConnId) -> bool {
        self.connections.find(id).is_some_and(|connection| connection.delivery.wants_read())
    }

    /// Looks for deadlines that are over; to be called every [`super::timers::TICK_MS`]. What they
    /// ask for is done by [`Self::step`].
    pub fn tick(&mut self, now: Now) {
        self.history.expire(now, &self.settings.limits);
        self.timers.advance(now.monotonic_ms(), self.turns.fired());
        self.waiting.expire(now.monotonic_ms());
        self.check_backlogs(now);
        self.report();
    }

    /// What the shard has done.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// What the IO layer holds, for the next report: its own heap, fixed buffers, and the bytes in
    /// the kernel's send queues of blocked connections.
    pub fn note_io(&mut self, io_bytes: usize, fixed_bytes: usize, kernel_send_bytes: usize) {
        self.charged.io = io_bytes;
        self.charged.fixed = fixed_bytes;
        self.charged.kernel_send = kernel_send_bytes;
    }

    /// What the shard holds. Cost: one walk over the lists of the timer wheel.
    pub fn memory(&self) -> ShardMemory {
        let scratch = &self.scratch;
        let indexes = scratch.matched.capacity() + scratch.due.capacity();
        ShardMemory {
            connections: self.connections.memory_bytes()
                + self.timers.memory_bytes()
                + self.turns.memory_bytes()
                + self.waiting.memory_bytes()
                + self.phase.memory_bytes()
                + allocation_bytes(indexes * size_of::<u32>()),
            subscriptions: self.index.memory_bytes(),
            log: self.history.memory_bytes(),
            fixed: self.charged.fixed
                + scratch.send.memory_bytes()
                + scratch.encoder.memory_bytes()
                + scratch.inflater.memory_bytes(),
            ..self.charged
        }
    }

    /// Closes a connection that is over its budget; `kernel_bytes` is what the kernel holds for
    /// it. Whether it was. A blocked one is looked at once per tick, the others when something came
    /// from them.
    pub fn check_budget(&mut self, id: ConnId, kernel_bytes: usize, now: Now) -> bool {
        let budget_bytes = self.settings.limits.connection_budget_bytes;
        let Some(connection) = self.connections.find(id).filter(|it| it.is_open()) else {
            return false;
        };
        let used = budget_used(connection, &self.index, &self.waiting);
        let is_over = used + kernel_bytes > budget_bytes;
        if is_over {
            self.stats.dropped += connection.delivery.abandon() as u64;
            self.stats.budget_closed += 1;
            self.close(id, CloseReason::OverBudget, now);
        }
        is_over
    }

    /// Starts the closing handshake: nothing more is delivered, the close frame is sent in the
    /// connection's turn.
    pub(super) fn close(&mut self, id: ConnId, reason: CloseReason, now: Now) {
        self.leave(id);
        let deadline_ms = now.monotonic_ms() + self.settings.limits.close_timeout_ms;
        let Some(connection) = self.connections.find(id) else { return };
        connection.delivery.answer(frame::encode_close(reason.code(), reason.text()));
        connection.deadline_ms = deadline_ms;
        // After a broken frame there is no telling where the client's close would begin.
        connection.state = match reason {
            CloseReason::Wire(_) => State::Finishing { is_shut_down: false },
            _ => State::Closing,
        };
        self.turns.touch(id.index, &mut connection.marks);
        self.schedule(id, deadline_ms);
    }

    /// The commands of a connection, with what they may touch.
    pub(super) fn commands(&mut self, id: ConnId) -> Option<Commands<'_>> {
        Some(Commands {
            connection: self.connections.find(id).filter(|connection| connection.is_open())?,
            index: &mut self.index,
            history: &self.history,
            waiting: &mut self.waiting,
            turns: &mut self.turns,
            encoder: &mut self.scratch.encoder,
            stats: &mut self.stats,
            backlog_events: &self.backlog_events,
            settings: &self.settings,
        })
    }

    fn receive_head(&mut self, id: ConnId, bytes: &mut [u8], now: Now, wire: &mut impl Wire) {
        let Some(connection) = self.connections.find(id) else { return };
        let mut admission = Admission {
            connection,
            settings: &self.settings,
            history: &self.history,
            phase: &self.phase,
        };
        match admission.receive(bytes) {
            Verdict::Incomplete => {}
            Verdict::Refused => {
                self.stats.refused += 1;
                self.finish(id, now);
            }
            Verdict::Answered => self.finish(id, now),
            Verdict::Opened { frames_start } => {
                admission.welcome(now);
                self.open(id, now);
                self.send(id, now, wire);
                self.receive_frames(id, &mut bytes[frames_start..], now, wire);
            }
        }
    }

    /// The handshake is over: the connection counts as open.
    fn open(&mut self, id: ConnId, now: Now) {
        let limits = &self.settings.limits;
        let interval_ms = limits.heartbeat_interval_ms;
        let Some(connection) = self.connections.find(id) else { return };
        connection.state = State::Open;
        connection.deadline_ms = 0;
        connection.begin_ageing(now, limits, self.settings.shard);
        if let Some(announcement) = &mut self.announcement {
            // The welcome told it.
            announcement.take(id.index, connection.number);
        }
        self.stats.upgraded += 1;
        self.settings.census.add(self.settings.shard);
        self.schedule(id, now.monotonic_ms() + interval_ms);
    }

    fn receive_frames(&mut self, id: ConnId, bytes: &mut [u8], now: Now, wire: &mut impl Wire) {
        let message_bytes_max = self.settings.limits.client.message_bytes;
        let ratio_max = self.settings.limits.inflate_ratio_max;
        let Some(connection) = self.connections.find(id) else { return };
        let compression = connection.delivery.dialect().deflate.into();
        let limits = DecodeLimits { message_bytes_max, compression, ratio_max };
        let mut decoder = std::mem::take(&mut connection.decoder);
        let mut inflater = std::mem::take(&mut self.scratch.inflater);
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
            let state = self.connections.find(id).map(|connection| &connection.state);
            if !matches!(state, Some(State::Open | State::Closing)) {
                break;
            }
            if !self.send_if_long(id, now, wire) {
                break;
            }
        }
        decoder.settle();
        inflater.settle();
        self.scratch.inflater = inflater;
        let message_deadline_ms = now.monotonic_ms() + self.settings.limits.idle_timeout_ms;
        if let Some(connection) = self.connections.find(id) {
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

    /// Sends early when the answers to one read have grown long, and gives up a client that asks
    /// for more than its budget while it reads nothing; whether it may go on.
    fn send_if_long(&mut self, id: ConnId, now: Now, wire: &mut impl Wire) -> bool {
        let is_long = |it: &Connection| it.delivery.queue_bytes() >= ANSWER_BYTES_PAUSE;
        if !self.connections.get(id).is_some_and(is_long) {
            return true;
        }
        self.send(id, now, wire);
        let budget_bytes = self.settings.limits.connection_budget_bytes;
        let Some(connection) = self.connections.get(id) else { return false };
        let is_over = budget_used(connection, &self.index, &self.waiting) > budget_bytes;
        if is_over {
            self.stats.budget_closed += 1;
            self.leave(id);
            self.turns.abort(id);
        }
        !is_over
    }

    fn on_input(&mut self, id: ConnId, input: Input<'_>, now: Now) {
        let Some(connection) = self.connections.find(id) else { return };
        match (input, &self.settings.mode) {
            (Input::Close(code), _) => self.on_close(id, code, now),
            _ if !connection.is_open() => {}
            (Input::Ping(payload), _) => {
                connection.delivery.answer(frame::encode(Opcode::Pong, payload));
            }
            (Input::Pong(payload), _) => connection.on_pong(payload, now),
            (Input::Text(text), Mode::Echo) => self.echo(id, Opcode::Text, text.as_bytes()),
            (Input::Binary(payload), Mode::Echo) => self.echo(id, Opcode::Binary, payload),
            (Input::Text(text), Mode::Channels { .. }) => {
                let reason = self.commands(id).and_then(|mut commands| commands.run(text, now));
                if let Some(reason) = reason {
                    self.close(id, reason, now);
                }
            }
            (Input::Binary(_), Mode::Channels { .. }) => {
                self.close(id, CloseReason::BinaryCommand, now);
            }
        }
    }

    fn echo(&mut self, id: ConnId, opcode: Opcode, payload: &[u8]) {
        if let Some(connection) = self.connections.find(id) {
            let dialect = connection.delivery.dialect();
            let frame = self.scratch.encoder.encode_message(opcode, payload, dialect);
            connection.delivery.answer(frame);
        }
    }

    fn on_close(&mut self, id: ConnId, code: Option<u16>, now: Now) {
        if let Some(connection) = self.connections.find(id).filter(|it| it.is_open()) {
            connection.delivery.answer(match code {
                Some(code) => frame::encode_close(code, ""),
                None => frame::encode(Opcode::Close, &[]),
            });
        }
        self.finish(id, now);
    }

    fn on_wire_error(&mut self, id: ConnId, reason: CloseReason, now: Now) {
        let Some(connection) = self.connections.find(id).filter(|it| it.is_open()) else {
            return self.finish(id, now);
        };
        if let (1009, Mode::Channels { .. }) = (reason.code(), &self.settings.mode) {
            let limit = self.settings.limits.client.message_bytes;
            let code = ErrorCode::MessageTooLarge;
            let message = match reason {
                CloseReason::Wire(error) => error.to_string().into(),
                _ => reason.text().into(),
            };
            let detail = ErrorDetail::Limit { limit };
            connection.answer(&ServerMessage::Error(Error { code, message, detail, id: None }));
        }
        self.close(id, reason, now);
    }

    /// Everything that had to be said is queued: send it and shut down.
    fn finish(&mut self, id: ConnId, now: Now) {
        self.leave(id);
        let deadline_ms = now.monotonic_ms() + self.settings.limits.close_timeout_ms;
        if let Some(connection) = self.connections.find(id) {
            connection.state = State::Finishing { is_shut_down: false };
            connection.deadline_ms = deadline_ms;
            self.turns.touch(id.index, &mut connection.marks);
            self.schedule(id, deadline_ms);
        }
    }

    /// Has the deadlines of a connection looked at then, or when it is to leave.
    pub(super) fn schedule(&mut self, id: ConnId, deadline_ms: u64) {
        if let Some(connection) = self.connections.find(id) {
            let leave_ms = connection.leave_ms().unwrap_or(u64::MAX);
            connection.timer_at(self.timers.insert(id, deadline_ms.min(leave_ms)));
        }
    }

    /// Ends deliveries: the connection is not open any more.
    fn leave(&mut self, id: ConnId) {
        let Some(connection) = self.connections.find(id).filter(|it| it.is_open()) else { return };
        connection.state = State::Closing;
        connection.delivery.end();
        self.settings.census.remove(self.settings.shard);
        self.index.remove_connection(id.index);
        self.waiting.remove_connection(id.index);
    }

    fn report(&self) {
        let report = ShardReport {
            stats: self.stats,
            memory: self.memory(),
            connections: self.connections.len(),
            subscriptions: self.index.total(),
            is_draining: !matches!(self.phase, Phase::Serving),
        };
        self.settings.census.report(self.settings.shard, report);
    }
}
