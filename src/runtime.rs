//! The composition root: threads, their queues, their start and their end.
//!
//! ```text
//! main (tokio)      signals, tells the others to end; the admin port; measures the load
//! ingest (tokio)    the source; one queue to each shard
//! shard-0..n        glommio executors, one per core
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use glommio::ExecutorJoinHandle;
use tokio::sync::{mpsc, oneshot, watch};

use crate::admin::{AdminError, AdminServer, AdminState};
use crate::channel::Pattern;
use crate::clock::Clock;
use crate::config::{DrainConfig, ServerConfig};
use crate::control::machine::{self, UringError};
use crate::control::signals::EndSignals;
use crate::feed::{FEED_CAPACITY, FeedReceiver, feed};
use crate::ingest::{IngestError, Publisher, Source, SourceReport};
use crate::load::{MemoryMeter, PressureLimits, Watcher};
use crate::net::{self, ListenError, ShardCommand, WorkerSettings};
use crate::shard::{Census, Mode, ShardSettings};

/// How long shards have to end after they were told to; their own grace is shorter.
const SHUT_DOWN_DEADLINE: Duration = Duration::from_secs(5);

/// How often it is looked whether all clients have left.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// Commands that wait for a shard: each is given once at most.
const COMMANDS: usize = 3;

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

/// Says that a shard has ended, also when it panicked.
struct EndNotice(mpsc::Sender<()>);

impl Drop for EndNotice {
    fn drop(&mut self) {
        // Full only if more shards ended than there are.
        self.0.try_send(()).unwrap_or_default();
    }
}

/// The running shards.
struct Shards {
    addr: SocketAddr,
    census: Arc<Census>,
    threads: Vec<ExecutorJoinHandle<()>>,
    commands: Vec<mpsc::Sender<ShardCommand>>,
    /// Each shard says here that it has ended.
    ended: mpsc::Receiver<()>,
}

impl Shards {
    fn start(
        config: &ServerConfig,
        mode: &Mode,
        feeds: Vec<FeedReceiver>,
        clock: Clock,
    ) -> Result<Self, RuntimeError> {
        let cpus = machine::cpus();
        let cpu_of = |shard: usize| cpus.get(shard % cpus.len().max(1)).copied().unwrap_or(0);
        machine::check_io_uring(cpu_of(0))?;
        let (listeners, addr) = net::listen(&config.listen, config.shards)?;
        let census = Census::new(config.shards);
        let (has_ended, ended) = mpsc::channel(config.shards);
        let mut feeds = feeds.into_iter();
        let (threads, commands) = (Vec::new(), Vec::new());
        let mut shards = Self { addr, census: Arc::clone(&census), threads, commands, ended };
        for (shard, listener) in listeners.into_iter().enumerate() {
            let (sender, commands) = mpsc::channel(COMMANDS);
            let settings = WorkerSettings {
                shard: ShardSettings {
                    shard,
                    instance: Arc::clone(&config.instance),
                    mode: mode.clone(),
                    limits: config.limits.clone(),
                    census: Arc::clone(&census),
                },
                listener,
                feed: feeds.next(),
                commands,
                sockets_max: config.sockets_max,
                clock,
            };
            let notice = EndNotice(has_ended.clone());
            let thread = machine::executor(cpu_of(shard), "shard").spawn(move || async move {
                let _notice = notice;
                if let Err(error) = net::run(settings).await {
                    tracing::error!(shard, %error, "the shard cannot serve its sockets");
                }
            });
            shards.threads.push(thread.map_err(io::Error::from)?);
            shards.commands.push(sender);
        }
        Ok(shards)
    }

    fn tell(&self, command: ShardCommand) {
        for shard in &self.commands {
            // A shard that has ended needs no command.
            shard.try_send(command).unwrap_or_default();
        }
    }

    /// Has all clients leave: `/ready` fails, then the listeners close and everybody is told.
    /// Returns when all have left, or at the deadline.
    async fn drain(&self, config: DrainConfig) {
        if config.deadline.is_zero() {
            return;
        }
        let open = self.census.total();
        tracing::info!(connections = open, seconds = config.deadline.as_secs(), "draining");
        if !config.ready_delay.is_zero() {
            self.tell(ShardCommand::Retire);
            tokio::time::sleep(config.ready_delay).await;
        }
        let window = config.deadline.saturating_sub(config.ready_delay);
        self.tell(ShardCommand::Drain(window));
        let all_left = async {
            while self.census.sockets() > 0 {
                tokio::time::sleep(DRAIN_POLL).await;
            }
        };
        if tokio::time::timeout(window, all_left).await.is_err() {
            let left = self.census.sockets();
            tracing::warn!(left, "not all clients have left in time, closing the rest");
        }
    }

    /// Waits until every shard has ended, or the deadline.
    async fn end(mut self) -> Result<(), RuntimeError> {
        let mut running = self.threads.len();
        let all = async {
            while running > 0 && self.ended.recv().await.is_some() {
                running -= 1;
            }
        };
        if tokio::time::timeout(SHUT_DOWN_DEADLINE, all).await.is_err() {
            tracing::warn!("connections did not end in time, ending without them");
            return Ok(());
        }
        for thread in self.threads {
            thread.join().map_err(|_| RuntimeError::ShardEnded)?;
        }
        Ok(())
    }
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
        _ = shards.ended.recv() => (Err(RuntimeError::ShardEnded), DrainConfig::AT_ONCE),
        Err(error) = source_end(ingest) => (Err(error), DrainConfig::AT_ONCE),
    };
    let ending = async {
        shards.drain(drain).await;
        // The source, which clients have needed until here, may have ended already.
        stop.send(true).unwrap_or_default();
        shards.tell(ShardCommand::ShutDown);
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
