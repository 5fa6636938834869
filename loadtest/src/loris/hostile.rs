//! One hostile connection: what it sends, and how it ended.

use std::io::{self, Read as _, Write as _};
use std::time::Instant;

use mio::net::TcpStream;

use super::HostileSettings;
use crate::ws::frame::{FrameReader, Incoming, ReadLimits, put_frame};
use crate::ws::handshake::{self, Response};

/// The longest message that is read to its end.
const READ_LIMITS: ReadLimits = ReadLimits { message_bytes_max: 1 << 20 };

/// Bytes that a dribbled frame announces: at a byte a second it is never complete.
const FRAME_BYTES: u16 = 60_000;

const TEXT: u8 = 1;

/// What a hostile client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Sends the request head a byte a second.
    Head,
    /// Completes the upgrade, then sends a frame a byte a second.
    Frame,
    /// Connects, and sends nothing.
    Silent,
    /// Subscribes, and never reads: its receive window closes.
    Unread,
}

impl Kind {
    /// All, in the order of reports.
    pub const ALL: [Self; 4] = [Self::Head, Self::Frame, Self::Silent, Self::Unread];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Head => "head dribbled",
            Self::Frame => "frame dribbled",
            Self::Silent => "silent",
            Self::Unread => "unread",
        }
    }
}

/// The state of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    /// The request is out, or on its way byte by byte.
    Asking,
    /// The upgrade is complete; the hostile part has begun.
    Upgraded,
    Ended,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// `http_408`, `close_1008`, `closed`, `reset`, `protocol_error`.
    pub how: String,
    /// When it ended; `None` if that was seen only after the run.
    pub at: Option<Instant>,
}

/// One hostile client.
#[derive(Debug)]
pub struct Hostile {
    /// What it does.
    pub kind: Kind,
    /// When it began to connect.
    pub began: Instant,
    /// How the server ended it.
    pub end: Option<End>,
    phase: Phase,
    /// Set at the end of the run: even a client that never reads then reads what has arrived.
    is_over: bool,
    stream: TcpStream,
    key: String,
    head: Vec<u8>,
    reader: FrameReader,
    /// The close code or the HTTP status that came before the end.
    reason: Option<String>,
    /// The bytes that are dribbled, and how many of them are sent.
    dribble: (Vec<u8>, usize),
}

impl Hostile {
    /// Takes over a socket that is connecting.
    pub fn new(kind: Kind, stream: TcpStream, key: String, now: Instant) -> Self {
        Self {
            kind,
            began: now,
            end: None,
            phase: Phase::Connecting,
            is_over: false,
            stream,
            key,
            head: Vec::new(),
            reader: FrameReader::default(),
            reason: None,
            dribble: (Vec::new(), 0),
        }
    }

    /// Its socket, to be registered.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// The socket can be written: connected, if it was not yet.
    pub fn on_writable(&mut self, settings: &HostileSettings) {
        if self.phase != Phase::Connecting {
            return;
        }
        self.phase = Phase::Asking;
        let request = handshake::request(&settings.target, &self.key, false, None);
        match self.kind {
            Kind::Silent => {}
            Kind::Head => self.dribble = (request, 0),
            Kind::Frame | Kind::Unread => self.send(&request),
        }
    }

    /// A second has passed.
    pub fn on_second(&mut self) {
        let (bytes, sent) = &mut self.dribble;
        if let (true, Some(byte)) = (self.end.is_none(), bytes.get(*sent)) {
            *sent += usize::from(self.stream.write(&[*byte]).is_ok());
        }
    }

    /// The socket can be read. A client that never reads only checks whether it has ended.
    pub fn on_readable(&mut self, settings: &HostileSettings, is_over: bool) {
        let is_reading = self.kind != Kind::Unread || self.phase != Phase::Upgraded;
        if self.phase != Phase::Ended && (is_reading || is_over) {
            self.is_over = is_over;
            self.read(settings, Some(Instant::now()));
            if is_over && self.end.is_none() {
                self.ended("closed", Some(Instant::now()));
            }
        }
    }

    /// After the run: reads what the server had sent to a client that never read.
    pub fn read_last(&mut self, settings: &HostileSettings) {
        if self.kind == Kind::Unread && self.phase == Phase::Upgraded {
            self.is_over = true;
            self.read(settings, None);
            // With a close frame the server has ended the connection, though the socket exists.
            if self.end.is_none() && self.reason.is_some() {
                self.ended("closed", None);
            }
        }
    }

    fn read(&mut self, settings: &HostileSettings, at: Option<Instant>) {
        let mut buffer = [0; 16_384];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return self.ended("closed", at),
                Ok(count) => self.on_bytes(&buffer[..count], settings, at),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::Interrupted => {}
                    _ => return self.ended("reset", at),
                },
            }
            let is_unread = self.kind == Kind::Unread && self.phase == Phase::Upgraded;
            if self.phase == Phase::Ended || (is_unread && !self.is_over) {
                return;
            }
        }
    }

    fn on_bytes(&mut self, bytes: &[u8], settings: &HostileSettings, at: Option<Instant>) {
        if self.phase == Phase::Upgraded {
            return self.on_frames(bytes, at);
        }
        self.head.extend_from_slice(bytes);
        let head = std::mem::take(&mut self.head);
        match handshake::parse_response(&head, &self.key, false) {
            Ok(Response::Partial) => self.head = head,
            Ok(Response::Refused { status, .. }) => self.reason = Some(format!("http_{status}")),
            Ok(Response::Upgraded { head_bytes, .. }) => {
                self.phase = Phase::Upgraded;
                self.on_upgraded(settings);
                self.on_frames(&head[head_bytes..], at);
            }
            Err(_) => self.ended("protocol_error", at),
        }
    }

    fn on_upgraded(&mut self, settings: &HostileSettings) {
        match self.kind {
            Kind::Unread => {
                let mut frame = Vec::new();
                put_frame(&mut frame, TEXT, settings.subscribe.as_bytes(), [1, 2, 3, 4]);
                self.send(&frame);
            }
            _ => {
                let mut frame = vec![0x80 | TEXT, 0x80 | 126];
                frame.extend_from_slice(&FRAME_BYTES.to_be_bytes());
                frame.resize(frame.len() + 4 + usize::from(FRAME_BYTES), 0);
                self.dribble = (frame, 0);
            }
        }
    }

    fn on_frames(&mut self, bytes: &[u8], at: Option<Instant>) {
        let reason = &mut self.reason;
        let result = self.reader.read(bytes, &READ_LIMITS, None, &mut |incoming| {
            if let Incoming::Close(code, _) = incoming {
                *reason = Some(format!("close_{}", code.unwrap_or(1005)));
            }
            Ok(())
        });
        if result.is_err() {
            self.ended("protocol_error", at);
        }
    }

    fn ended(&mut self, how: &str, at: Option<Instant>) {
        self.phase = Phase::Ended;
        let how = self.reason.take().unwrap_or_else(|| how.to_owned());
        self.end.get_or_insert(End { how, at });
    }

    /// Requests and subscriptions are small; a new socket takes them whole.
    fn send(&mut self, bytes: &[u8]) {
        if !self.stream.write(bytes).is_ok_and(|count| count == bytes.len()) {
            self.ended("reset", Some(Instant::now()));
        }
    }
}
