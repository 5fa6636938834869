//! One thread with many clients: it connects, subscribes, reads, checks and measures.
//!
//! ```text
//! mod      the loop: commands, turns to connect, readiness, timers
//! connect  a client's way to its subscription, and back after a failure
//! receive  bytes to messages, messages to figures
//! client   one client's state
//! event    the figures of an event message
//! check    whether events come once and in order
//! shared   what other threads read
//! ```
//!
//! Readiness is epoll's, edge-triggered, through mio; all reads go through one buffer. Per delivery
//! nothing is allocated and nothing shared is touched. Bounds: [`UNDER_WAY_MAX`] connections under
//! way at once, one timer per client.

pub mod check;
pub mod client;
mod connect;
pub mod event;
mod receive;
pub mod shared;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use client::{Client, Pace, Phase};
use receive::Sink;
use shared::Shared;

use crate::ws::handshake::Target;
use crate::ws::tls::TlsConfig;

/// Connections under way at once.
const UNDER_WAY_MAX: usize = 2_048;

/// Bytes of one read.
const READ_BYTES: usize = 256 * 1_024;

/// The interval at which sums are handed over and slow clients read.
const TICK: Duration = Duration::from_millis(100);

const WAKE: Token = Token(usize::MAX);

/// What all clients of a run have in common.
#[derive(Debug)]
pub struct EngineSettings {
    /// The server.
    pub target: Target,
    /// Its address.
    pub addr: SocketAddr,
    /// Local addresses to connect from, in turn; empty: the kernel chooses.
    pub source_ips: Vec<IpAddr>,
    /// Offer permessage-deflate.
    pub offers_deflate: bool,
    /// For `wss`.
    pub tls: Option<TlsConfig>,
    /// A token for `Authorization: Bearer`.
    pub bearer: Option<String>,
    /// Who subscribes to what.
    pub subscriptions: Subscriptions,
    /// The longest time for connect, for upgrade and for acknowledgement.
    pub timeout: Duration,
    /// Attempts of a client before it gives up.
    pub attempts_max: u32,
    /// Send heartbeats, and notice silence.
    pub sends_heartbeats: bool,
    /// SO_RCVBUF of clients that read slowly.
    pub slow_receive_bytes: usize,
    /// How the thread waits for its sockets.
    pub waiting: Waiting,
    /// When the run began.
    pub began: Instant,
}

/// How the thread waits for its sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// It sleeps in epoll until a socket is ready.
    Sleeping,
    /// It sleeps this long and then asks epoll, so that it reads several messages at once.
    Pausing(Duration),
    /// It never sleeps and asks epoll again and again, so the sender need not wake it.
    Spinning,
}

/// Who subscribes to what.
#[derive(Debug, Clone)]
pub struct Subscriptions {
    /// Channels or patterns to choose from.
    pub channels: Vec<String>,
    /// Channels that each client takes.
    pub per_client: usize,
}

impl Subscriptions {
    /// The channels of one client: neighbours, so that every channel has as many subscribers.
    pub fn of(&self, client: usize) -> impl Iterator<Item = &String> {
        let count = self.channels.len();
        let taken = self.per_client.min(count);
        (0..taken).map(move |next| &self.channels[(client * taken + next) % count])
    }

    /// The `subscribe` message of one client, which resumes from `position` (with its store time)
    /// if it was connected before; `None` if it takes no channel.
    fn message(&self, client: usize, position: Option<(&str, u64, u64)>) -> Option<String> {
        let channels: Vec<&String> = self.of(client).collect();
        let mut message = json!({"type": "subscribe", "channels": channels});
        if let Some((epoch, pos, ts)) = position {
            message["resume"] = json!({"epoch": epoch, "pos": pos, "ts": ts});
        }
        (!channels.is_empty()).then(|| message.to_string())
    }

    /// How many of so many clients subscribe to the channel with this index.
    pub fn subscribers(&self, channel: usize, clients: usize) -> usize {
        let count = self.channels.len();
        let taken = self.per_client.min(count);
        if taken == 0 {
            return 0;
        }
        let subscriptions = clients * taken;
        subscriptions / count + usize::from(channel < subscriptions % count)
    }
}

/// What the run asks of an engine.
#[derive(Debug, Clone, Copy)]
pub enum Command {
    /// Connect clients up to this number, at most so many per second.
    Ramp {
        /// Clients.
        clients: usize,
        /// New connections per second.
        rate: f64,
    },
    /// Drop all connections with a reset; each client reconnects at a random time within `jitter`.
    Storm {
        /// The longest wait before the first attempt.
        jitter: Duration,
    },
    /// Close everything and end.
    Stop,
}

/// A running engine, seen from the run.
#[derive(Debug)]
pub struct Handle {
    /// Its sums, gauges and histograms.
    pub shared: Arc<Shared>,
    commands: Sender<Command>,
    waker: Waker,
    thread: std::thread::JoinHandle<()>,
}

impl Handle {
    /// Starts an engine whose clients read as `pace` says for their number; `first` is the number
    /// of its first client, `step` the distance to the next.
    ///
    /// # Errors
    /// If the system refuses the poll or the thread.
    pub fn start(
        settings: Arc<EngineSettings>,
        pace: Vec<Pace>,
        (first, step): (usize, usize),
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let (commands, inbox) = channel();
        let shared = Arc::new(Shared::default());
        let account = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("clients".into()).spawn(move || {
            Engine::new(settings, pace, (first, step), poll, account).run(&inbox);
        })?;
        Ok(Self { shared, commands, waker, thread })
    }

    /// Tells the engine something.
    pub fn tell(&self, command: Command) {
        // An engine that has ended needs no command.
        self.commands.send(command).unwrap_or_default();
        self.waker.wake().unwrap_or_default();
    }

    /// Waits until the engine has ended.
    pub fn join(self) {
        self.tell(Command::Stop);
        // A panic has been printed by its thread; what was measured stays.
        drop(self.thread.join());
    }
}

/// The state of the thread.
struct Engine {
    settings: Arc<EngineSettings>,
    poll: Poll,
    clients: Vec<Client>,
    numbering: (usize, usize),
    /// The timers: due time, client, and the stamp that the client must still have.
    timers: BinaryHeap<Reverse<(Instant, u32, u32)>>,
    /// How many clients are wanted, at which rate they connect, and since when.
    wanted: usize,
    started: usize,
    ramp: (f64, Instant, usize),
    storm_began: Option<Instant>,
    sink: Sink,
    account: Arc<Shared>,
    buffer: Vec<u8>,
    rng: SmallRng,
    gauges: Gauges,
}

/// How many clients are in which phase.
#[derive(Debug, Default)]
struct Gauges {
    under_way: usize,
    upgraded: usize,
    subscribed: usize,
    given_up: usize,
    succeeded: usize,
}

impl Engine {
    fn new(
        settings: Arc<EngineSettings>,
        pace: Vec<Pace>,
        numbering: (usize, usize),
        poll: Poll,
        account: Arc<Shared>,
    ) -> Self {
        let now = Instant::now();
        Self {
            settings,
            poll,
            clients: pace.into_iter().map(|pace| Client::new(pace, now)).collect(),
            numbering,
            timers: BinaryHeap::new(),
            wanted: 0,
            started: 0,
            ramp: (1.0, now, 0),
            storm_began: None,
            sink: Sink::default(),
            account,
            buffer: vec![0; READ_BYTES],
            rng: SmallRng::from_os_rng(),
            gauges: Gauges::default(),
        }
    }

    fn run(&mut self, inbox: &Receiver<Command>) {
        let mut events = Events::with_capacity(4_096);
        let mut next_tick = Instant::now() + TICK;
        loop {
            while let Ok(command) = inbox.try_recv() {
                match command {
                    Command::Ramp { clients, rate } => {
                        self.wanted = clients.min(self.clients.len());
                        self.ramp = (rate, Instant::now(), self.started);
                    }
                    Command::Storm { jitter } => self.storm(jitter),
                    Command::Stop => return self.hand_over(),
                }
            }
            let timeout = self.timeout(next_tick);
            match self.poll.poll(&mut events, Some(timeout)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Without epoll nothing more can be measured; what was measured is kept.
                Err(_) => return self.hand_over(),
            }
            for event in &events {
                if event.token() != WAKE {
                    self.on_ready(event.token().0, event);
                }
            }
            self.start_due();
            self.fire_timers();
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                self.read_slowly();
                self.hand_over();
            }
            if let Waiting::Pausing(pause) = self.settings.waiting {
                std::thread::sleep(pause);
            }
        }
    }

    /// The time until the next timer is due.
    fn timeout(&self, next_tick: Instant) -> Duration {
        if self.settings.waiting == Waiting::Spinning {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let mut due = next_tick;
        if let Some(Reverse((at, _, _))) = self.timers.peek() {
            due = due.min(*at);
        }
        if self.started < self.wanted && self.gauges.under_way < UNDER_WAY_MAX {
            let (rate, since, before) = self.ramp;
            let next = (self.started - before + 1) as f64 / rate;
            due = due.min(since + Duration::from_secs_f64(next));
        }
        due.saturating_duration_since(now)
    }

    /// Starts the clients that are due by the rate.
    fn start_due(&mut self) {
        let (rate, since, before) = self.ramp;
        let allowed = before + (since.elapsed().as_secs_f64() * rate) as usize;
        while self.started < self.wanted.min(allowed) && self.gauges.under_way < UNDER_WAY_MAX {
            let index = self.started;
            self.started += 1;
            self.connect(index);
        }
    }

    fn fire_timers(&mut self) {
        let now = Instant::now();
        while let Some(&Reverse((at, index, stamp))) = self.timers.peek() {
            if at > now {
                return;
            }
            self.timers.pop();
            if self.clients[index as usize].stamp == stamp {
                self.on_timer(index as usize);
            }
        }
    }

    /// Sets the client's only timer.
    fn set_timer(&mut self, index: usize, after: Duration) {
        let client = &mut self.clients[index];
        client.stamp = client.stamp.wrapping_add(1);
        self.timers.push(Reverse((Instant::now() + after, index as u32, client.stamp)));
    }

    /// Moves a client to another phase, and the gauges with it.
    fn set_phase(&mut self, index: usize, phase: Phase) {
        let client = &mut self.clients[index];
        let before = std::mem::replace(&mut client.phase, phase);
        let step = |gauge: &mut usize, was: bool, is: bool| {
            *gauge = *gauge + usize::from(is) - usize::from(was);
        };
        let gauges = &mut self.gauges;
        step(&mut gauges.under_way, before.is_under_way(), phase.is_under_way());
        step(&mut gauges.upgraded, before.is_upgraded(), phase.is_upgraded());
        step(&mut gauges.subscribed, before == Phase::Open, phase == Phase::Open);
        step(&mut gauges.given_up, before == Phase::GivenUp, phase == Phase::GivenUp);
        if phase == Phase::Open && !std::mem::replace(&mut client.has_succeeded, true) {
            gauges.succeeded += 1;
        }
    }

    /// Drops every connection at once, as a network or a load balancer that fails does.
    fn storm(&mut self, jitter: Duration) {
        self.storm_began = Some(Instant::now());
        for index in 0..self.started {
            if self.clients[index].phase == Phase::GivenUp {
                continue;
            }
            self.reset(index);
            self.clients[index].attempts = 0;
            self.clients[index].not_before = None;
            self.set_phase(index, Phase::Waiting);
            let wait = jitter.mul_f64(self.rng.random());
            self.set_timer(index, wait);
        }
    }

    /// Adds the sums of this round to those that other threads read.
    fn hand_over(&mut self) {
        let gauges = &self.gauges;
        Shared::set(&self.account.connected, gauges.upgraded);
        Shared::set(&self.account.subscribed, gauges.subscribed);
        Shared::set(&self.account.connecting, gauges.under_way);
        Shared::set(&self.account.given_up, gauges.given_up);
        Shared::set(&self.account.succeeded, gauges.succeeded);
        let sink = &mut self.sink;
        self.account.with(|measured| sink.hand_over(measured));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_are_spread_evenly() {
        let channels = (0..7).map(|number| format!("c{number}")).collect();
        let subscriptions = Subscriptions { channels, per_client: 3 };
        let mut subscribers = [0; 7];
        for client in 0..10 {
            let own: Vec<&String> = subscriptions.of(client).collect();
            assert_eq!(own.len(), 3);
            for name in own {
                subscribers[name[1..].parse::<usize>().unwrap()] += 1;
            }
        }
        let computed: Vec<usize> = (0..7).map(|it| subscriptions.subscribers(it, 10)).collect();
        assert_eq!(subscribers.to_vec(), computed);
        assert_eq!(computed.iter().sum::<usize>(), 30);
    }
}
