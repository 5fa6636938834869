//! Connections of the bare sender until it sends: accepted, upgraded, and asked once which channels
//! they want, from which the list of each channel's receivers is made beforehand.
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

/// How often the caller looks after something else.
const TURN: Duration = Duration::from_millis(50);

const LISTENER: Token = Token(usize::MAX);

/// A connection that is not subscribed yet.
#[derive(Debug)]
struct Guest {
    stream: TcpStream,
    bytes: Vec<u8>,
    is_upgraded: bool,
}

/// A thread's listener and its connections.
#[derive(Debug)]
pub struct Guests {
    poll: Poll,
    listener: TcpListener,
    guests: HashMap<usize, Guest>,
    next: usize,
    subscribers: Subscribers,
}

/// Who gets an event.
#[derive(Debug)]
pub struct Subscribers {
    /// Name and receivers, in the order in which they have their turn.
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

impl Guests {
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
        Ok(Self { poll, listener, guests: HashMap::new(), next: 0, subscribers })
    }

    /// Serves whoever wants something within [`TURN`].
    ///
    /// # Errors
    /// If nothing can be accepted any more.
    pub fn turn(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1_024);
        match self.poll.poll(&mut events, Some(TURN)) {
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

    /// No more will come: who gets what.
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
            self.guests.insert(number, Guest { stream, bytes: Vec::new(), is_upgraded: false });
        }
    }

    fn read(&mut self, number: usize) {
        let Some(mut guest) = self.guests.remove(&number) else { return };
        let mut buffer = [0; 16_384];
        loop {
            match guest.stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => guest.bytes.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return,
            }
        }
        if !guest.is_upgraded && !upgrade(&mut guest) {
            return;
        }
        match guest.is_upgraded.then(|| unmask(&guest.bytes)).flatten() {
            Some(text) => self.subscribe(guest, &text),
            None if guest.bytes.len() < HEAD_BYTES_MAX => drop(self.guests.insert(number, guest)),
            None => {}
        }
    }

    fn subscribe(&mut self, mut guest: Guest, text: &[u8]) {
        let message: Value = serde_json::from_slice(text).unwrap_or_default();
        let wanted = message["channels"].as_array().map_or(&[][..], Vec::as_slice);
        let answer = json!({"type": "subscribed", "channels": wanted, "rejected": []});
        let mut frame = Vec::new();
        put_server_frame(&mut frame, answer.to_string().as_bytes());
        let is_answered = guest.stream.write(&frame).is_ok_and(|count| count == frame.len());
        if !is_answered || self.poll.registry().deregister(&mut guest.stream).is_err() {
            return;
        }
        let socket = Arc::new(Socket::from(std::net::TcpStream::from(guest.stream)));
        for name in wanted.iter().filter_map(Value::as_str) {
            let channel = self.subscribers.channels.iter_mut().find(|(it, _)| it == name);
            if let Some((_, receivers)) = channel {
                receivers.push(Arc::clone(&socket));
            }
        }
    }
}

/// Answers the request, once it is complete; false if the connection cannot go on.
fn upgrade(guest: &mut Guest) -> bool {
    let Some(end) = guest.bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return guest.bytes.len() < HEAD_BYTES_MAX;
    };
    let head = String::from_utf8_lossy(&guest.bytes[..end]).into_owned();
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    let key = headers.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let Some((_, key)) = key else { return false };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        handshake::accept(key)
    );
    guest.bytes.drain(..end + 4);
    guest.is_upgraded = true;
    guest.stream.write(answer.as_bytes()).is_ok_and(|count| count == answer.len())
}
