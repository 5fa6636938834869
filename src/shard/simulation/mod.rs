//! A shard with simulated sockets, for tests.
//!
//! ```text
//! world   a seeded run of many clients against a model
//! drive   what drives the shard: bytes, time, sockets
//! client  what one of them asked for and has seen
//! bounds  attempts to break the bounds on memory
//! cases   single behaviours, one test each
//! drain   those of clients that leave
//! resume  those of clients that come back
//! silence those of clients that say nothing
//! ```

mod bounds;
mod cases;
mod client;
mod drain;
mod drive;
mod losses;
mod resume;
mod silence;
mod world;

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::collections::{BTreeSet, HashMap};
use std::io;

use super::census::Census;
use super::engine::Shard;
use super::limits::Limits;
use super::settings::{Mode, ShardSettings};
use super::{ConnId, Now, Wire};
use crate::channel::Pattern;
use crate::protocol::extension::Compression;
use crate::protocol::frame::apply_mask;
use crate::shard::limits::ClientLimits;

/// Where clients connect from.
pub(super) const PEER: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 50_000);

/// The default bounds, for tests of the parts.
pub(super) fn limits() -> Limits {
    Limits {
        client: ClientLimits {
            message_bytes: 65_536,
            commands_per_second: 50,
            channels: 1_024,
            channel_bytes: 256,
            replay_messages: 100,
            queue_messages: 256,
            queue_bytes: 262_144,
            batch_ms: 0,
            resume_messages: 6_000,
        },
        connection_budget_bytes: 716_800,
        connections_max: 1_000,
        compression: Compression::Deflate,
        deflate_bytes_min: 128,
        inflate_ratio_max: 200,
        handshake_timeout_ms: 10_000,
        heartbeat_interval_ms: 25_000,
        idle_timeout_ms: 60_000,
        connection_age_ms: 0,
        close_timeout_ms: 5_000,
        log_messages: 1_000,
        log_bytes: 1 << 20,
        log_ms: 120_000,
    }
}

pub(super) fn shard(limits: Limits) -> Shard {
    let mode = Mode::Channels { allowed: [Pattern::parse("t.>", 256).unwrap()].into() };
    let census = Census::new(1);
    let settings = ShardSettings { shard: 0, instance: "sim".into(), mode, limits, census };
    Shard::new(settings, Now::default())
}

/// Sockets that take only so many bytes.
#[derive(Debug, Default)]
struct Sockets {
    sent: HashMap<ConnId, Vec<u8>>,
    room: HashMap<ConnId, usize>,
    blocked: BTreeSet<(u32, u32)>,
    gone: HashMap<ConnId, &'static str>,
    broken: BTreeSet<(u32, u32)>,
    /// What clients sent that the shard did not want to read yet.
    unread: HashMap<ConnId, Vec<u8>>,
    /// Those that it wants to read again.
    resumed: Vec<ConnId>,
}

impl Wire for Sockets {
    fn send(&mut self, id: ConnId, offered: &[u8]) -> io::Result<usize> {
        if self.broken.contains(&(id.index, id.generation)) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let room = self.room.entry(id).or_insert(usize::MAX);
        assert!(!offered.is_empty(), "an empty send");
        let count = offered.len().min(*room);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        *room -= if *room == usize::MAX { 0 } else { count };
        self.sent.entry(id).or_default().extend_from_slice(&offered[..count]);
        Ok(count)
    }

    fn blocked(&mut self, id: ConnId) {
        assert!(self.blocked.insert((id.index, id.generation)), "blocked twice");
    }

    fn resume(&mut self, id: ConnId) {
        self.resumed.push(id);
    }

    fn finish(&mut self, id: ConnId) {
        assert!(self.gone.insert(id, "finished").is_none());
    }

    fn abort(&mut self, id: ConnId) {
        self.gone.insert(id, "aborted");
    }
}

pub(super) const REQUEST: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

pub(super) fn client_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut out = vec![0x80 | opcode, 0x80 | 126];
    if payload.len() < 126 {
        out[1] = 0x80 | payload.len() as u8;
    } else {
        out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    }
    out.extend_from_slice(&mask);
    let mut payload = payload.to_vec();
    apply_mask(&mut payload, mask, 0);
    out.extend(payload);
    out
}
