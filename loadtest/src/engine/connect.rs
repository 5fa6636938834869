//! A client's way to its subscription, and back after a failure.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Interest, Token};
use rand::Rng as _;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::client::{Pace, Phase};
use super::{Engine, TICK};
use crate::failure::Cause;
use crate::ws::frame::put_frame;
use crate::ws::handshake;
use crate::ws::tls::TlsClient;

/// The first wait before another attempt. It doubles each time; the real wait is a random share
/// of it.
const RETRY_MIN: Duration = Duration::from_millis(200);

/// The longest wait before another attempt.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A connection that lasts this long is a success; one that is lost earlier is a failed attempt.
const STABLE: Duration = Duration::from_secs(10);

/// If nothing comes for so long after a heartbeat, the connection is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// IP_BIND_ADDRESS_NO_PORT of ip(7).
#[expect(unsafe_code, reason = "socket2 does not have this option")]
fn choose_port_at_connect(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    let option = libc::IP_BIND_ADDRESS_NO_PORT;
    // SAFETY: the option reads one int from the address, which is that of a live int, and the
    // descriptor is open as long as the socket is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            option,
            (&raw const on).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

const TEXT: u8 = 1;
const PONG: u8 = 10;

impl Engine {
    /// Begins an attempt.
    pub(super) fn connect(&mut self, index: usize) {
        self.sink.counts.attempts += 1;
        let client = &mut self.clients[index];
        client.attempts += 1;
        client.began = Instant::now();
        match self.open_socket(index) {
            Ok(()) => {
                self.set_phase(index, Phase::Connecting);
                self.set_timer(index, self.settings.timeout);
            }
            Err(error) => self.fail(index, Cause::of_connect(&error)),
        }
    }

    fn open_socket(&mut self, index: usize) -> io::Result<()> {
        let settings = &self.settings;
        let domain = Domain::for_address(settings.addr);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if self.clients[index].pace != Pace::Full {
            socket.set_recv_buffer_size(settings.slow_receive_bytes)?;
        }
        if !settings.source_ips.is_empty() {
            let number = self.numbering.0 + index * self.numbering.1;
            let ip = settings.source_ips[number % settings.source_ips.len()];
            // The port is chosen at connect, when the other end is known: all ports serve each.
            choose_port_at_connect(&socket)?;
            socket.bind(&SocketAddr::new(ip, 0).into())?;
        }
        match socket.connect(&settings.addr.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let mut stream = mio::net::TcpStream::from_std(socket.into());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(index), interest)?;
        self.clients[index].stream = Some(stream);
        Ok(())
    }

    pub(super) fn on_ready(&mut self, index: usize, event: &Event) {
        match self.clients[index].phase {
            Phase::Connecting => {
                if let Some(stream) = &self.clients[index].stream
                    && let Ok(Some(error)) = stream.take_error()
                {
                    return self.fail(index, Cause::of_connect(&error));
                }
                if event.is_writable() {
                    self.begin_upgrade(index);
                }
            }
            Phase::Upgrading | Phase::Subscribing | Phase::Open => {
                if event.is_writable() {
                    self.send_unsent(index);
                }
            }
            Phase::Waiting | Phase::GivenUp => return,
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(index, event.is_read_closed() || event.is_error());
        }
    }

    fn begin_upgrade(&mut self, index: usize) {
        self.set_phase(index, Phase::Upgrading);
        self.set_timer(index, self.settings.timeout);
        let key = handshake::random_key(self.rng.random());
        let settings = &self.settings;
        let request = handshake::request(
            &settings.target,
            &key,
            settings.offers_deflate,
            settings.bearer.as_deref(),
        );
        if let Some(config) = &settings.tls {
            match TlsClient::new(config, &settings.target.host) {
                Ok(tls) => self.clients[index].tls = Some(Box::new(tls)),
                Err(error) => return self.fail(index, Cause::Tls(error.to_string())),
            }
        }
        self.clients[index].key = key;
        self.send(index, &request);
    }

    /// The upgrade has succeeded.
    pub(super) fn on_upgraded(&mut self, index: usize) {
        self.sink.counts.opened += 1;
        let client = &mut self.clients[index];
        client.key = String::new();
        let elapsed = client.began.elapsed();
        self.sink.record_connect(elapsed);
        self.set_phase(index, Phase::Subscribing);
        self.subscribe(index);
    }

    fn subscribe(&mut self, index: usize) {
        let number = self.numbering.0 + index * self.numbering.1;
        let position = self.clients[index].checker.position();
        let position = position.map(|(epoch, pos, ts)| (self.sink.epoch(epoch), pos, ts));
        match self.settings.subscriptions.message(number, position) {
            Some(subscribe) => {
                self.set_timer(index, self.settings.timeout);
                self.send_frame(index, TEXT, subscribe.as_bytes());
            }
            None => self.on_subscribed(index),
        }
    }

    /// The subscription is acknowledged.
    pub(super) fn on_subscribed(&mut self, index: usize) {
        self.set_phase(index, Phase::Open);
        let client = &mut self.clients[index];
        client.stamp = client.stamp.wrapping_add(1);
        if self.settings.sends_heartbeats && client.pace == Pace::Full {
            self.set_timer(index, self.sink.heartbeat_interval);
        }
        if let Some(began) = self.storm_began {
            self.sink.back_ms.push(began.elapsed().as_millis() as u32);
        }
    }

    pub(super) fn on_timer(&mut self, index: usize) {
        match self.clients[index].phase {
            Phase::Waiting => self.connect(index),
            Phase::Connecting => self.fail(index, Cause::ConnectTimeout),
            Phase::Upgrading => self.fail(index, Cause::UpgradeTimeout),
            Phase::Subscribing if self.clients[index].is_rate_limited => {
                self.clients[index].is_rate_limited = false;
                self.subscribe(index);
            }
            Phase::Subscribing => self.fail(index, Cause::NoAcknowledgement),
            Phase::Open => self.on_heartbeat_timer(index),
            Phase::GivenUp => {}
        }
    }

    /// Asks for a sign of life; without one for so long, the connection is given up.
    fn on_heartbeat_timer(&mut self, index: usize) {
        match self.clients[index].asked {
            None => {
                self.clients[index].asked = Some(Instant::now());
                self.set_timer(index, self.sink.heartbeat_interval);
                self.send_frame(index, TEXT, br#"{"type":"heartbeat"}"#);
            }
            Some(asked) if asked.elapsed() >= ANSWER_TIMEOUT => self.fail(index, Cause::Silent),
            Some(asked) => {
                let left = ANSWER_TIMEOUT.saturating_sub(asked.elapsed());
                self.set_timer(index, left.max(TICK));
            }
        }
    }

    pub(super) fn send_pong(&mut self, index: usize, payload: &[u8]) {
        self.send_frame(index, PONG, payload);
    }

    fn send_frame(&mut self, index: usize, opcode: u8, payload: &[u8]) {
        let mut frame = Vec::with_capacity(payload.len() + 14);
        put_frame(&mut frame, opcode, payload, self.rng.random());
        self.send(index, &frame);
    }

    fn send(&mut self, index: usize, plain: &[u8]) {
        let client = &mut self.clients[index];
        match &mut client.tls {
            Some(tls) => {
                tls.send(plain);
                tls.take_outgoing(&mut client.unsent);
            }
            None => client.unsent.extend_from_slice(plain),
        }
        self.send_unsent(index);
    }

    pub(super) fn send_unsent(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some(stream) = &mut client.stream else { return };
        while !client.unsent.is_empty() {
            match stream.write(&client.unsent) {
                Ok(count) => drop(client.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The next read reports a broken connection.
                Err(_) => return,
            }
        }
        client.unsent = Vec::new();
    }

    /// The connection or the attempt failed: counts the cause, and tries again if that can help.
    pub(super) fn fail(&mut self, index: usize, cause: Cause) {
        let client = &mut self.clients[index];
        let was_upgraded = client.phase.is_upgraded();
        if was_upgraded && client.began.elapsed() >= STABLE {
            client.attempts = 0;
        }
        let is_expected = client.pace != Pace::Full && was_upgraded;
        let may_retry = cause.is_worth_retrying()
            && client.attempts < self.settings.attempts_max
            && !is_expected;
        if is_expected {
            self.sink.counts.slow_closed += 1;
        } else {
            self.sink.counts.failed += 1;
            self.sink.counts.lost += u64::from(was_upgraded);
            let at_ms = self.settings.began.elapsed().as_millis() as u64;
            let connected = self.gauges.upgraded as u64;
            self.account.with(|measured| measured.failures.count(cause, at_ms, connected));
        }
        self.reset(index);
        if may_retry {
            let doublings = self.clients[index].attempts.saturating_sub(1).min(10);
            let longest = (RETRY_MIN * 2_u32.pow(doublings)).min(RETRY_MAX);
            self.set_phase(index, Phase::Waiting);
            let told = self.clients[index].not_before.take();
            let told = told.map(|at| at.saturating_duration_since(Instant::now()));
            let wait = longest.mul_f64(self.rng.random());
            self.set_timer(index, told.unwrap_or_default() + wait);
        } else {
            self.set_phase(index, Phase::GivenUp);
        }
    }

    /// Drops the connection with a reset, which leaves no socket in TIME_WAIT behind.
    pub(super) fn reset(&mut self, index: usize) {
        if let Some(stream) = &self.clients[index].stream {
            // Without the option the port stays in use for another minute.
            SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap_or_default();
        }
        self.clients[index].forget_connection();
    }
}
