//! The first bytes of a connection: the request head is collected and parsed, then one place
//! decides on the whole request, and another does what was decided.
//!
//! Bound: the head, see [`HEAD_BYTES_MAX`].

use super::connection::{Handshake, State};
use super::drain::Phase;
use super::engine::{Mode, Shard};
use super::id::ConnId;
use super::routes::{Route, find_route};
use super::{Now, Wire};
use crate::feed::SourceStatus;
use crate::protocol::handshake::{self, HEAD_BYTES_MAX, Method, Request, Upgrade};
use crate::protocol::message::{ServerMessage, Welcome};
use crate::protocol::response::{Refusal, json_response};

/// What a request is answered with, if it is not refused.
#[derive(Debug)]
enum Admission<'a> {
    /// The client becomes a connection.
    Connection(Upgrade<'a>),
    /// It is told this, and that is all.
    Probe(Vec<u8>),
}

impl Shard {
    pub(super) fn receive_head(
        &mut self,
        id: ConnId,
        bytes: &mut [u8],
        now: Now,
        wire: &mut impl Wire,
    ) {
        let Some(handshake) = self.handshake(id) else { return };
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
        let head = if held_bytes == 0 { &*bytes } else { &held[..] };
        let mut space = handshake::field_space();
        let parsed =
            if is_to_be_parsed { handshake::parse(head, peer, &mut space) } else { Ok(None) };
        let head_bytes = match parsed {
            Ok(Some(request)) => {
                self.answer_request(id, &request, now);
                request.head_bytes
            }
            Ok(None) => {
                if held_bytes == 0 {
                    held.extend_from_slice(bytes);
                }
                if let Some(handshake) = self.handshake(id) {
                    handshake.head = held;
                }
                return;
            }
            Err(refusal) => return self.refuse(id, refusal, now),
        };
        if self.find(id).is_some_and(|connection| connection.is_open()) {
            self.flush(id, wire);
            let frames_start = head_bytes.saturating_sub(held_bytes);
            self.receive(id, &mut bytes[frames_start..], now, wire);
        }
    }

    fn handshake(&mut self, id: ConnId) -> Option<&mut Handshake> {
        match &mut self.find(id)?.state {
            State::Handshake(handshake) => Some(handshake),
            _ => None,
        }
    }

    fn answer_request(&mut self, id: ConnId, request: &Request<'_>, now: Now) {
        match self.decide(request) {
            Ok(Admission::Connection(upgrade)) => {
                let agreed = request.agree(self.settings.limits.compression);
                self.queue(id, upgrade.accept(&agreed));
                if let Some(connection) = self.find(id) {
                    connection.deflate = agreed.deflate();
                }
                self.open(id, now);
                if matches!(self.settings.mode, Mode::Channels { .. }) {
                    self.welcome(id, now);
                }
            }
            Ok(Admission::Probe(response)) => {
                self.queue(id, response);
                self.finish(id, now);
            }
            Err(refusal) => self.refuse(id, refusal, now),
        }
    }

    fn decide<'a>(&self, request: &Request<'a>) -> Result<Admission<'a>, Refusal> {
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
                if is_full { Err(Refusal::Full) } else { Ok(Admission::Connection(upgrade)) }
            }
            (Route::Upgrade, Err(refusal)) => Err(refusal),
            // There is no WebSocket at the path of a probe.
            (Route::Health | Route::Ready, Ok(_)) => Err(Refusal::NotFound),
            (Route::Health, Err(_)) => {
                Ok(Admission::Probe(json_response("200 OK", "", "{\"status\":\"ok\"}")))
            }
            (Route::Ready, Err(_)) => Ok(Admission::Probe(self.readiness())),
        }
    }

    fn welcome(&mut self, id: ConnId, now: Now) {
        let name = self.connection_name(id);
        let newest = self.log.newest();
        let limits = &self.settings.limits;
        let frame = ServerMessage::Welcome(Welcome {
            connection_id: &name,
            instance: &self.settings.instance,
            epoch: self.epoch.as_ref().map(|epoch| &*epoch.0),
            pos: newest.pos.0,
            ts: newest.ts_ms,
            server_time: now.unix_ms,
            heartbeat_interval_ms: limits.heartbeat_interval_ms,
            idle_timeout_ms: limits.idle_timeout_ms,
            limits: limits.client.for_welcome(),
        })
        .to_frame();
        self.queue(id, frame);
        if self.source != SourceStatus::Live {
            let frame = self.source_frame(now);
            self.queue(id, frame);
        }
    }

    /// The connection's public name: instance, shard and running number.
    pub(super) fn connection_name(&mut self, id: ConnId) -> String {
        let number = self.find(id).map_or(0, |connection| connection.number);
        format!("{}-{}-{number}", self.settings.instance, self.settings.shard)
    }

    fn readiness(&self) -> Vec<u8> {
        let is_serving = matches!(self.phase, Phase::Serving);
        let is_ready = is_serving && self.source == SourceStatus::Live;
        let status = if is_ready { "200 OK" } else { "503 Service Unavailable" };
        let draining = if is_serving { "" } else { "\"draining\":true," };
        let source = self.source.as_str();
        let body = format!("{{\"ready\":{is_ready},{draining}\"source\":\"{source}\"}}");
        json_response(status, "", &body)
    }

    fn refuse(&mut self, id: ConnId, refusal: Refusal, now: Now) {
        self.stats.refused += 1;
        self.queue(id, refusal.response());
        self.finish(id, now);
    }
}
