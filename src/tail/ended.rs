//! Why one connection ended, or could not be made.

use std::io;
use std::time::{Duration, Instant};

/// Why one connection ended.
pub(super) enum Ended {
    /// It could not be made.
    NotConnected {
        cause: String,
        /// What the server asked for.
        retry_after: Option<Duration>,
    },
    /// It was lost.
    Lost {
        cause: String,
        /// When it was subscribed, if it was.
        subscribed: Option<Instant>,
        /// What `server_draining` asked for.
        not_before: Option<Instant>,
    },
    /// The server says that this client is wrong.
    ForGood(String),
    AllRejected,
    Output(io::Error),
}
