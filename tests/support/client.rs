//! A client on tungstenite, for tests that read and write messages.

use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::{Value, json};
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, WebSocket};

use super::{GUARD, Server};

/// A connected client. Reads have a guard.
pub struct Client {
    pub socket: WebSocket<TcpStream>,
    pub welcome: Value,
    /// Messages that were read while another was waited for.
    passed: Vec<Value>,
}

impl Client {
    /// Connects to `/ws` and reads the welcome.
    pub fn connect(server: &Server) -> Self {
        Self::connect_to(server.addr)
    }

    pub fn connect_to(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, addr)
    }

    /// Upgrades a connection that the test made itself.
    pub fn over(stream: TcpStream, addr: SocketAddr) -> Self {
        stream.set_read_timeout(Some(GUARD)).unwrap();
        let (socket, _) = tungstenite::client(format!("ws://{addr}/ws"), stream).unwrap();
        let mut client = Self { socket, welcome: Value::Null, passed: Vec::new() };
        client.welcome = client.next();
        assert_eq!(client.welcome["type"], "welcome");
        client
    }

    pub fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    pub fn send(&mut self, command: &Value) {
        self.send_text(&command.to_string());
    }

    /// Subscribes and returns the acknowledgement.
    pub fn subscribe(&mut self, channels: &[&str]) -> Value {
        self.command(&json!({"type": "subscribe", "channels": channels}))
    }

    /// Sends a command and returns its answer: the next message that is not an event.
    pub fn command(&mut self, command: &Value) -> Value {
        self.send(command);
        self.next_answer()
    }

    /// The next message that is no event; events before it are kept for [`Self::next_event`].
    pub fn next_answer(&mut self) -> Value {
        loop {
            let message = self.read();
            if message.get("seq").is_none() {
                return message;
            }
            self.passed.push(message);
        }
    }

    /// The next event; anything else is a failure.
    pub fn next_event(&mut self) -> Value {
        let message = self.next();
        assert!(message.get("seq").is_some(), "not an event: {message}");
        message
    }

    pub fn next_events(&mut self, count: usize) -> Vec<Value> {
        (0..count).map(|_| self.next_event()).collect()
    }

    /// The next message, whatever it is.
    pub fn next(&mut self) -> Value {
        if self.passed.is_empty() { self.read() } else { self.passed.remove(0) }
    }

    fn read(&mut self) -> Value {
        let deadline = Instant::now() + GUARD;
        loop {
            // Pings go on for ever.
            assert!(Instant::now() < deadline, "no message comes");
            match self.socket.read().expect("a message") {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("not text: {other:?}"),
            }
        }
    }

    /// All messages until the server closes, and the close frame, which is answered.
    pub fn read_to_close(&mut self) -> (Vec<Value>, Option<CloseFrame>) {
        let mut messages = std::mem::take(&mut self.passed);
        loop {
            match self.socket.read().expect("a message or a close frame") {
                Message::Text(text) => messages.push(serde_json::from_str(&text).unwrap()),
                Message::Close(frame) => {
                    // The server may have gone since.
                    self.socket.flush().unwrap_or_default();
                    return (messages, frame);
                }
                _ => {}
            }
        }
    }

    /// Reads until the server closes; the close frame.
    pub fn read_close(&mut self) -> Option<CloseFrame> {
        loop {
            match self.socket.read().expect("a close frame") {
                Message::Close(frame) => return frame,
                _ => continue,
            }
        }
    }

    /// Asserts that nothing is on the way: the answer to a command comes next.
    pub fn assert_quiet(&mut self) {
        assert!(self.passed.is_empty(), "{:?}", self.passed);
        self.send(&json!({"type": "heartbeat", "id": "quiet"}));
        let message = self.next();
        assert_eq!(message["id"], "quiet", "{message}");
    }
}

/// The request of a client that the test plays itself.
pub const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";
