//! Everything that brings messages in: the sources and the publisher that they share.
//!
//! A source connects, reads messages in stream order and hands each to the [`Publisher`], which
//! envelopes it once and pushes it to every shard's queue. Only this folder knows NATS. It never
//! names a shard's rules: it sees queues.
//!
//! | file | owns |
//! |---|---|
//! | `publisher` | one message to every shard's queue |
//! | `pace` | PURE: at most so many a second |
//! | `pause` | PURE: how long a shortage of memory or CPU holds the source back |
//! | `gate` | reads the level of `load` for each message, and waits while there is a shortage |
//! | `report` | counters for the admin port |
//! | `name` | PURE: which names of streams and consumers nats-server takes |
//! | `nats` | where NATS is and how to log in, checked at start |
//! | `connect` | one connection at a time, watched and replaced |
//! | `shutdown` | the flag that ends a source |
//! | `clock` | the time of day, for sources that stamp messages themselves |
//! | `stream` | the JetStream stream: made, verified, changed on request |
//! | `authorities` | a file of certificate authorities |
//! | `filter` | which subjects to ask for |
//! | `stream_state` | PURE: what a stream says of itself |
//! | `follower` | what the shards are told of a stream |
//! | `tracker` | PURE: where we are in the stream, and what that means |
//! | `ending` | PURE: whether anything is missing at the end of the stream |
//! | `notice` | PURE: when clients are told of losses |
//! | `jetstream/` | source: a consumer of its own over a stream, ordered or durable |
//! | `core` | source: plain NATS pub/sub |
//! | `http/` | source: a backend that is polled |
//! | `sim/` | source: made-up tokens; and the command that publishes them |
//!
//! A further source is a variant of [`Source`] with a `run` of the same shape.

mod authorities;
mod clock;
mod connect;
mod core;
mod ending;
mod filter;
mod follower;
mod gate;
mod http;
mod jetstream;
mod name;
mod nats;
mod notice;
mod pace;
mod pause;
mod publisher;
mod report;
mod shutdown;
mod sim;
mod stream;
mod stream_state;
mod tracker;

use tokio::sync::watch;

pub use self::core::{CORE_SUBJECTS_DEFAULT, CoreSettings};
pub use self::http::{EndpointError, HttpSettings, HttpSettingsError};
pub use authorities::AuthoritiesError;
pub use jetstream::{ConsumerMode, DurableSettings, JetStreamSettings};
pub use nats::{NatsSettings, NatsSettingsError};
pub use pace::RATE_MAX;
pub use publisher::{Publisher, SUBJECT_BYTES_MAX, ShardsGone};
pub use report::{Counter, Elapsed, SourceReport};
pub use sim::{SimSettings, SimulateError, SimulateSettings, Summary, simulate};
pub use stream::{STREAM_MAX_AGE_MIN, StreamSettings, StreamSettingsError, parse_subjects};

#[cfg(test)]
pub(crate) use ending::Look;
#[cfg(test)]
pub(crate) use filter::FilterPlan;
#[cfg(test)]
pub(crate) use follower::{Follower, Stored, Taken};
#[cfg(test)]
pub(crate) use stream_state::StreamState;

use shutdown::Shutdown;

/// Where messages come from, with the settings of that source.
#[derive(Debug, Clone)]
pub enum Source {
    /// The price simulator in this process: nothing else is needed.
    Sim(SimSettings),
    /// Plain NATS pub/sub: no history, at most once.
    Core(CoreSettings),
    /// A JetStream stream.
    JetStream(JetStreamSettings),
    /// A backend that is polled over HTTP.
    Http(HttpSettings),
}

/// Why a source cannot run at all: the operator has to correct the settings. What a broker or a
/// network may cause is not here: it is tried again for ever.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// Where NATS is or how to log in.
    #[error(transparent)]
    Nats(#[from] NatsSettingsError),
    /// The stream or the subjects.
    #[error(transparent)]
    Stream(#[from] StreamSettingsError),
    /// Where the backend is or how to log in.
    #[error(transparent)]
    Http(#[from] HttpSettingsError),
}

impl Source {
    /// The source's name, as `WS_SOURCE` has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sim(_) => "sim",
            Self::Core(_) => "core",
            Self::JetStream(_) => "jetstream",
            Self::Http(_) => "http",
        }
    }

    /// Checks what can be checked without a connection, as [`run`] does first.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(&self) -> Result<(), IngestError> {
        match self {
            Self::Sim(_) => {}
            Self::Core(settings) => {
                parse_subjects(&settings.subjects)?;
                settings.nats.check()?;
            }
            Self::JetStream(settings) => settings.check()?,
            Self::Http(settings) => {
                if let Some(mistake) = settings.mistakes().into_iter().next() {
                    return Err(mistake.into());
                }
            }
        }
        Ok(())
    }
}

/// Runs a source until `shutdown` holds true (or its sender is gone), or the shards have ended.
/// It needs a tokio runtime with IO and time; one on the current thread is enough.
///
/// # Errors
/// Settings that the operator has to correct, found before the first connection.
pub async fn run(
    source: Source,
    publisher: Publisher,
    shutdown: watch::Receiver<bool>,
) -> Result<(), IngestError> {
    let shutdown = Shutdown::new(shutdown);
    match source {
        Source::Sim(settings) => sim::run(&settings, publisher, &shutdown).await,
        Source::Core(settings) => self::core::run(settings, publisher, &shutdown).await,
        Source::JetStream(settings) => jetstream::run(settings, publisher, &shutdown).await,
        Source::Http(settings) => self::http::run(settings, publisher, &shutdown).await,
    }
}
