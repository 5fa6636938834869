//! Everything that brings messages in: the sources and the publisher that they share.
//!
//! A source connects, reads messages in stream order and hands each to the [`Publisher`], which
//! envelopes it once and pushes it to every shard's queue. Only this folder knows NATS. It never
//! names a shard's rules: it sees queues.
//!
//! ```text
//! publisher  one message -> every shard's queue
//! jetstream  the stream's messages, through an ordered consumer of our own
//! position   where the consumer is: duplicates, holes, a stream made again (pure)
//! stream     create or verify the stream
//! core       NATS publish-subscribe without a stream
//! connect    a NATS connection, its settings and what can be wrong with them
//! retry      backoff with jitter, and a log that does not repeat itself
//! sim        the price simulator, in process and as a publisher
//! ```

mod connect;
mod core;
mod jetstream;
mod position;
mod publisher;
mod retry;
pub mod sim;
mod stream;

pub use connect::NatsSettings;
pub use core::CoreSettings;
pub use jetstream::JetStreamSettings;
pub use publisher::{Publisher, ShardsGone};
pub use stream::{StreamSettings, is_valid_stream_name};

use tokio::sync::watch;

/// A source that cannot work as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// NATS_URL names no server that could be connected to.
    #[error("NATS_URL: {url:?} is not a NATS address ({problem}): write nats://host:4222")]
    Url {
        /// The address, without user and password.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file that the settings name cannot be used.
    #[error("{setting}: {path:?} cannot be used ({problem}): {fix}")]
    File {
        /// The setting.
        setting: &'static str,
        /// The file.
        path: String,
        /// What the system or the parser said.
        problem: String,
        /// What to do.
        fix: &'static str,
    },
}

/// Where messages come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The simulator in this process.
    Sim(sim::SimSettings),
    /// NATS publish-subscribe.
    Core(CoreSettings),
    /// A JetStream stream.
    JetStream(Box<JetStreamSettings>),
}

impl Source {
    /// The source's name, as `WS_SOURCE` has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sim(_) => "sim",
            Self::Core(_) => "core",
            Self::JetStream(_) => "jetstream",
        }
    }

    /// Finds out whether the settings can work at all, before anything is started.
    ///
    /// # Errors
    /// What cannot be used, and the fix.
    pub fn check(&self) -> Result<(), IngestError> {
        match self {
            Self::Sim(_) => Ok(()),
            Self::Core(settings) => settings.nats.options().map(drop),
            Self::JetStream(settings) => settings.nats.options().map(drop),
        }
    }
}

/// Runs a source until `stop` says so or the shards have ended. A broker that is away is waited
/// for, not an error. Needs a tokio runtime.
pub async fn run(source: Source, mut publisher: Publisher, stop: watch::Receiver<bool>) {
    let ended: Result<(), ShardsGone> = match source {
        Source::Sim(settings) => sim::run(&settings, &mut publisher, stop).await,
        Source::Core(settings) => core::run(&settings, &mut publisher, stop).await,
        Source::JetStream(settings) => jetstream::run(&settings, &mut publisher, stop).await,
    };
    match ended {
        Ok(()) => tracing::debug!("the source was stopped"),
        Err(gone) => tracing::debug!(%gone, "the source ends"),
    }
}

/// Resolves when the process is shutting down.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The sender is gone only if the control thread is, which is the end as well.
    if stop.wait_for(|is_stopped| *is_stopped).await.is_err() {
        tracing::debug!("the control thread is gone");
    }
}
