//! Hostile clients beside ordinary ones: a thread with connections that take a server's resources
//! and give it nothing to do. Each is left alone until the server ends it.
//!
//! ```text
//! mod      the thread, and the sums by kind
//! hostile  one connection
//! ```
//!
//! Bounds: as many connections as were asked for; nobody comes back.

mod hostile;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};
use rand::Rng as _;
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use crate::clients::subscriptions;
use crate::data::{LorisEnd, LorisKind, LorisTimes};
use crate::settings::Settings;
use crate::ws::handshake::{self, Target};

use hostile::{Hostile, Kind};

/// SO_RCVBUF of clients that never read; the kernel doubles it.
const RECEIVE_BYTES: usize = 4_096;

/// Channels that a client that never reads subscribes to.
const CHANNELS_MAX: usize = 100;

/// The longest wait for sockets, after which new connections are begun.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// The longest time for the last reads of clients that never read.
const LAST_READ_MAX: Duration = Duration::from_secs(2);

/// The longest time that is recorded, milliseconds: a day.
const MAX_MS: u64 = 86_400_000;

/// What all hostile connections of a run have in common.
#[derive(Debug, Clone)]
pub struct HostileSettings {
    /// The server.
    pub target: Target,
    /// The `subscribe` message of clients that never read.
    pub subscribe: String,
    addr: SocketAddr,
    connections: usize,
    rate: f64,
}

/// The running thread.
#[derive(Debug)]
pub struct Loris {
    is_stopped: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<LorisKind>>,
}

impl Loris {
    /// Begins to connect.
    ///
    /// # Errors
    /// If the system refuses the poll or the thread.
    pub fn start(settings: &Settings) -> Result<Self, String> {
        let refused = |error: io::Error| format!("the hostile clients: {error}");
        let busy = subscriptions(settings).channels.into_iter().take(CHANNELS_MAX);
        let channels: Vec<String> = busy.collect();
        let hostile = HostileSettings {
            target: settings.target.clone(),
            subscribe: json!({"type": "subscribe", "channels": channels}).to_string(),
            addr: settings.addr,
            connections: settings.arguments.loris,
            rate: settings.arguments.ramp_rate,
        };
        let poll = Poll::new().map_err(refused)?;
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_stopped);
        let thread = std::thread::Builder::new()
            .name("loris".into())
            .spawn(move || Crowd { settings: hostile, poll, all: Vec::new() }.run(&stop))
            .map_err(refused)?;
        Ok(Self { is_stopped, thread })
    }

    /// Ends the connections and returns what became of each kind.
    pub fn end(self) -> Vec<LorisKind> {
        self.is_stopped.store(true, Ordering::Relaxed);
        // A panic has been printed by its thread.
        self.thread.join().unwrap_or_default()
    }
}

struct Crowd {
    settings: HostileSettings,
    poll: Poll,
    /// `None` where the socket was refused here.
    all: Vec<Option<Hostile>>,
}

impl Crowd {
    fn run(mut self, is_stopped: &AtomicBool) -> Vec<LorisKind> {
        let mut events = Events::with_capacity(1_024);
        let began = Instant::now();
        let mut next_second = began + Duration::from_secs(1);
        while !is_stopped.load(Ordering::Relaxed) {
            let due = (began.elapsed().as_secs_f64() * self.settings.rate) as usize + 1;
            while self.all.len() < due.min(self.settings.connections) {
                self.connect();
            }
            self.serve_ready(&mut events);
            if Instant::now() >= next_second {
                next_second += Duration::from_secs(1);
                self.all.iter_mut().flatten().for_each(Hostile::on_second);
            }
        }
        let until = Instant::now() + LAST_READ_MAX;
        let is_open = |hostile: &&mut Hostile| hostile.end.is_none();
        while Instant::now() < until && self.all.iter_mut().flatten().any(|it| is_open(&it)) {
            for hostile in self.all.iter_mut().flatten() {
                hostile.read_last(&self.settings);
            }
            std::thread::sleep(WAIT_MAX);
        }
        Kind::ALL.iter().map(|kind| self.kind(*kind)).collect()
    }

    fn serve_ready(&mut self, events: &mut Events) {
        // If epoll fails now, it may work in the next call.
        if self.poll.poll(events, Some(WAIT_MAX)).is_err() {
            return;
        }
        for event in &*events {
            let Some(Some(hostile)) = self.all.get_mut(event.token().0) else { continue };
            if event.is_writable() {
                hostile.on_writable(&self.settings);
            }
            let is_over = event.is_error() || event.is_read_closed();
            if event.is_readable() || is_over {
                hostile.on_readable(&self.settings, is_over);
            }
        }
    }

    /// Kinds take turns.
    fn connect(&mut self) {
        let number = self.all.len();
        let kind = Kind::ALL[number % Kind::ALL.len()];
        let hostile = self.open(kind, number).ok();
        self.all.push(hostile);
    }

    fn open(&self, kind: Kind, number: usize) -> io::Result<Hostile> {
        let addr = self.settings.addr;
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_linger(Some(Duration::ZERO))?;
        if kind == Kind::Unread {
            socket.set_recv_buffer_size(RECEIVE_BYTES)?;
        }
        match socket.connect(&addr.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let stream = mio::net::TcpStream::from_std(socket.into());
        let key = handshake::random_key(rand::rng().random());
        let mut hostile = Hostile::new(kind, stream, key, Instant::now());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(hostile.stream(), Token(number), interest)?;
        Ok(hostile)
    }

    fn kind(&self, kind: Kind) -> LorisKind {
        let mut ends = BTreeMap::<&str, u64>::new();
        let mut times = Histogram::<u64>::new_with_bounds(1, MAX_MS, 3)
            .expect("constant bounds that are in order");
        let own = || self.all.iter().flatten().filter(|hostile| hostile.kind == kind);
        for (hostile, end) in own().filter_map(|it| Some((it, it.end.as_ref()?))) {
            *ends.entry(&end.how).or_default() += 1;
            if let Some(at) = end.at {
                let ms = at.duration_since(hostile.began).as_millis() as u64;
                times.saturating_record(ms.clamp(1, MAX_MS));
            }
        }
        let at = |quantile: f64| times.value_at_quantile(quantile);
        LorisKind {
            kind: kind.name(),
            connections: own().count() as u64,
            ended: ends.values().sum(),
            ends: ends
                .into_iter()
                .map(|(how, count)| LorisEnd { how: how.to_owned(), count })
                .collect(),
            after: (!times.is_empty()).then(|| LorisTimes {
                p50_ms: at(0.5),
                p90_ms: at(0.9),
                p99_ms: at(0.99),
                max_ms: times.max(),
            }),
        }
    }
}
