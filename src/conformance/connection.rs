//! One connection of the client under test: what it sends is read in small steps, and what no
//! script asks about is answered as the server would.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Error, Message, WebSocket};

use super::message::{At, Event, Subscribe, channel_of};

/// One look at the socket takes at most this long.
const STEP: Duration = Duration::from_millis(10);

/// A request head must be complete after this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of the longest message of a client; the server takes less.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Commands that wait for the script; a client that sends more is answered no more.
const INBOX_MAX: usize = 1_024;

/// What a heartbeat is answered with.
#[derive(Debug, Clone)]
pub(super) enum Heartbeats {
    /// No `position`.
    Bare,
    /// This one.
    Position(At),
}

pub(super) struct Connection {
    socket: WebSocket<TcpStream>,
    is_open: bool,
    /// Subscriptions that the script has to answer.
    inbox: VecDeque<Subscribe>,
    /// The answer that further subscriptions get, but for their channels and `id`.
    answer: Option<Value>,
    channels: Vec<String>,
    heartbeats: Heartbeats,
    /// Heartbeats answered.
    pub heartbeats_total: u64,
    /// `subscribe` commands read.
    pub subscribes_total: u64,
    /// Events by `seq` that a `replay` can have again.
    pub held: BTreeMap<u64, String>,
    /// Replays that were answered with events.
    pub replays_total: u64,
    pongs: Vec<Vec<u8>>,
    seq: u64,
    newest: u64,
}

impl Connection {
    /// The WebSocket upgrade; `None` if the request is another one, or not complete in time.
    pub(super) fn upgrade(stream: TcpStream) -> Option<Self> {
        stream.set_nonblocking(false).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT)).ok()?;
        stream.set_write_timeout(Some(HANDSHAKE_TIMEOUT)).ok()?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let socket = tungstenite::accept_with_config(stream, Some(config)).ok()?;
        socket.get_ref().set_read_timeout(Some(STEP)).ok()?;
        Some(Self {
            socket,
            is_open: true,
            inbox: VecDeque::new(),
            answer: None,
            channels: Vec::new(),
            heartbeats: Heartbeats::Bare,
            heartbeats_total: 0,
            subscribes_total: 0,
            held: BTreeMap::new(),
            replays_total: 0,
            pongs: Vec::new(),
            seq: 0,
            newest: 0,
        })
    }

    /// Whether the client has kept the connection until now.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(super) fn set_heartbeats(&mut self, heartbeats: Heartbeats) {
        self.heartbeats = heartbeats;
    }

    pub(super) fn take_subscribe(&mut self) -> Option<Subscribe> {
        self.inbox.pop_front()
    }

    /// Whether a ping with this payload was answered.
    pub(super) fn has_ponged(&self, payload: &[u8]) -> bool {
        self.pongs.iter().any(|pong| pong == payload)
    }

    /// Looks at the socket once: takes one message in, and answers what needs no script.
    pub(super) fn step(&mut self) {
        if !self.is_open {
            return std::thread::sleep(STEP);
        }
        match self.socket.read() {
            Ok(Message::Text(text)) => match serde_json::from_str(&text) {
                Ok(command) => self.on_command(&command),
                Err(_) => self.say(&error("invalid_json", None)),
            },
            Ok(Message::Pong(payload)) => {
                self.pongs.truncate(INBOX_MAX);
                self.pongs.push(payload.to_vec());
            }
            Ok(Message::Close(_)) => self.is_open = false,
            Ok(_) => {}
            Err(Error::Io(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => self.is_open = false,
        }
    }

    fn on_command(&mut self, command: &Value) {
        let id = command.get("id");
        match command["type"].as_str() {
            Some("subscribe") => match Subscribe::read(command) {
                None => self.say(&error("invalid_command", id)),
                Some(subscribe) => self.on_subscribe(subscribe),
            },
            Some("heartbeat") => {
                self.heartbeats_total += 1;
                let mut answer = json!({"type": "heartbeat", "server_time": now_ms()});
                if let Heartbeats::Position(at) = &self.heartbeats {
                    answer["position"] = at.json();
                }
                if let Some(ts) = command.get("ts") {
                    answer["ts"] = ts.clone();
                }
                self.say_with_id(answer, id);
            }
            Some("replay") => self.on_replay(command),
            Some("unsubscribe") => {
                let answer = json!({"type": "unsubscribed", "channels": command["channels"],
                    "rejected": [], "total": 0});
                self.say_with_id(answer, id);
            }
            Some("batch") => {
                self.say_with_id(json!({"type": "batch", "ms": command["ms"]}), id);
            }
            Some("subscriptions") => {
                let total = self.channels.len();
                let channels = &self.channels;
                let answer = json!({"type": "subscriptions", "channels": channels, "total": total});
                self.say_with_id(answer, id);
            }
            Some("connection:status") => {
                let answer = json!({"type": "connection:status", "connection_id": "kit",
                    "connected_clients": 1, "latency_ms": null, "last_seq": self.seq,
                    "subscriptions": self.channels.len(), "source": "live",
                    "server_time": now_ms()});
                self.say_with_id(answer, id);
            }
            _ => self.say(&error("unknown_type", id)),
        }
    }

    fn on_subscribe(&mut self, subscribe: Subscribe) {
        self.subscribes_total += 1;
        self.channels.extend(subscribe.channels.iter().cloned());
        self.channels.truncate(INBOX_MAX);
        match self.answer.clone() {
            None if self.inbox.len() < INBOX_MAX => self.inbox.push_back(subscribe),
            None => {}
            Some(mut answer) => {
                if answer["pos"].as_u64().is_some_and(|pos| pos < self.newest) {
                    answer["pos"] = self.newest.into();
                    answer["ts"] = super::message::store_time(self.newest).into();
                }
                self.send_answer(&subscribe, answer);
            }
        }
    }

    fn on_replay(&mut self, command: &Value) {
        let [from, to] = ["from_seq", "to_seq"].map(|name| command[name].as_u64().unwrap_or(0));
        let id = command.get("id");
        let count = to.saturating_sub(from) + 1;
        let texts: Vec<String> =
            self.held.range(from..to.max(from) + 1).map(|(_, text)| text.clone()).collect();
        if from > to || texts.len() as u64 != count {
            let mut answer = error("range_not_available", id);
            answer["first_seq"] = self.held.keys().next().copied().unwrap_or(0).into();
            answer["last_seq"] = self.held.keys().last().copied().unwrap_or(0).into();
            return self.say(&answer);
        }
        self.replays_total += 1;
        let answer = json!({"type": "replay", "from_seq": from, "to_seq": to, "count": count});
        self.say_with_id(answer, id);
        texts.into_iter().for_each(|text| self.say_text(text));
    }

    /// Answers a `subscribe`; `answer` is without type, channels and `id`.
    pub(super) fn answer(&mut self, subscribe: &Subscribe, answer: Value) {
        self.send_answer(subscribe, answer.clone());
        self.newest = self.newest.max(answer["pos"].as_u64().unwrap_or(0));
        self.answer = Some(answer);
        // A client may subscribe in several commands at once.
        while let Some(next) = self.inbox.pop_front() {
            let answer = self.answer.clone().unwrap_or_default();
            self.send_answer(&next, answer);
        }
    }

    fn send_answer(&mut self, subscribe: &Subscribe, mut answer: Value) {
        answer["type"] = "subscribed".into();
        if answer["channels"].is_null() {
            answer["channels"] = json!(subscribe.channels);
            answer["rejected"] = json!([]);
        }
        answer["total"] = self.channels.len().into();
        if subscribe.resume.is_none() {
            answer.as_object_mut().map(|members| members.remove("recovered"));
            answer.as_object_mut().map(|members| members.remove("resume"));
        }
        if subscribe.wants_snapshot && answer["recovered"] != true {
            answer["snapshot"] = json!({"messages": 0, "complete": true});
        }
        self.say_with_id(answer, subscribe.id.as_ref());
    }

    /// Sends the next event on the client's first channel, of the type that trades have.
    pub(super) fn event(&mut self, pos: u64, prev: u64) {
        self.event_as("token_trade", (pos, prev), "");
    }

    /// Sends the next event.
    pub(super) fn event_as(&mut self, kind: &str, position: (u64, u64), further: &str) {
        let text = self.next_event(kind, position, further);
        self.say_text(text);
    }

    /// The next event, unsent.
    pub(super) fn next_event(
        &mut self,
        kind: &str,
        (pos, prev): (u64, u64),
        further: &str,
    ) -> String {
        self.seq += 1;
        self.newest = self.newest.max(pos);
        let channel = channel_of(self.channels.first().map_or("kit", String::as_str));
        Event { seq: self.seq, kind, channel: &channel, pos, prev, further }.text()
    }

    pub(super) fn say(&mut self, message: &Value) {
        self.say_text(message.to_string());
    }

    fn say_with_id(&mut self, mut message: Value, id: Option<&Value>) {
        if let Some(id) = id {
            message["id"] = id.clone();
        }
        self.say(&message);
    }

    pub(super) fn say_text(&mut self, text: String) {
        self.send(Message::text(text));
    }

    /// Sends a text in as many frames as it has parts, with a ping before the last.
    pub(super) fn say_in_parts(&mut self, text: &str, parts: usize) {
        let bytes = text.as_bytes();
        let length = bytes.len().div_ceil(parts);
        for (number, part) in bytes.chunks(length).enumerate() {
            let opcode = if number == 0 { Data::Text } else { Data::Continue };
            let is_last = (number + 1) * length >= bytes.len();
            if is_last {
                self.ping(b"between two fragments");
                let empty = Frame::message(Vec::new(), OpCode::Data(Data::Continue), false);
                self.send(Message::Frame(empty));
            }
            let frame = Frame::message(part.to_vec(), OpCode::Data(opcode), is_last);
            self.send(Message::Frame(frame));
        }
    }

    pub(super) fn ping(&mut self, payload: &[u8]) {
        self.send(Message::Ping(payload.to_vec().into()));
    }

    fn send(&mut self, message: Message) {
        if self.is_open && self.socket.send(message).is_err() {
            self.is_open = false;
        }
    }

    /// Sends a close frame, gives the client a moment to answer it, and ends the connection.
    pub(super) fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
        if self.socket.close(Some(frame)).is_ok() {
            for _ in 0..50 {
                if !self.is_open {
                    break;
                }
                self.step();
            }
        }
        self.cut();
    }

    /// Ends the connection without a close frame.
    pub(super) fn cut(self) {
        // A connection that the client has ended already cannot be shut down.
        self.socket.get_ref().shutdown(Shutdown::Both).unwrap_or_default();
    }
}

/// Answers an upgrade with 503.
pub(super) fn refuse(mut stream: TcpStream, retry_after_s: u64) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
    let mut head = Vec::new();
    let mut buffer = [0; 1_024];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") && head.len() < 16_384 {
        match stream.read(&mut buffer)? {
            0 => break,
            count => head.extend_from_slice(&buffer[..count]),
        }
    }
    let body = r#"{"error":"too_many_connections","message":"the connection limit is reached"}"#;
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {retry_after_s}\r\nContent-Type: \
         application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    // At once: a client may end the connection as soon as it has read the head.
    stream.write_all(answer.as_bytes())
}

fn error(code: &str, id: Option<&Value>) -> Value {
    let mut answer = json!({"type": "error", "code": code, "message": "says the conformance kit"});
    if let Some(id) = id {
        answer["id"] = id.clone();
    }
    answer
}

/// The time of day, milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
