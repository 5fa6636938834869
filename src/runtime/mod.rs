//! The composition root: threads, their queues, their start and their end.
//!
//! ```text
//! main (tokio)      signals, tells the others to end; the admin port; measures the load
//! ingest (tokio)    the source; one queue to each shard
//! shard-0..n        glommio executors, one per core: [`shards`]
//! ```

mod shards;

use std::io;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use self::shards::Shards;
use crate::admin::{AdminError, AdminServer, AdminState};
use crate::channel::Pattern;
use crate::clock::Clock;
use crate::config::{DrainConfig, ServerConfig};
use crate::control::machine::UringError;
use crate::control::signals::EndSignals;
use crate::feed::{FEED_CAPACITY, feed};
use crate::ingest::{IngestError, Publisher, Source, SourceReport};
use crate::load::{MemoryMeter, PressureLimits, Watcher};
use crate::net::ListenError;
use crate::shard::Mode;

/// Why the server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The admin port cannot be listened on.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// io_uring cannot be used.
    #[error(transparent)]
    Uring(#[from] UringError),
    /// The system refused a thread or a signal handler.
    #[error("the system refused to start the server: {0}")]
    System(#[from] io::Error),
    /// A shard ended by itself: a bug of ours, which its log tells of.
    #[error("a shard ended unexpectedly; please report the panic above")]
    ShardEnded,
    /// The source cannot run: its settings, which the configuration should have refused.
    #[error("the source cannot run: {0}")]
    Source(#[from] IngestError),
    /// The source ended by itself: a bug of ours, which its log tells of.
    #[error("the source ended unexpectedly; please report the panic above")]
    SourceEnded,
}

/// What feeds the channels.
#[derive(Debug)]
pub struct Feeding {
    /// Where messages come from.
    pub source: Source,
    /// What covers the channels.
    pub allowed: Arc<[Pattern]>,
    /// Events a second that are handed to the shards, at most; 0 is no limit.
    pub events_per_second_max: u32,
    /// At what use of memory and CPU less is taken in.
    pub pressure_limits: PressureLimits,
}

/// Runs `serve`; ends at a signal.
///
/// # Errors
/// Why it could not start or go on.
pub fn serve(config: &ServerConfig, feeding: Feeding) -> Result<(), RuntimeError> {
    let Feeding { source, allowed, events_per_second_max, pressure_limits } = feeding;
    let admin = config.admin_addr.map(AdminServer::listen).transpose()?;
    let name = source.name();
    let report = Arc::<SourceReport>::default();
    let (senders, receivers) = (0..config.shards).map(|_| feed(FEED_CAPACITY)).unzip();
    let clock = Clock::start();
    let shards = Shards::start(config, &Mode::Channels { allowed }, receivers, clock)?;
    tracing::info!(addr = %shards.addr, shards = config.shards, source = name, "listening");
    let census = Arc::clone(&shards.census);
    let connection_budget_bytes = config.limits.connection_budget_bytes;
    let memory = Arc::new(MemoryMeter::new(Arc::clone(&census)));
    let watcher = Watcher::new(pressure_limits, Arc::clone(&memory));
    let publisher = Publisher::new(senders)
        .with_clock(clock)
        .with_rate_max(events_per_second_max)
        .with_load(watcher.level())
        .with_report(Arc::clone(&report));
    block_on(async {
        if let Some(admin) = admin {
            admin.spawn(AdminState { census, memory, source: report, connection_budget_bytes })?;
        }
        tokio::spawn(watcher.run());
        run(shards, config.drain, Some((source, publisher))).await
    })
}

/// Runs `echo`; ends at a signal.
///
/// # Errors
/// Why it could not start or go on.
pub fn echo(config: &ServerConfig) -> Result<(), RuntimeError> {
    let shards = Shards::start(config, &Mode::Echo, Vec::new(), Clock::start())?;
    tracing::info!(addr = %shards.addr, shards = config.shards, "listening");
    block_on(run(shards, config.drain, None))
}

fn block_on(server: impl Future<Output = Result<(), RuntimeError>>) -> Result<(), RuntimeError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(server)
}

async fn run(
    mut shards: Shards,
    drain: DrainConfig,
    source: Option<(Source, Publisher)>,
) -> Result<(), RuntimeError> {
    let mut signals = EndSignals::new()?;
    let (stop, stopped) = watch::channel(false);
    let ingest = match source {
        Some((source, publisher)) => Some(spawn_ingest(source, publisher, stopped)?),
        None => None,
    };
    let (outcome, drain) = tokio::select! {
        biased;
        (name, _) = signals.next() => {
            tracing::info!(signal = name, "shutting down");
            (Ok(()), drain)
        }
        // A shard that ends takes the source with it.
        () = shards.one_ended() => (Err(RuntimeError::ShardEnded), DrainConfig::AT_ONCE),
        Err(error) = source_end(ingest) => (Err(error), DrainConfig::AT_ONCE),
    };
    let ending = async {
        shards.drain(drain).await;
        // The source, which clients have needed until here, may have ended already.
        stop.send(true).unwrap_or_default();
        shards.end().await
    };
    tokio::select! {
        ended = ending => outcome.and(ended),
        (name, code) = signals.next() => {
            tracing::warn!(signal = name, "ending at once");
            std::process::exit(code)
        }
    }
}

/// How the source ended; nothing comes if it panicked.
type SourceEnd = oneshot::Receiver<Result<(), IngestError>>;

/// Resolves if the source ends before it was told to.
async fn source_end(ingest: Option<SourceEnd>) -> Result<(), RuntimeError> {
    match ingest {
        None => std::future::pending().await,
        Some(end) => match end.await {
            Ok(Err(error)) => Err(error.into()),
            // It found a shard's queue closed.
            Ok(Ok(())) => Err(RuntimeError::ShardEnded),
            Err(_) => Err(RuntimeError::SourceEnded),
        },
    }
}

fn spawn_ingest(
    source: Source,
    publisher: Publisher,
    stopped: watch::Receiver<bool>,
) -> io::Result<SourceEnd> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (has_ended, ended) = oneshot::channel();
    std::thread::Builder::new().name("ingest".into()).spawn(move || {
        let end = runtime.block_on(crate::ingest::run(source, publisher, stopped));
        // Nobody waits for it any more once the server was told to end.
        has_ended.send(end).unwrap_or_default();
    })?;
    Ok(ended)
}
