//! The threads of the shards: their start, what they are told, and their end.
//!
//! Bounds: a shard has [`SHUT_DOWN_DEADLINE`] to end; a drain has the time of its settings.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use glommio::ExecutorJoinHandle;
use tokio::sync::mpsc;

use super::RuntimeError;
use crate::clock::Clock;
use crate::config::{DrainConfig, ServerConfig};
use crate::control::machine;
use crate::feed::FeedReceiver;
use crate::net::{self, WorkerSettings};
use crate::shard::{Census, Mode, ShardSettings};
use crate::shard_command::{CommandError, CommandSender, ShardCommand, command_queue};

/// How long shards have to end after they were told to; their own grace is shorter.
const SHUT_DOWN_DEADLINE: Duration = Duration::from_secs(5);

/// How often a drain asks whether all clients have left.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// Says that a shard has ended, also when it panicked.
struct EndNotice(mpsc::Sender<()>);

impl Drop for EndNotice {
    fn drop(&mut self) {
        // Full only if more shards ended than there are.
        self.0.try_send(()).unwrap_or_default();
    }
}

/// The running shards.
pub(super) struct Shards {
    /// Where they listen.
    pub addr: SocketAddr,
    /// What they tell about themselves.
    pub census: Arc<Census>,
    threads: Vec<ExecutorJoinHandle<()>>,
    commands: Vec<CommandSender>,
    /// Each shard says here that it has ended.
    ended: mpsc::Receiver<()>,
}

impl Shards {
    /// Starts one thread per shard, each with its listening socket.
    ///
    /// # Errors
    /// The machine or the address does not allow it.
    pub(super) fn start(
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
            let (sender, commands) = command_queue();
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

    /// Resolves when a shard has ended.
    pub(super) async fn one_ended(&mut self) {
        // They hold the other ends of this queue: it closes only when all have ended.
        self.ended.recv().await.unwrap_or_default();
    }

    /// Has every shard carry this out; one that is stuck keeps no other from it.
    async fn deliver(&self, command: impl Fn() -> ShardCommand) {
        let outcomes = join_all(self.commands.iter().map(|shard| shard.deliver(command()))).await;
        warn_of_failures(&outcomes);
    }

    /// Has `/ready` fail; returns when it does in every shard.
    async fn retire(&self) {
        let questions = self.commands.iter().map(|shard| shard.ask(ShardCommand::Retire));
        warn_of_failures(&join_all(questions).await);
    }

    /// Has all clients leave: `/ready` fails, then the listeners close and everybody is told.
    /// Returns when all have left, or at the deadline.
    pub(super) async fn drain(&self, config: DrainConfig) {
        if config.deadline.is_zero() {
            return;
        }
        let open = self.census.total();
        tracing::info!(connections = open, seconds = config.deadline.as_secs(), "draining");
        if !config.ready_delay.is_zero() {
            self.retire().await;
            tokio::time::sleep(config.ready_delay).await;
        }
        let window = config.deadline.saturating_sub(config.ready_delay);
        self.deliver(|| ShardCommand::Drain(window)).await;
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

    /// Has every shard end, and waits until they have, or the deadline.
    ///
    /// # Errors
    /// One of them panicked.
    pub(super) async fn end(mut self) -> Result<(), RuntimeError> {
        self.deliver(|| ShardCommand::ShutDown).await;
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

fn warn_of_failures(outcomes: &[Result<(), CommandError>]) {
    for (shard, outcome) in outcomes.iter().enumerate() {
        match outcome {
            // A shard that has ended needs no command.
            Ok(()) | Err(CommandError::Ended) => {}
            Err(error) => tracing::warn!(shard, %error, "a shard was not told to end"),
        }
    }
}
