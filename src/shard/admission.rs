//! The first bytes of a connection: the request head, and what it is answered with.

use super::Now;
use super::connection::{Connection, State};
use super::drain::Phase;
use super::history::History;
use super::settings::{Mode, ShardSettings};
use crate::feed::SourceStatus;
use crate::protocol::dialect::Dialect;
use crate::protocol::handshake::{self, Head, Refusal, json_response};
use crate::protocol::message::{ServerMessage, Welcome};

/// What became of the bytes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// More have to come.
    Incomplete,
    /// The answer is queued, and the connection ends with it.
    Answered,
    /// So is a refusal.
    Refused,
    /// The response is queued, and frames follow from this byte on.
    Opened { frames_start: usize, dialect: Dialect },
}

/// The handshake of one connection.
#[derive(Debug)]
pub struct Admission<'a> {
    pub connection: &'a mut Connection,
    pub settings: &'a ShardSettings,
    pub history: &'a History,
    pub phase: &'a Phase,
}

impl Admission<'_> {
    /// Takes in bytes of the request.
    pub fn receive(&mut self, bytes: &mut [u8]) -> Verdict {
        let State::Handshake { head } = &mut self.connection.state else {
            return Verdict::Incomplete;
        };
        let is_first = head.is_empty();
        let before = head.len();
        head.extend_from_slice(bytes);
        // A head can only become complete with a line end, and garbage shows in the first bytes:
        // a client that dribbles does not have every byte parsed again.
        if !is_first && !bytes.contains(&b'\n') && head.len() < handshake::HEAD_BYTES_MAX {
            return Verdict::Incomplete;
        }
        match handshake::parse(head, self.settings.limits.compression) {
            Ok(None) => Verdict::Incomplete,
            Ok(Some(Head::Upgrade { head_bytes, path, response, deflate })) => {
                let frames_start = head_bytes - before.min(head_bytes);
                self.upgrade(&path, response, frames_start, Dialect { deflate })
            }
            Ok(Some(Head::Get { path, refusal })) => self.probe(&path, refusal),
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// Queues what a client is told first.
    pub fn welcome(&mut self, now: Now) {
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
            server_time: now.unix_ms,
            heartbeat_interval_ms: limits.heartbeat_interval_ms,
            idle_timeout_ms: limits.idle_timeout_ms,
            limits: limits.client.for_welcome(),
        }));
        if self.history.source() != SourceStatus::Live {
            self.connection.answer(&self.history.source_message(now));
        }
    }

    fn upgrade(
        &mut self,
        path: &str,
        response: Vec<u8>,
        frames_start: usize,
        dialect: Dialect,
    ) -> Verdict {
        let is_known_path = path == "/ws" || matches!(self.settings.mode, Mode::Echo);
        if !is_known_path {
            return self.refuse(Refusal::NotFound);
        }
        if self.settings.census.total() >= self.settings.limits.connections_max {
            return self.refuse(Refusal::Full);
        }
        self.connection.delivery.answer(response);
        Verdict::Opened { frames_start, dialect }
    }

    fn probe(&mut self, path: &str, refusal: Refusal) -> Verdict {
        if matches!(self.settings.mode, Mode::Echo) {
            return self.refuse(refusal);
        }
        let response = match path {
            "/health" => json_response("200 OK", "", "{\"status\":\"ok\"}"),
            "/ready" => self.readiness(),
            "/ws" => return self.refuse(refusal),
            _ => return self.refuse(Refusal::NotFound),
        };
        self.connection.delivery.answer(response);
        Verdict::Answered
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
