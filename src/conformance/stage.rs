//! The listener, and what every script needs of it: the next connection, its `subscribe`, and a
//! look at the position from which it resumes.

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::connection::{Connection, now_ms};
use super::message::{At, Subscribe, store_time};
use super::rule::Rule;
use super::verdict::{Outcome, Stop, broken, not_exercised};

/// Where the first subscription of a script begins.
pub(super) const START: u64 = 1_000;

/// What `welcome` asks for, so that a run does not take minutes.
const HEARTBEAT_INTERVAL_MS: u64 = 1_000;

/// A client that has answered a ping gets this much longer to take in what came before it.
const SETTLE: Duration = Duration::from_millis(250);

/// The longest wait for the answer to a ping.
const PONG_TIMEOUT: Duration = Duration::from_secs(15);

/// The wait between two looks for a connection.
const LOOK: Duration = Duration::from_millis(5);

pub(super) struct Stage<'a> {
    listener: TcpListener,
    /// The longest wait for the client.
    pub patience: Duration,
    stop: &'a AtomicBool,
    epoch: String,
    has_resumed: bool,
    connections: u64,
    /// What `welcome` names; `None` for a server without a source so far.
    pub welcome_epoch: Option<String>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(listener: TcpListener, patience: Duration, stop: &'a AtomicBool) -> Self {
        Self {
            listener,
            patience,
            stop,
            epoch: String::new(),
            has_resumed: false,
            connections: 0,
            welcome_epoch: None,
        }
    }

    /// Begins a scenario: each has a stream of its own.
    pub(super) fn begin(&mut self, name: &str) {
        self.epoch = format!("KIT-{name}");
        self.welcome_epoch = Some(self.epoch.clone());
    }

    /// Whether the client has ever resumed.
    pub(super) fn has_resumed(&self) -> bool {
        self.has_resumed
    }

    /// A position in this scenario's stream.
    pub(super) fn at(&self, pos: u64) -> At {
        At::new(&self.epoch, pos)
    }

    /// Fails after ctrl-C.
    pub(super) fn check(&self) -> Result<(), Stop> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Stop::Interrupted),
            false => Ok(()),
        }
    }

    /// A connection that waits to be accepted.
    pub(super) fn poll_stream(&self) -> Option<TcpStream> {
        self.listener.accept().ok().map(|(stream, _)| stream)
    }

    /// The next TCP connection; `None` after `limit`.
    pub(super) fn stream(&self, limit: Instant) -> Result<Option<TcpStream>, Stop> {
        loop {
            self.check()?;
            if let Some(stream) = self.poll_stream() {
                return Ok(Some(stream));
            }
            if Instant::now() >= limit {
                return Ok(None);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The upgrade and `welcome`. `None` if it was no WebSocket request: health checks may come, too.
    pub(super) fn welcome(&mut self, stream: TcpStream) -> Option<Connection> {
        let mut connection = Connection::upgrade(stream)?;
        self.connections += 1;
        let (pos, ts) = match self.welcome_epoch {
            Some(_) => (START - 10, store_time(START - 10)),
            None => (0, 0),
        };
        connection.say(&json!({
            "type": "welcome",
            "connection_id": format!("kit-{}", self.connections),
            "instance": "conformance",
            "epoch": self.welcome_epoch,
            "pos": pos,
            "ts": ts,
            "server_time": now_ms(),
            "heartbeat_interval_ms": HEARTBEAT_INTERVAL_MS,
            "idle_timeout_ms": 60_000,
            "limits": {
                "message_bytes": 65_536, "commands_per_second": 50, "channels": 1_024,
                "channel_bytes": 256, "replay_messages": 100, "queue_messages": 256,
                "queue_bytes": 262_144, "batch_ms": 0, "resume_messages": 6_000
            }
        }));
        Some(connection)
    }

    /// The next WebSocket connection and its subscription; `None` if none came in time.
    fn next(&mut self) -> Result<Option<(Connection, Subscribe)>, Stop> {
        let limit = Instant::now() + self.patience;
        while let Some(stream) = self.stream(limit)? {
            if let Some(connection) = self.welcome(stream) {
                return self.subscription(connection).map(Some);
            }
        }
        Ok(None)
    }

    /// Waits for the subscription of a connection.
    pub(super) fn subscription(
        &mut self,
        mut connection: Connection,
    ) -> Result<(Connection, Subscribe), Stop> {
        let limit = Instant::now() + self.patience;
        loop {
            self.check()?;
            connection.step();
            if let Some(subscribe) = connection.take_subscribe() {
                self.has_resumed |= subscribe.resume.is_some();
                return Ok((connection, subscribe));
            }
            if !connection.is_open() {
                return broken(Rule::Subscribe, "it closed the connection without a `subscribe`");
            }
            if Instant::now() >= limit {
                return broken(Rule::Subscribe, "it connected and sent no `subscribe`");
            }
        }
    }

    /// The first connection of a scenario.
    pub(super) fn first(&mut self) -> Result<(Connection, Subscribe), Stop> {
        match self.next()? {
            Some(first) => Ok(first),
            None => not_exercised(format!("no connection came within {:?}", self.patience)),
        }
    }

    /// The first connection, answered at [`START`] without what came before.
    pub(super) fn open(&mut self) -> Result<Connection, Stop> {
        let (mut connection, subscribe) = self.first()?;
        let at = self.at(START);
        refuse_resume(&mut connection, &subscribe, Some(&at), "epoch_changed");
        Ok(connection)
    }

    /// The first connection, with one event that brings the position to `START + 1`; the client
    /// has read it.
    pub(super) fn open_with_event(&mut self) -> Result<Connection, Stop> {
        let mut connection = self.open()?;
        connection.event(START + 1, START - 10);
        self.settle(&mut connection)?;
        Ok(connection)
    }

    /// The client comes back after the end of a connection.
    pub(super) fn again(&mut self) -> Result<(Connection, Subscribe), Stop> {
        match self.next()? {
            Some(next) => Ok(next),
            None => {
                broken(Rule::ComeBack, format!("it did not come back within {:?}", self.patience))
            }
        }
    }

    /// Reads what the client sends until `is_over` or `limit`; whether it is over.
    pub(super) fn until(
        &self,
        connection: &mut Connection,
        limit: Duration,
        is_over: impl Fn(&Connection) -> bool,
    ) -> Result<bool, Stop> {
        let limit = Instant::now() + limit;
        while !is_over(connection) {
            self.check()?;
            if Instant::now() >= limit {
                return Ok(false);
            }
            connection.step();
        }
        Ok(true)
    }

    /// Waits until the client has taken in what was sent; whether it is still there.
    pub(super) fn settle_or_leave(&self, connection: &mut Connection) -> Result<bool, Stop> {
        let payload = now_ms().to_string().into_bytes();
        connection.ping(&payload);
        let has_settled =
            |connection: &Connection| connection.has_ponged(&payload) || !connection.is_open();
        self.until(connection, PONG_TIMEOUT, has_settled)?;
        self.until(connection, SETTLE, |connection| !connection.is_open())?;
        Ok(connection.is_open())
    }

    /// As [`Self::settle_or_leave`], where the client has no reason to leave.
    pub(super) fn settle(&self, connection: &mut Connection) -> Result<(), Stop> {
        match self.settle_or_leave(connection)? {
            true => Ok(()),
            false => broken(Rule::Stay, "it closed a connection that works"),
        }
    }

    /// Waits for so many answered heartbeats.
    pub(super) fn heartbeats(&self, connection: &mut Connection, count: u64) -> Result<(), Stop> {
        let wanted = connection.heartbeats_total + count;
        let is_over = |connection: &Connection| {
            connection.heartbeats_total >= wanted || !connection.is_open()
        };
        if !self.until(connection, self.patience, is_over)? {
            return not_exercised(format!("it sent no heartbeat for {:?}", self.patience));
        }
        self.settle(connection)
    }
}

/// Answers a subscription at `at` without what came before; a `resume` is refused.
pub(super) fn refuse_resume(
    connection: &mut Connection,
    subscribe: &Subscribe,
    at: Option<&At>,
    reason: &str,
) {
    let mut answer = position(at);
    answer["recovered"] = false.into();
    answer["resume"] = json!({"reason": reason, "message": "says the conformance kit"});
    connection.answer(subscribe, answer);
}

/// Lets a client resume: `messages` are promised, `at` is the server's newest position.
pub(super) fn recover(connection: &mut Connection, subscribe: &Subscribe, at: &At, messages: u64) {
    let mut answer = position(Some(at));
    answer["recovered"] = true.into();
    answer["resume"] = json!({"messages": messages});
    connection.answer(subscribe, answer);
}

fn position(at: Option<&At>) -> Value {
    at.map_or_else(|| json!({"epoch": null, "pos": 0, "ts": 0}), At::json)
}

/// The client must resume from one of these positions.
pub(super) fn expect(subscribe: &Subscribe, rule: Rule, allowed: &[At]) -> Result<(), Stop> {
    match &subscribe.resume {
        None => Err(Stop::Outcome(Outcome::WithoutResume { rule })),
        Some(_) => expect_if_any(subscribe, rule, allowed),
    }
}

/// If the client resumes, then from one of these positions.
pub(super) fn expect_if_any(subscribe: &Subscribe, rule: Rule, allowed: &[At]) -> Result<(), Stop> {
    let Some(resume) = &subscribe.resume else { return Ok(()) };
    let is_same = |at: &At| {
        let at = at.json();
        ["epoch", "pos", "ts"].into_iter().all(|member| resume[member] == at[member])
    };
    if allowed.iter().any(is_same) {
        return Ok(());
    }
    let right: Vec<String> = allowed.iter().map(|at| at.json().to_string()).collect();
    let right = match right.is_empty() {
        true => "there is no position to resume from".to_owned(),
        false => format!("right is {}", right.join(" or ")),
    };
    broken(rule, format!("it resumed from {resume}; {right}"))
}
