//! One client: its connection's state, from waiting for its turn to subscribed.

use std::time::Instant;

use mio::net::TcpStream;

use super::check::Checker;
use crate::ws::deflate::Inflater;
use crate::ws::frame::FrameReader;
use crate::ws::tls::TlsClient;

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The client waits for its turn, or until it tries again.
    Waiting,
    /// The SYN is sent.
    Connecting,
    /// TLS or the HTTP upgrade is under way.
    Upgrading,
    /// The connection is upgraded and waits for the answer to `subscribe`.
    Subscribing,
    /// Subscribed.
    Open,
    /// The client has used all its attempts.
    GivenUp,
}

impl Phase {
    /// Whether the WebSocket connection is open.
    pub fn is_upgraded(self) -> bool {
        matches!(self, Self::Subscribing | Self::Open)
    }

    /// Whether there is a socket that is not upgraded yet.
    pub fn is_under_way(self) -> bool {
        matches!(self, Self::Connecting | Self::Upgrading)
    }
}

/// How a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Everything at once.
    Full,
    /// This many bytes at each tick.
    Slow(usize),
    /// Nothing after the acknowledgement.
    Stalled,
}

/// One simulated user.
#[derive(Debug)]
pub struct Client {
    pub phase: Phase,
    pub pace: Pace,
    pub stream: Option<TcpStream>,
    pub tls: Option<Box<TlsClient>>,
    /// Present only if the server keeps its compression context between messages.
    pub inflater: Option<Box<Inflater>>,
    pub is_deflated: bool,
    pub reader: FrameReader,
    pub checker: Checker,
    /// The response head while it is incomplete.
    pub head: Vec<u8>,
    /// Bytes that the socket has not taken yet.
    pub unsent: Vec<u8>,
    pub key: String,
    pub began: Instant,
    /// Attempts since the last connection that lasted.
    pub attempts: u32,
    /// When the server wants it back: `server_draining` or `Retry-After`.
    pub not_before: Option<Instant>,
    /// Nothing has come since this heartbeat.
    pub asked: Option<Instant>,
    /// `subscribe` was refused for its rate: the timer says when to send it again.
    pub is_rate_limited: bool,
    /// The stamp of the client's newest timer; older timers are ignored.
    pub stamp: u32,
    pub has_succeeded: bool,
}

impl Client {
    /// A client that waits.
    pub fn new(pace: Pace, now: Instant) -> Self {
        Self {
            phase: Phase::Waiting,
            pace,
            stream: None,
            tls: None,
            inflater: None,
            is_deflated: false,
            reader: FrameReader::default(),
            checker: Checker::default(),
            head: Vec::new(),
            unsent: Vec::new(),
            key: String::new(),
            began: now,
            attempts: 0,
            not_before: None,
            asked: None,
            is_rate_limited: false,
            stamp: 0,
            has_succeeded: false,
        }
    }

    /// Forgets the connection; the socket closes.
    pub fn forget_connection(&mut self) {
        self.stream = None;
        self.tls = None;
        self.inflater = None;
        self.is_deflated = false;
        self.reader = FrameReader::default();
        self.checker.on_lost();
        self.head = Vec::new();
        self.unsent = Vec::new();
        self.asked = None;
        self.is_rate_limited = false;
        self.stamp = self.stamp.wrapping_add(1);
    }
}
