//! Bytes to messages, and messages to figures.

use std::io::{self, Read as _};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde_json::Value;

use super::check::Checker;
use super::client::{Client, Pace, Phase};
use super::event::{Event, EventReader};
use super::shared::{Counts, Measured, histogram, record};
use super::{Engine, READ_BYTES};
use crate::failure::Cause;
use crate::ws::ProtocolError;
use crate::ws::deflate::{DeflateParams, Inflater};
use crate::ws::frame::{Incoming, ReadLimits};
use crate::ws::handshake::{self, Response};

/// The longest message that a server may send.
const READ_LIMITS: ReadLimits = ReadLimits { message_bytes_max: 16 << 20 };

/// Reads of one client before the engine goes to the next.
const READS_PER_TURN: usize = 4;

/// How often a heartbeat is sent, if `welcome` does not say it.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(25);

/// Epochs of one run. A server that names more is not resumed from any further one.
const EPOCHS_MAX: usize = 1_024;

/// The longest wait that a server can ask for.
const TOLD_MAX: Duration = Duration::from_secs(3_600);

fn in_future(wait: Duration) -> Option<Instant> {
    Instant::now().checked_add(wait.min(TOLD_MAX))
}

/// What a message that is not an event asks of the engine.
#[derive(Debug)]
enum Control {
    Ping(Vec<u8>),
    Close { code: u16, reason: String },
    Message(Value),
}

/// Collects figures until they are handed over.
#[derive(Debug)]
pub(super) struct Sink {
    pub counts: Counts,
    pub back_ms: Vec<u32>,
    connect_us: Histogram<u64>,
    interval_us: Histogram<u64>,
    events: EventReader,
    controls: Vec<Control>,
    plain: Vec<u8>,
    /// The epochs that the server has named; clients keep theirs by number.
    epochs: Vec<String>,
    /// What `welcome` asked for last.
    pub heartbeat_interval: Duration,
    /// For servers without context between messages: one for all clients.
    inflater: Option<Inflater>,
    now_us: u64,
}

impl Default for Sink {
    fn default() -> Self {
        Self {
            counts: Counts::default(),
            back_ms: Vec::new(),
            connect_us: histogram(),
            interval_us: histogram(),
            events: EventReader::default(),
            controls: Vec::new(),
            plain: Vec::new(),
            epochs: Vec::new(),
            heartbeat_interval: HEARTBEAT_INTERVAL,
            inflater: None,
            now_us: 0,
        }
    }
}

impl Sink {
    /// The time of day of the newest read. It is taken per read, not per round: a round may take
    /// milliseconds, and the latencies of its last events would be too short by that much.
    fn read_clock(&mut self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.now_us = since.as_micros() as u64;
    }

    pub(super) fn record_connect(&mut self, elapsed: Duration) {
        record(&mut self.connect_us, elapsed.as_micros() as u64);
    }

    pub(super) fn hand_over(&mut self, measured: &mut Measured) {
        measured.counts = self.counts;
        // Both have the bounds of `histogram`.
        measured.connect_us.add(&self.connect_us).unwrap_or_default();
        measured.interval_us.add(&self.interval_us).unwrap_or_default();
        self.connect_us.reset();
        self.interval_us.reset();
        measured.back_ms.append(&mut self.back_ms);
    }

    fn on_incoming(
        &mut self,
        incoming: Incoming<'_>,
        checker: &mut Checker,
        pace: Pace,
    ) -> Result<(), ProtocolError> {
        match incoming {
            Incoming::Text(text) => match self.events.read(text)? {
                Some((seq, event)) => {
                    self.counts.message_bytes += text.len() as u64;
                    self.on_event(seq, &event, checker, pace);
                }
                None => self.on_message(text, checker, pace),
            },
            Incoming::Ping(payload) => self.controls.push(Control::Ping(payload.to_vec())),
            Incoming::Close(code, reason) => self.controls.push(Control::Close {
                code: code.unwrap_or(1005),
                reason: String::from_utf8_lossy(reason).into_owned(),
            }),
            Incoming::Binary | Incoming::Pong => {}
        }
        Ok(())
    }

    fn on_message(&mut self, text: &[u8], checker: &mut Checker, pace: Pace) {
        let message: Value = serde_json::from_slice(text).unwrap_or_default();
        // A publisher may use any `type`: only events have `seq`.
        if !message["seq"].is_null() {
            if let Some((seq, event)) = self.events.read_json(&message) {
                self.on_event(seq, &event, checker, pace);
            }
            return;
        }
        // This happens at once, because events of the same read are checked against it.
        match message["type"].as_str() {
            Some("welcome") => {
                if let Some(ms) = message["heartbeat_interval_ms"].as_u64() {
                    self.heartbeat_interval = Duration::from_millis(ms.clamp(1_000, 300_000));
                }
            }
            Some("subscribed") => self.on_acknowledged(&message, checker),
            Some("resync") => checker.on_resync(self.epoch_number(&message["epoch"])),
            Some("source_stale" | "source_live") => {
                checker.on_epoch(self.epoch_number(&message["epoch"]));
            }
            Some("heartbeat") => {
                let position = &message["position"];
                let epoch = self.epoch_number(&position["epoch"]);
                let number = |name: &str| position[name].as_u64();
                if let (Some(epoch), Some(reached)) = (epoch, number("pos").zip(number("ts"))) {
                    checker.on_reached(epoch, reached);
                }
            }
            _ => {}
        }
        self.controls.push(Control::Message(message));
    }

    /// The epoch with this number.
    pub(super) fn epoch(&self, number: u32) -> &str {
        self.epochs.get(number as usize).map_or("", String::as_str)
    }

    /// The number of an epoch; `None` for `null`, and for one too many.
    fn epoch_number(&mut self, epoch: &Value) -> Option<u32> {
        let epoch = epoch.as_str()?;
        let known = self.epochs.iter().rposition(|it| it == epoch);
        if known.is_none() && self.epochs.len() < EPOCHS_MAX {
            self.epochs.push(epoch.to_owned());
            return Some(self.epochs.len() as u32 - 1);
        }
        known.map(|number| number as u32)
    }

    fn on_acknowledged(&mut self, message: &Value, checker: &mut Checker) {
        match message["recovered"].as_bool() {
            Some(true) => {
                self.counts.recovered += 1;
                self.counts.recovered_events += message["resume"]["messages"].as_u64().unwrap_or(0);
                checker.on_recovered();
                return;
            }
            Some(false) => self.counts.not_recovered += 1,
            None => {}
        }
        let number = |name: &str| message[name].as_u64().unwrap_or(0);
        let epoch = self.epoch_number(&message["epoch"]);
        checker.on_acknowledged(epoch, (number("pos"), number("ts")));
    }

    fn on_event(&mut self, seq: u64, event: &Event, checker: &mut Checker, pace: Pace) {
        self.counts.deliveries += 1;
        let verdict = checker.check(seq, event);
        self.counts.gaps += verdict.gaps;
        self.counts.duplicates += u64::from(verdict.is_duplicate);
        self.counts.disordered += u64::from(verdict.is_disordered);
        self.counts.repeated += u64::from(verdict.is_repetition);
        if pace != Pace::Full {
            // A client that reads slowly causes its own delays, but no gaps: it is closed first.
            self.counts.slow_deliveries += 1;
        } else if let Some(sent_us) = event.sent_us {
            record(&mut self.interval_us, self.now_us.saturating_sub(sent_us));
        }
    }
}

impl Engine {
    /// Reads what has arrived; `is_ended` says that epoll has reported the end of the stream.
    pub(super) fn read(&mut self, index: usize, is_ended: bool) {
        if !is_ended
            && self.clients[index].phase == Phase::Open
            && self.clients[index].pace != Pace::Full
        {
            return;
        }
        for _ in 0..READS_PER_TURN {
            let Some(count) = self.read_once(index, READ_BYTES) else { return };
            // A short read has emptied the socket (epoll(7)); the next read reports its end.
            if count < READ_BYTES && !is_ended {
                return;
            }
        }
        self.set_ready_again(index);
    }

    /// Slow clients read their share of this tick.
    pub(super) fn read_slowly(&mut self) {
        for index in 0..self.clients.len() {
            let client = &self.clients[index];
            if let (Phase::Open, Pace::Slow(bytes)) = (client.phase, client.pace) {
                self.read_once(index, bytes.min(READ_BYTES));
            }
        }
    }

    /// One read; `None` if there was nothing, or the connection is gone.
    fn read_once(&mut self, index: usize, bytes_max: usize) -> Option<usize> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = match &mut self.clients[index].stream {
            Some(stream) => stream.read(&mut buffer[..bytes_max]),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        let read = match result {
            Ok(0) => {
                self.on_end(index);
                None
            }
            Ok(count) => {
                self.sink.read_clock();
                self.sink.counts.received_bytes += count as u64;
                self.clients[index].asked = None;
                self.on_bytes(index, &buffer[..count]);
                Some(count)
            }
            Err(error) => {
                let is_over = !matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::Interrupted
                        | io::ErrorKind::NotConnected
                );
                if is_over {
                    self.on_end(index);
                }
                None
            }
        };
        self.buffer = buffer;
        read
    }

    fn on_end(&mut self, index: usize) {
        let cause = match self.clients[index].phase {
            Phase::Connecting | Phase::Upgrading => Cause::ResetBeforeUpgrade,
            Phase::Subscribing | Phase::Open => Cause::ResetAfterUpgrade,
            Phase::Waiting | Phase::GivenUp => return,
        };
        self.fail(index, cause);
    }

    fn on_bytes(&mut self, index: usize, bytes: &[u8]) {
        let Some(mut tls) = self.clients[index].tls.take() else {
            return self.on_plain(index, bytes);
        };
        let mut plain = std::mem::take(&mut self.sink.plain);
        plain.clear();
        let fed = tls.feed(bytes, &mut plain);
        tls.take_outgoing(&mut self.clients[index].unsent);
        self.clients[index].tls = Some(tls);
        self.send_unsent(index);
        match fed {
            Ok(()) => self.on_plain(index, &plain),
            Err(error) => self.fail(index, Cause::Tls(error.to_string())),
        }
        self.sink.plain = plain;
    }

    fn on_plain(&mut self, index: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.clients[index].phase == Phase::Upgrading {
            self.on_head(index, bytes);
        } else {
            self.on_frames(index, bytes);
        }
    }

    fn on_head(&mut self, index: usize, bytes: &[u8]) {
        let offers_deflate = self.settings.offers_deflate;
        let client = &mut self.clients[index];
        let mut head = std::mem::take(&mut client.head);
        head.extend_from_slice(bytes);
        match handshake::parse_response(&head, &client.key, offers_deflate) {
            Ok(Response::Partial) => client.head = head,
            Ok(Response::Upgraded { head_bytes, deflate }) => {
                self.set_deflate(index, deflate.as_ref());
                self.on_upgraded(index);
                self.on_frames(index, &head[head_bytes..]);
            }
            Ok(Response::Refused { status, body_start, retry_after_s }) => {
                let told = retry_after_s.map(Duration::from_secs);
                self.clients[index].not_before = told.and_then(in_future);
                self.fail(index, Cause::Refused { status, body: body_start });
            }
            Err(error) => self.fail(index, Cause::Protocol(error.to_string())),
        }
    }

    fn set_deflate(&mut self, index: usize, params: Option<&DeflateParams>) {
        let Some(params) = params else { return };
        self.clients[index].is_deflated = true;
        if !Inflater::is_shareable(params) {
            self.clients[index].inflater = Some(Box::new(Inflater::new(params)));
        } else if self.sink.inflater.is_none() {
            self.sink.inflater = Some(Inflater::new(params));
        }
    }

    fn on_frames(&mut self, index: usize, bytes: &[u8]) {
        if bytes.is_empty() || !self.clients[index].phase.is_upgraded() {
            return;
        }
        let result = take_frames(&mut self.clients[index], &mut self.sink, bytes);
        let mut controls = std::mem::take(&mut self.sink.controls);
        for control in controls.drain(..) {
            self.on_control(index, control);
        }
        self.sink.controls = controls;
        if let Err(error) = result {
            self.fail(index, Cause::Protocol(error.to_string()));
        }
    }

    fn on_control(&mut self, index: usize, control: Control) {
        if !self.clients[index].phase.is_upgraded() {
            return;
        }
        match control {
            Control::Ping(payload) => self.send_pong(index, &payload),
            Control::Close { code, reason } => self.fail(index, Cause::Closed { code, reason }),
            Control::Message(message) => self.on_message(index, &message),
        }
    }

    fn on_message(&mut self, index: usize, message: &Value) {
        let told = |name: &str| message[name].as_u64().map(Duration::from_millis);
        if message["type"] == "server_draining" {
            self.clients[index].not_before = told("reconnect_after_ms").and_then(in_future);
        }
        if self.clients[index].phase != Phase::Subscribing {
            return;
        }
        match message["type"].as_str() {
            Some("error") if message["code"] == "rate_limited" => {
                self.clients[index].is_rate_limited = true;
                self.set_timer(index, told("retry_after_ms").unwrap_or(self.settings.timeout));
            }
            Some("subscribed") => match message["rejected"].get(0) {
                None => self.on_subscribed(index),
                Some(rejection) => {
                    self.fail(index, Cause::SubscriptionRefused(rejection.to_string()));
                }
            },
            Some("error") => self.fail(index, Cause::SubscriptionRefused(message.to_string())),
            _ => {}
        }
    }

    /// More may have arrived than one turn reads, and epoll does not report it a second time.
    fn set_ready_again(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some(stream) = &mut client.stream else { return };
        let interest = mio::Interest::READABLE | mio::Interest::WRITABLE;
        let result = self.poll.registry().reregister(stream, mio::Token(index), interest);
        if result.is_err() {
            self.on_end(index);
        }
    }
}

fn take_frames(client: &mut Client, sink: &mut Sink, bytes: &[u8]) -> Result<(), ProtocolError> {
    let mut shared = sink.inflater.take();
    let Client { reader, inflater, checker, pace, is_deflated, .. } = client;
    let inflater = match (*is_deflated, inflater) {
        (false, _) => None,
        (true, Some(own)) => Some(&mut **own),
        (true, None) => shared.as_mut(),
    };
    let result = reader.read(bytes, &READ_LIMITS, inflater, &mut |incoming| {
        sink.on_incoming(incoming, checker, *pace)
    });
    sink.inflater = shared;
    result
}
