//! The real server, which can be held up.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crate::support::{GUARD, Server};

/// `JS_CONSUMER_MODE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Ordered,
    Durable,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ordered => "ordered",
            Self::Durable => "durable",
        }
    }
}

/// Clients here are never too slow, and may be sent again whatever they missed.
const ROOM: [&str; 10] = [
    "--queue-messages",
    "100000",
    "--queue-bytes",
    "67108864",
    "--resume-messages",
    "100000",
    "--conn-budget-bytes",
    "268435456",
    "--max-commands-per-second",
    "1000",
];

/// A running server.
pub struct Instance {
    pub server: Server,
    pub started: Instant,
}

impl Instance {
    /// Starts one, with these arguments, and waits until it is ready.
    pub fn start(arguments: &[&str]) -> Self {
        static INSTANCES: AtomicU32 = AtomicU32::new(0);
        let started = Instant::now();
        let name = format!("i{}", INSTANCES.fetch_add(1, Ordering::Relaxed));
        let own = ["--shards", "2", "--instance", &name];
        let server = Server::serve(&[&own[..], &ROOM, arguments].concat());
        server.wait_ready(200);
        Self { server, started }
    }

    /// Holds the process up; what it had asked the broker for goes on coming to its socket.
    pub fn hold_up(&self) {
        self.server.signal("STOP");
        let stat = format!("/proc/{}/stat", self.server.pid());
        let deadline = Instant::now() + GUARD;
        loop {
            let text = std::fs::read_to_string(&stat).unwrap();
            if text.rsplit(") ").next().unwrap().starts_with('T') {
                return;
            }
            assert!(Instant::now() < deadline, "it is not held up: {text}");
        }
    }

    pub fn let_go_on(&self) {
        self.server.signal("CONT");
    }
}
