//! `odin-ws tail`: a client for the command line, which is how people try the server.
//!
//! It subscribes, prints what arrives, says on standard error what is not an event, and comes
//! back where it was when the connection is lost. Bounds: [`backoff::DELAY_MAX`] between attempts,
//! [`SILENCE_MAX`] without a sign of life.

mod backoff;
mod line;
mod place;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::http::Uri;
use tungstenite::{Error, Message, WebSocket, client};

use self::place::Place;

/// A sign of life is asked for after so long without a message.
const HEARTBEAT_AFTER: Duration = Duration::from_secs(10);

/// After so long without any, the connection is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What to follow, and how to show it.
#[derive(Debug, Clone)]
pub struct TailSettings {
    /// The server's address, `ws://host:port/path`.
    pub url: String,
    /// What to subscribe to.
    pub patterns: Vec<String>,
    /// Print events as they came, one per line.
    pub is_json: bool,
    /// End after so many events.
    pub count: Option<u64>,
    /// Begin with the newest message of each channel.
    pub wants_snapshot: bool,
    /// Come back when the connection is lost.
    pub reconnects: bool,
}

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TailSummary {
    /// Events printed.
    pub events: u64,
    /// Events that `seq` says were missed.
    pub missed: u64,
    /// Connections made.
    pub connections: u64,
}

impl fmt::Display for TailSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events, missed, connections } = self;
        write!(f, "{events} events, {missed} missed, {connections} connections")
    }
}

/// Why `tail` ended badly.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The address cannot be used.
    #[error("--url {url:?} cannot be used: {problem}")]
    Url {
        /// The address.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Nobody answers, and reconnecting was not wanted.
    #[error("cannot connect to {url}: {cause}; is the server running? `odin-ws serve` starts it")]
    Connect {
        /// The address.
        url: String,
        /// What went wrong.
        cause: String,
    },
    /// The connection was lost, and reconnecting was not wanted.
    #[error("the connection to {url} was lost: {cause}")]
    Lost {
        /// The address.
        url: String,
        /// What went wrong.
        cause: String,
    },
    /// The server took none of the patterns.
    #[error("the server accepts none of these channels (see above)")]
    AllRejected,
    /// Standard output failed.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

/// Follows until the count is reached or standard output is closed.
///
/// # Errors
/// [`TailError`]; a lost connection only if reconnecting was not wanted.
pub fn run(settings: &TailSettings) -> Result<TailSummary, TailError> {
    let address = Address::parse(&settings.url)?;
    let (summary, place) = (TailSummary::default(), Place::default());
    let mut tail = Tail { settings, address, summary, place };
    let mut attempts = 0;
    loop {
        let ended = tail.session(&mut attempts);
        match ended {
            Ok(()) => return Ok(tail.summary),
            Err(Ended::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(tail.summary);
            }
            Err(Ended::Output(error)) => return Err(error.into()),
            Err(Ended::AllRejected) => return Err(TailError::AllRejected),
            Err(Ended::Connection { cause, was_open }) => {
                if !settings.reconnects {
                    let url = settings.url.clone();
                    return Err(match was_open {
                        true => TailError::Lost { url, cause },
                        false => TailError::Connect { url, cause },
                    });
                }
                attempts += 1;
                let delay = backoff::delay(attempts, rand::random());
                eprintln!("{}: {cause}; trying again", settings.url);
                std::thread::sleep(delay);
            }
        }
    }
}

/// Why one connection ended.
enum Ended {
    Connection { cause: String, was_open: bool },
    AllRejected,
    Output(io::Error),
}

struct Address {
    uri: Uri,
    host_port: String,
}

impl Address {
    fn parse(url: &str) -> Result<Self, TailError> {
        let refuse = |problem| TailError::Url { url: url.to_owned(), problem };
        let uri: Uri = url.parse().map_err(|_| refuse("it is not an address"))?;
        match uri.scheme_str() {
            Some("ws") => {}
            Some("wss") => return Err(refuse("tail does not speak TLS yet: use ws://")),
            _ => return Err(refuse("write ws://host:port/ws")),
        }
        let host = uri.host().ok_or_else(|| refuse("it names no host"))?;
        let host_port = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        Ok(Self { uri, host_port })
    }

    fn connect(&self) -> Result<WebSocket<TcpStream>, String> {
        use std::net::ToSocketAddrs as _;
        let addresses = self.host_port.to_socket_addrs().map_err(|error| error.to_string())?;
        let mut last = "the host has no address".to_owned();
        for address in addresses {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => return self.upgrade(stream),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    fn upgrade(&self, stream: TcpStream) -> Result<WebSocket<TcpStream>, String> {
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(HEARTBEAT_AFTER)).map_err(|error| error.to_string())?;
        match client(self.uri.clone(), stream) {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::HandshakeError::Failure(Error::Http(response))) => {
                let body = response.body().as_deref().unwrap_or_default();
                Err(format!("HTTP {}: {}", response.status(), String::from_utf8_lossy(body)))
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

struct Tail<'a> {
    settings: &'a TailSettings,
    address: Address,
    summary: TailSummary,
    place: Place,
}

impl Tail<'_> {
    fn session(&mut self, attempts: &mut u32) -> Result<(), Ended> {
        let mut was_open = false;
        let lost = |cause: String, was_open| Ended::Connection { cause, was_open };
        let mut socket = self.address.connect().map_err(|cause| lost(cause, was_open))?;
        was_open = true;
        self.summary.connections += 1;
        let mut subscribe = json!({
            "type": "subscribe",
            "channels": self.settings.patterns,
            "snapshot": self.settings.wants_snapshot,
        });
        let resume = self.place.resume();
        if !resume.is_null() {
            subscribe["resume"] = resume;
        }
        send(&mut socket, &subscribe).map_err(|error| lost(error.to_string(), was_open))?;
        let mut last_seq = 0;
        let mut heard = Instant::now();
        loop {
            match socket.read() {
                Ok(Message::Text(text)) => {
                    heard = Instant::now();
                    *attempts = 0;
                    if self.on_text(&text, &mut last_seq)? {
                        // The server hears of it from the end of the connection at the latest.
                        socket.close(None).unwrap_or_default();
                        return Ok(());
                    }
                }
                Ok(Message::Close(frame)) => {
                    let reason = frame.map_or_else(String::new, |frame| frame.to_string());
                    return Err(lost(format!("closed by the server {reason}"), was_open));
                }
                Ok(_) => heard = Instant::now(),
                // Stopped and continued by the shell's job control (signal(7)).
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(Error::Io(error)) if is_timeout(&error) => {
                    if heard.elapsed() >= SILENCE_MAX {
                        return Err(lost("no sign of life from the server".into(), was_open));
                    }
                    send(&mut socket, &json!({"type": "heartbeat"}))
                        .map_err(|error| lost(error.to_string(), was_open))?;
                }
                Err(error) => return Err(lost(error.to_string(), was_open)),
            }
        }
    }

    /// Shows one message; whether that was the last one wanted.
    fn on_text(&mut self, text: &str, last_seq: &mut u64) -> Result<bool, Ended> {
        let Ok(message) = serde_json::from_str::<BTreeMap<String, Value>>(text) else {
            eprintln!("not a message: {text}");
            return Ok(false);
        };
        self.place.on_message(&message);
        let Some(seq) = message.get("seq").and_then(Value::as_u64) else {
            return self.on_control(text, &message).map(|()| false);
        };
        let missed = seq.saturating_sub(*last_seq + 1);
        if missed > 0 {
            eprintln!("{missed} events missed before seq {seq}: this client read too slowly");
            self.summary.missed += missed;
        }
        *last_seq = seq;
        self.summary.events += 1;
        let mut out = io::stdout().lock();
        let printed = match self.settings.is_json {
            true => writeln!(out, "{text}"),
            false => writeln!(out, "{}", line::event(&message)),
        };
        printed.and_then(|()| out.flush()).map_err(Ended::Output)?;
        Ok(self.settings.count.is_some_and(|count| self.summary.events >= count))
    }

    fn on_control(&self, text: &str, message: &BTreeMap<String, Value>) -> Result<(), Ended> {
        match message.get("type").and_then(Value::as_str) {
            Some("heartbeat") => {}
            Some("subscribed") => {
                let list = |name: &str| message.get(name).and_then(Value::as_array);
                for rejection in list("rejected").into_iter().flatten() {
                    eprintln!("{}", line::rejection(rejection));
                }
                let taken: Vec<String> = list("channels")
                    .into_iter()
                    .flatten()
                    .map(|it| line::plain(Some(it)))
                    .collect();
                if taken.is_empty() {
                    return Err(Ended::AllRejected);
                }
                eprintln!("subscribed to {}", taken.join(" "));
                if let Some(resume) = message.get("resume") {
                    eprintln!("{}", line::resume(resume));
                }
            }
            Some("welcome") => {
                eprintln!("connected to {}", line::plain(message.get("instance")));
            }
            _ => eprintln!("{text}"),
        }
        Ok(())
    }
}

fn send(socket: &mut WebSocket<TcpStream>, command: &Value) -> Result<(), Error> {
    socket.send(Message::text(command.to_string()))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(Address::parse("ws://localhost/ws").unwrap().host_port, "localhost:80");
        assert_eq!(Address::parse("ws://[::1]:3002/ws").unwrap().host_port, "[::1]:3002");
        for url in ["", "http://a/ws", "wss://a/ws", "127.0.0.1:3002", "ws:///ws"] {
            assert!(Address::parse(url).is_err(), "{url}");
        }
    }
}
