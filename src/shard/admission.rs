//! The first bytes of a connection: the request head is collected and parsed, then one place
//! decides on the whole request.
//!
//! Bound: the head, see [`HEAD_BYTES_MAX`].

use super::Now;
use super::connection::{Connection, Handshake, State};
use super::drain::Phase;
use super::history::History;
use super::routes::{Route, find_route};
use super::settings::{Mode, ShardSettings};
use crate::feed::SourceStatus;
use crate::protocol::dialect::Dialect;
use crate::protocol::handshake::{self, HEAD_BYTES_MAX, Method, Request, Upgrade};
use crate::protocol::message::{ServerMessage, Welcome};
use crate::protocol::response::{Refusal, json_response};

/// What became of the bytes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// More have to come.
    Incomplete,
    /// The answer is queued, and the connection ends with it.
    Answered,
    /// A refusal is queued, and the connection ends with it.
    Refused,
    /// The response is queued, and frames follow from byte `frames_start` on.
    Opened { frames_start: usize },
}

/// What a request is answered with, if it is not refused.
#[derive(Debug)]
enum Admitted<'a> {
    /// The client becomes a connection.
    Connection(Upgrade<'a>),
    /// It is told this, and that is all.
    Probe(Vec<u8>),
}

/// The handshake of one connection.
#[derive(Debug)]
pub(super) struct Admission<'a> {
    pub connection: &'a mut Connection,
    pub settings: &'a ShardSettings,
    pub history: &'a History,
    pub phase: &'a Phase,
}

impl Admission<'_> {
    /// Takes in bytes of the request.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Verdict {
        let Some(handshake) = self.handshake() else { return Verdict::Incomplete };
        let peer = handshake.peer;
        let mut held = std::mem::take(&mut handshake.head);
        let held_bytes = held.len();
        if held_bytes > 0 {
            held.extend_from_slice(bytes);
        }
        // A head can only become complete with a line end, and garbage shows in the first bytes:
        // a client that dribbles does not have every byte parsed again.
        let is_to_be_parsed =
            held_bytes == 0 || bytes.contains(&b'\n') || held.len() >= HEAD_BYTES_MAX;
        // Most heads come in one piece, which needs no copy.
        let head = if held_bytes == 0 { bytes } else { &held[..] };
        let mut space = handshake::field_space();
        let parsed =
            if is_to_be_parsed { handshake::parse(head, peer, &mut space) } else { Ok(None) };
        match parsed {
            Ok(Some(request)) => self.answer(&request, held_bytes),
            Ok(None) => {
                if held_bytes == 0 {
                    held.extend_from_slice(bytes);
                }
                if let Some(handshake) = self.handshake() {
                    handshake.head = held;
                }
                Verdict::Incomplete
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// Queues what a client is told first.
    pub(super) fn welcome(&mut self, now: Now) {
        if matches!(self.settings.mode, Mode::Echo) {
            return;
        }
        let newest = self.history.newest_position();
        let limits = &self.settings.limits;
        self.connection.answer(&ServerMessage::Welcome(Welcome {
            connection_id: &self.settings.connection_name(self.connection.number),
            instance: &self.settings.instance,
            epoch: self.history.epoch(),
            pos: newest.pos.0,
            ts: newest.ts_ms,
            kept_per_channel: self.history.kept_per_channel(),
            server_time: now.unix_ms,
            heartbeat_interval_ms: limits.heartbeat_interval_ms,
            idle_timeout_ms: limits.idle_timeout_ms,
            limits: limits.client.for_welcome(),
        }));
        if self.history.source() != SourceStatus::Live {
            self.connection.answer(&self.history.source_message(now));
        }
    }

    fn handshake(&mut self) -> Option<&mut Handshake> {
        match &mut self.connection.state {
            State::Handshake(handshake) => Some(handshake),
            _ => None,
        }
    }

    /// Answers a whole request, of whose head `held_bytes` came before.
    fn answer(&mut self, request: &Request<'_>, held_bytes: usize) -> Verdict {
        match self.decide(request) {
            Ok(Admitted::Connection(upgrade)) => {
                let agreed = request.agree(self.settings.limits.compression);
                let batch_ms = self.settings.limits.client.batch_ms;
                self.connection.delivery.begin(Dialect { deflate: agreed.deflate() }, batch_ms);
                self.connection.delivery.answer(upgrade.accept(&agreed));
                let frames_start = request.head_bytes.saturating_sub(held_bytes);
                Verdict::Opened { frames_start }
            }
            Ok(Admitted::Probe(response)) => {
                self.connection.delivery.answer(response);
                Verdict::Answered
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn decide<'a>(&self, request: &Request<'a>) -> Result<Admitted<'a>, Refusal> {
        if request.method != Method::Get {
            return Err(Refusal::Method);
        }
        let route = match self.settings.mode {
            Mode::Echo => Route::Upgrade,
            Mode::Channels { .. } => find_route(request.path).ok_or(Refusal::NotFound)?,
        };
        match (route, request.upgrade()) {
            (Route::Upgrade, Ok(upgrade)) => {
                let limits = &self.settings.limits;
                let is_full = self.settings.census.total() >= limits.connections_max;
                if is_full { Err(Refusal::Full) } else { Ok(Admitted::Connection(upgrade)) }
            }
            (Route::Upgrade, Err(refusal)) => Err(refusal),
            // There is no WebSocket at the path of a probe.
            (Route::Health | Route::Ready, Ok(_)) => Err(Refusal::NotFound),
            (Route::Health, Err(_)) => {
                Ok(Admitted::Probe(json_response("200 OK", "", "{\"status\":\"ok\"}")))
            }
            (Route::Ready, Err(_)) => Ok(Admitted::Probe(self.readiness())),
        }
    }

    fn readiness(&self) -> Vec<u8> {
        let is_serving = matches!(self.phase, Phase::Serving);
        let is_ready = is_serving && self.history.source() == SourceStatus::Live;
        let status = if is_ready { "200 OK" } else { "503 Service Unavailable" };
        let draining = if is_serving { "" } else { "\"draining\":true," };
        let source = self.history.source().as_str();
        let body = format!("{{\"ready\":{is_ready},{draining}\"source\":\"{source}\"}}");
        json_response(status, "", &body)
    }

    fn refuse(&mut self, refusal: Refusal) -> Verdict {
        self.connection.delivery.answer(refusal.response());
        Verdict::Refused
    }
}
