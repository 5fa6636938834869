//! What `tail` is asked for, what it has seen, and why it ended badly.

use std::fmt;
use std::io;
use std::time::Duration;

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
    /// The longest wait before another attempt.
    pub backoff_max: Duration,
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
    /// Trying again would not help.
    #[error("{url}: {cause}; trying again does not help")]
    ForGood {
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
