//! One instance: its source, the real queue, and a real shard with sockets that take everything.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::driver::Driver;
use crate::channel::Pattern;
use crate::feed::{Feed, FeedReceiver, feed};
use crate::protocol::extension::Compression;
use crate::shard::{Census, ClientLimits, ConnId, Limits, Mode, Now, Shard, ShardSettings, Wire};

/// Items of the queue: a shard that takes nothing is given up soon.
const QUEUE_ITEMS: usize = 9;

/// Items taken at once.
const ITEMS_PER_TURN: usize = 64;

const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 50_000);

const REQUEST: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// Sockets that take everything.
#[derive(Debug, Default)]
struct Sockets {
    sent: Vec<(ConnId, Vec<u8>)>,
}

impl Wire for Sockets {
    fn send(&mut self, id: ConnId, bytes: &[u8]) -> std::io::Result<usize> {
        match self.sent.iter_mut().find(|(it, _)| *it == id) {
            Some((_, sent)) => sent.extend_from_slice(bytes),
            None => self.sent.push((id, bytes.to_vec())),
        }
        Ok(bytes.len())
    }

    fn blocked(&mut self, _: ConnId) {}

    fn resume(&mut self, _: ConnId) {}

    fn finish(&mut self, _: ConnId) {}

    fn abort(&mut self, _: ConnId) {}
}

/// An instance.
#[derive(Debug)]
pub(super) struct Instance {
    pub driver: Driver,
    queue: FeedReceiver,
    shard: Shard,
    wire: Sockets,
    now: Now,
    pending: VecDeque<Feed>,
    /// Its shard takes nothing from the queue.
    pub is_stuck: bool,
}

impl Instance {
    pub(super) fn new(is_durable: bool, log_messages: usize) -> Self {
        let (sender, queue) = feed(QUEUE_ITEMS);
        let now = Now { monotonic_us: 1_000_000, unix_ms: 1_700_000_000_000 };
        let settings = ShardSettings {
            shard: 0,
            instance: "model".into(),
            mode: Mode::Channels { allowed: Arc::new([Pattern::parse("t.>", 256).unwrap()]) },
            limits: limits(log_messages),
            census: Census::new(1),
        };
        Self {
            driver: Driver::new(sender, is_durable),
            queue,
            shard: Shard::new(settings, now),
            wire: Sockets::default(),
            now,
            pending: VecDeque::new(),
            is_stuck: false,
        }
    }

    pub(super) fn connect(&mut self) -> ConnId {
        let id = self.shard.accept(PEER, self.now);
        self.shard.receive(id, &mut REQUEST.to_vec(), self.now, &mut self.wire);
        id
    }

    pub(super) fn disconnect(&mut self, id: ConnId) {
        self.shard.lost(id);
        self.wire.sent.retain(|(it, _)| *it != id);
    }

    /// A client sends a command.
    pub(super) fn command(&mut self, id: ConnId, text: &str) {
        let length = text.len() as u16;
        let mut frame = match length {
            0..126 => vec![0x81, 0x80 | length as u8],
            _ => vec![0x81, 0x80 | 126, (length >> 8) as u8, length as u8],
        };
        // Masked with zeros.
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(text.as_bytes());
        self.shard.receive(id, &mut frame, self.now, &mut self.wire);
        self.turn();
    }

    /// The shard takes what is queued, unless it is stuck, and sends what that causes.
    pub(super) fn turn(&mut self) {
        if !self.is_stuck {
            while self.queue.take(&mut self.pending, ITEMS_PER_TURN) > 0 {}
        }
        loop {
            self.shard.publish(&mut self.pending, self.now, &mut self.wire);
            let has_more = self.shard.step(64, self.now, &mut self.wire);
            if !has_more && self.pending.is_empty() {
                break;
            }
        }
    }

    /// Time passes.
    pub(super) fn pass(&mut self, ms: u64) {
        self.now.monotonic_us += ms * 1_000;
        self.now.unix_ms += ms;
        self.driver.pass(ms);
        self.shard.tick(self.now);
        self.turn();
    }

    /// What was sent since the last call.
    pub(super) fn sent(&mut self) -> Vec<(ConnId, Vec<u8>)> {
        std::mem::take(&mut self.wire.sent)
    }
}

fn limits(log_messages: usize) -> Limits {
    Limits {
        client: ClientLimits {
            message_bytes: 65_536,
            commands_per_second: 1_000_000,
            channels: 1_024,
            channel_bytes: 256,
            replay_messages: 200,
            queue_messages: 256,
            queue_bytes: 1 << 20,
            batch_ms: 0,
            resume_messages: 6_000,
        },
        connection_budget_bytes: 1 << 26,
        connections_max: 1_000,
        compression: Compression::Off,
        deflate_bytes_min: 1 << 20,
        inflate_ratio_max: 200,
        handshake_timeout_ms: 1_000_000_000,
        heartbeat_interval_ms: 1_000_000_000,
        idle_timeout_ms: 2_000_000_000,
        connection_age_ms: 0,
        close_timeout_ms: 5_000,
        log_messages,
        log_bytes: 1 << 20,
        log_ms: 1_000_000_000,
    }
}
