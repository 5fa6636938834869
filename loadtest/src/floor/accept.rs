//! Connections of the bare sender until it sends. Each is accepted, upgraded and asked once for its
//! channels; the list of each channel's receivers is made from the answers beforehand.
//!
//! Bounds: [`HEAD_BYTES_MAX`] until the subscription is complete; a connection that breaks a rule
//! is dropped.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};
use socket2::Socket;

use crate::ws::frame::{put_server_frame, unmask};
use crate::ws::handshake;

/// Bytes of the request and the subscription.
const HEAD_BYTES_MAX: usize = 1 << 20;

/// How long one call waits for its sockets, so that the caller can check for a command.
const WAIT_MAX: Duration = Duration::from_millis(50);

const LISTENER: Token = Token(usize::MAX);

/// A connection that is not subscribed yet.
#[derive(Debug)]
struct Pending {
    stream: TcpStream,
    bytes: Vec<u8>,
    is_upgraded: bool,
}

/// A thread's listener and its connections.
#[derive(Debug)]
pub struct PendingConnections {
    poll: Poll,
    listener: TcpListener,
    pending: HashMap<usize, Pending>,
    next: usize,
    subscribers: Subscribers,
}

/// The receivers of each channel.
#[derive(Debug)]
pub struct Subscribers {
    /// Name and receivers, in the order in which channels take turns.
    channels: Vec<(String, Vec<Arc<Socket>>)>,
}

impl Subscribers {
    /// Channel and receivers of the event with this number: channels take turns, as they do with
    /// the publisher.
    pub fn of_event(&self, number: u64) -> (&str, &[Arc<Socket>]) {
        let (name, receivers) = &self.channels[number as usize % self.channels.len()];
        (name, receivers)
    }
}

impl PendingConnections {
    /// Takes over a listener that does not block.
    ///
    /// # Errors
    /// If the system refuses the poll.
    pub fn new(listener: std::net::TcpListener, channels: Vec<String>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::from_std(listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let channels = channels.into_iter().map(|name| (name, Vec::new())).collect();
        let subscribers = Subscribers { channels };
        Ok(Self { poll, listener, pending: HashMap::new(), next: 0, subscribers })
    }

    /// Accepts, upgrades and subscribes connections that are ready within [`WAIT_MAX`].
    ///
    /// # Errors
    /// The listener or the poll is broken.
    pub fn serve_ready(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1_024);
        match self.poll.poll(&mut events, Some(WAIT_MAX)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            match event.token() {
                LISTENER => self.accept()?,
                Token(number) => self.read(number),
            }
        }
        Ok(())
    }

    /// Ends accepting and returns the receivers.
    pub fn into_subscribers(self) -> Subscribers {
        self.subscribers
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let number = self.next;
            self.next += 1;
            self.poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
            self.pending.insert(number, Pending { stream, bytes: Vec::new(), is_upgraded: false });
        }
    }

    fn read(&mut self, number: usize) {
        let Some(mut connection) = self.pending.remove(&number) else { return };
        let mut buffer = [0; 16_384];
        loop {
            match connection.stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => connection.bytes.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return,
            }
        }
        if !connection.is_upgraded && !upgrade(&mut connection) {
            return;
        }
        match connection.is_upgraded.then(|| unmask(&connection.bytes)).flatten() {
            Some(text) => self.subscribe(connection, &text),
            None if connection.bytes.len() < HEAD_BYTES_MAX => {
                drop(self.pending.insert(number, connection))
            }
            None => {}
        }
    }

    fn subscribe(&mut self, mut connection: Pending, text: &[u8]) {
        let message: Value = serde_json::from_slice(text).unwrap_or_default();
        let wanted = message["channels"].as_array().map_or(&[][..], Vec::as_slice);
        let answer = json!({"type": "subscribed", "channels": wanted, "rejected": []});
        let mut frame = Vec::new();
        put_server_frame(&mut frame, answer.to_string().as_bytes());
        let is_answered = connection.stream.write(&frame).is_ok_and(|count| count == frame.len());
        if !is_answered || self.poll.registry().deregister(&mut connection.stream).is_err() {
            return;
        }
        let socket = Arc::new(Socket::from(std::net::TcpStream::from(connection.stream)));
        for name in wanted.iter().filter_map(Value::as_str) {
            let channel = self.subscribers.channels.iter_mut().find(|(it, _)| it == name);
            if let Some((_, receivers)) = channel {
                receivers.push(Arc::clone(&socket));
            }
        }
    }
}

/// Answers the request, once it is complete; false if the connection cannot go on.
fn upgrade(connection: &mut Pending) -> bool {
    let Some(end) = connection.bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return connection.bytes.len() < HEAD_BYTES_MAX;
    };
    let head = String::from_utf8_lossy(&connection.bytes[..end]).into_owned();
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    let key = headers.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let Some((_, key)) = key else { return false };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        handshake::accept(key)
    );
    connection.bytes.drain(..end + 4);
    connection.is_upgraded = true;
    connection.stream.write(answer.as_bytes()).is_ok_and(|count| count == answer.len())
}
