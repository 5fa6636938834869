//! The first bytes of a connection: the request head, and what it is answered with.

use super::connection::State;
use super::drain::Phase;
use super::engine::{Mode, Shard};
use super::id::ConnId;
use super::{Now, Wire};
use crate::feed::SourceStatus;
use crate::protocol::handshake::{self, Head};
use crate::protocol::message::{ServerMessage, Welcome};
use crate::protocol::response::{Refusal, json_response};

impl Shard {
    pub(super) fn receive_head(
        &mut self,
        id: ConnId,
        bytes: &mut [u8],
        now: Now,
        wire: &mut impl Wire,
    ) {
        let compression = self.settings.limits.compression;
        let Some(connection) = self.find(id) else { return };
        let State::Handshake { head } = &mut connection.state else { return };
        let is_first = head.is_empty();
        let before = head.len();
        head.extend_from_slice(bytes);
        // A head can only become complete with a line end, and garbage shows in the first bytes:
        // a client that dribbles does not have every byte parsed again.
        if !is_first && !bytes.contains(&b'\n') && head.len() < handshake::HEAD_BYTES_MAX {
            return;
        }
        match handshake::parse(head, compression) {
            Ok(None) => {}
            Ok(Some(Head::Upgrade { head_bytes, path, response, deflate })) => {
                let frames_start = head_bytes - before.min(head_bytes);
                connection.deflate = deflate;
                self.upgrade(id, &path, response, now);
                if self.find(id).is_some_and(|connection| connection.is_open()) {
                    self.flush(id, wire);
                    self.receive(id, &mut bytes[frames_start..], now, wire);
                }
            }
            Ok(Some(Head::Get { path, refusal })) => self.probe(id, &path, refusal, now),
            Err(refusal) => self.refuse(id, refusal, now),
        }
    }

    fn upgrade(&mut self, id: ConnId, path: &str, response: Vec<u8>, now: Now) {
        let is_known_path = path == "/ws" || matches!(self.settings.mode, Mode::Echo);
        if !is_known_path {
            return self.refuse(id, Refusal::NotFound, now);
        }
        if self.settings.census.total() >= self.settings.limits.connections_max {
            return self.refuse(id, Refusal::Full, now);
        }
        self.queue(id, response);
        self.open(id, now);
        if matches!(self.settings.mode, Mode::Channels { .. }) {
            self.welcome(id, now);
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

    fn probe(&mut self, id: ConnId, path: &str, refusal: Refusal, now: Now) {
        if matches!(self.settings.mode, Mode::Echo) {
            return self.refuse(id, refusal, now);
        }
        let response = match path {
            "/health" => json_response("200 OK", "", "{\"status\":\"ok\"}"),
            "/ready" => self.readiness(),
            "/ws" => return self.refuse(id, refusal, now),
            _ => return self.refuse(id, Refusal::NotFound, now),
        };
        self.queue(id, response);
        self.finish(id, now);
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
