//! A small client that keeps the rules of docs/client-guide.md, but for the fault that it is given.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Error, HandshakeError, Message, WebSocket};

/// What the client does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    NeverConnects,
    NeverSubscribes,
    NeverResumes,
    /// It closes the connection after the first event.
    Leaves,
    NeverComesBack,
    /// It resumes with another message's store time.
    StoreTimeOfWelcome,
    NoPong,
    LeavesUnknown,
    /// It tells messages by `type`.
    ByType,
    ThroughHoles,
    /// It takes the position of events with `prev` 0.
    PrevZero,
    KeepsAfterResync,
    /// It does not take the epoch of `resync`.
    OldEpoch,
    /// It takes the position of an answer that recovered.
    EveryAnswer,
    KeepsAfterRefusal,
    /// It does not wait for the answer to `subscribe`.
    Impatient,
    PositionOfSource,
    /// It takes the position of a heartbeat of another epoch.
    EveryHeartbeat,
    NoHeartbeats,
    /// It does not notice silence.
    Deaf,
    /// It sends a command again at once.
    RateBlind,
    /// It asks again and again for a rejected channel.
    Insists,
    /// It connects again at once.
    Hammers,
    EarlyInDrain,
    FirstDrain,
    /// Its position follows each event, also down.
    GoesBack,
}

/// It is short here: nothing is lost by coming back early to a kit.
const WAIT: Duration = Duration::from_millis(200);

const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(200);
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// A stream that can leave pongs out.
struct Stream {
    stream: TcpStream,
    is_mute: bool,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        const PONG: u8 = 0x8A;
        if self.is_mute && buffer.first() == Some(&PONG) {
            return Ok(buffer.len());
        }
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[derive(Default)]
struct State {
    epoch: Value,
    position: Option<(u64, u64)>,
    welcome_ts: u64,
    not_before: Option<Instant>,
}

/// How a connection ended.
enum End {
    ComeBack,
    Stop,
}

/// Connects again and again until `is_over`.
pub fn run(url: &str, fault: Fault, is_over: &AtomicBool) {
    run_while(url, fault, is_over, u64::MAX);
}

/// Connects so many times.
pub fn run_connections(url: &str, connections: u64, is_over: &AtomicBool) {
    run_while(url, Fault::None, is_over, connections);
}

fn run_while(url: &str, fault: Fault, is_over: &AtomicBool, connections: u64) {
    let mut state = State::default();
    let mut made = 0;
    while !is_over.load(Ordering::Relaxed) && fault != Fault::NeverConnects {
        match connect(url, fault) {
            Ok(socket) => {
                made += 1;
                let is_last = made >= connections;
                let end = session(socket, fault, &mut state, (is_over, is_last));
                if is_last || matches!(end, End::Stop) {
                    return;
                }
            }
            Err(retry_after) => state.not_before = retry_after.map(|wait| Instant::now() + wait),
        }
        if fault == Fault::Hammers {
            continue;
        }
        let told = state.not_before.take();
        let told = told.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        std::thread::sleep(told + WAIT);
    }
}

/// The wait that the server asks for, if it cannot be connected to.
fn connect(url: &str, fault: Fault) -> Result<WebSocket<Stream>, Option<Duration>> {
    let addr = url.strip_prefix("ws://").and_then(|rest| rest.strip_suffix("/ws")).unwrap();
    let stream = TcpStream::connect(addr).map_err(|_| None)?;
    let stream = Stream { stream, is_mute: fault == Fault::NoPong };
    match tungstenite::client(url, stream) {
        Ok((socket, _)) => {
            let timeout = Some(Duration::from_millis(20));
            socket.get_ref().stream.set_read_timeout(timeout).unwrap();
            Ok(socket)
        }
        Err(HandshakeError::Failure(Error::Http(response))) => {
            let seconds = response.headers().get("retry-after").map(|it| it.to_str().unwrap());
            Err(seconds.map(|it| Duration::from_secs(it.parse().unwrap())))
        }
        Err(_) => Err(None),
    }
}

/// One connection.
struct Session<'a> {
    socket: WebSocket<Stream>,
    fault: Fault,
    state: &'a mut State,
    subscribe: Value,
    is_subscribed: bool,
    seq: u64,
    has_hole: bool,
    drains: u32,
    again: Option<Instant>,
}

fn session(
    socket: WebSocket<Stream>,
    fault: Fault,
    state: &mut State,
    (is_over, is_last): (&AtomicBool, bool),
) -> End {
    let mut subscribe = json!({"type": "subscribe", "channels": ["odin.token.*.trade", "a.b"]});
    let may_resume = fault != Fault::NeverResumes && !state.epoch.is_null();
    if let Some((pos, ts)) = state.position.filter(|_| may_resume) {
        let ts = if fault == Fault::StoreTimeOfWelcome { state.welcome_ts } else { ts };
        subscribe["resume"] = json!({"epoch": state.epoch, "pos": pos, "ts": ts});
    }
    let began = Instant::now();
    let mut session = Session {
        socket,
        fault,
        state,
        subscribe,
        is_subscribed: false,
        seq: 0,
        has_hole: false,
        drains: 0,
        again: None,
    };
    if fault != Fault::NeverSubscribes {
        let subscribe = session.subscribe.clone();
        session.send(&subscribe);
    }
    let (mut heard, mut next_heartbeat) = (Instant::now(), Instant::now());
    while !is_over.load(Ordering::Relaxed) {
        match session.socket.read() {
            Ok(message) => {
                heard = Instant::now();
                let Message::Text(text) = message else { continue };
                let message = serde_json::from_str(&text).unwrap();
                if !session.on_message(&message) {
                    session.socket.close(None).unwrap_or_default();
                    return End::ComeBack;
                }
                if is_last && session.is_subscribed {
                    return End::Stop;
                }
            }
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) if session.fault == Fault::NeverComesBack => return End::Stop,
            Err(_) => return End::ComeBack,
        }
        // Who asks for no sign of life cannot expect one.
        let expects_life = !matches!(fault, Fault::Deaf | Fault::NoHeartbeats);
        if expects_life && heard.elapsed() > SILENCE_MAX {
            return End::ComeBack;
        }
        let has_waited = began.elapsed() > Duration::from_millis(500);
        if fault == Fault::Impatient && !session.is_subscribed && has_waited {
            return End::ComeBack;
        }
        if Instant::now() >= next_heartbeat && fault != Fault::NoHeartbeats {
            next_heartbeat = Instant::now() + HEARTBEAT_INTERVAL;
            session.send(&json!({"type": "heartbeat"}));
        }
        if session.again.is_some_and(|at| Instant::now() >= at) {
            session.again = None;
            let subscribe = session.subscribe.clone();
            session.send(&subscribe);
        }
        if session.leaves_in_drain() {
            return End::ComeBack;
        }
    }
    End::Stop
}

impl Session<'_> {
    fn send(&mut self, command: &Value) {
        // A connection that is lost shows at the next read.
        self.socket.send(Message::text(command.to_string())).unwrap_or_default();
    }

    /// A client that moves early, or at the time of the first announcement.
    fn leaves_in_drain(&self) -> bool {
        let is_due = self.state.not_before.is_some_and(|at| Instant::now() >= at);
        self.drains > 0
            && match self.fault {
                Fault::EarlyInDrain => true,
                Fault::FirstDrain => is_due,
                _ => false,
            }
    }

    /// Whether the client stays.
    fn on_message(&mut self, message: &Value) -> bool {
        if message["seq"].is_u64() && !(self.fault == Fault::ByType && message["type"] == "resync")
        {
            return self.on_event(message);
        }
        let position = message["pos"].as_u64().zip(message["ts"].as_u64());
        match message["type"].as_str() {
            Some("welcome") => self.state.welcome_ts = message["ts"].as_u64().unwrap(),
            Some("subscribed") => {
                self.is_subscribed = true;
                let keeps = match self.fault {
                    Fault::EveryAnswer => false,
                    Fault::KeepsAfterRefusal => message["resume"]["reason"] != "epoch_changed",
                    _ => message["recovered"] == true,
                };
                if !keeps || self.state.position.is_none() {
                    self.state.epoch = message["epoch"].clone();
                    self.state.position = position.filter(|_| !message["epoch"].is_null());
                }
                let is_rejected = message["rejected"].as_array().is_some_and(|it| !it.is_empty());
                if self.fault == Fault::Insists && is_rejected {
                    let subscribe = self.subscribe.clone();
                    self.send(&subscribe);
                }
            }
            Some("resync") => {
                if self.fault != Fault::OldEpoch {
                    self.state.epoch = message["epoch"].clone();
                }
                if self.fault != Fault::KeepsAfterResync {
                    self.state.position = None;
                }
            }
            Some("source_live") if self.fault == Fault::PositionOfSource => {
                self.state.position = position;
            }
            Some("heartbeat") => self.on_heartbeat(&message["position"]),
            Some("server_draining") => {
                self.drains += 1;
                if self.fault != Fault::FirstDrain || self.drains == 1 {
                    let wait =
                        Duration::from_millis(message["reconnect_after_ms"].as_u64().unwrap());
                    self.state.not_before = Some(Instant::now() + wait);
                }
                if self.fault == Fault::EarlyInDrain {
                    self.state.not_before = None;
                }
            }
            Some("error") if message["code"] == "rate_limited" => {
                let wait = Duration::from_millis(message["retry_after_ms"].as_u64().unwrap());
                let wait = if self.fault == Fault::RateBlind { Duration::ZERO } else { wait };
                self.again = Some(Instant::now() + wait);
            }
            Some("weather") => return self.fault != Fault::LeavesUnknown,
            _ => {}
        }
        true
    }

    fn on_heartbeat(&mut self, position: &Value) {
        let is_ours = position["epoch"] == self.state.epoch || self.fault == Fault::EveryHeartbeat;
        if is_ours && !self.has_hole {
            let position = position["pos"].as_u64().zip(position["ts"].as_u64());
            self.state.position = self.state.position.max(position);
        }
    }

    fn on_event(&mut self, event: &Value) -> bool {
        let number = |name: &str| event[name].as_u64().unwrap();
        self.has_hole |= number("seq") > self.seq + 1;
        self.seq = self.seq.max(number("seq"));
        let position = Some((number("pos"), number("ts")));
        let is_proven = number("prev") != 0 || self.fault == Fault::PrevZero;
        if is_proven && (!self.has_hole || self.fault == Fault::ThroughHoles) {
            self.state.position = match self.fault {
                Fault::GoesBack => position,
                _ => self.state.position.max(position),
            };
        }
        self.fault != Fault::Leaves
    }
}
