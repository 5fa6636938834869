//! The `simulate` command: the model's events to JetStream, acknowledged.
//!
//! Bounds: [`OUTSTANDING_MAX`] publishes wait for their acknowledgement; when they do, the next
//! one waits, and the rate falls behind rather than memory growing.

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, Context};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{MissedTickBehavior, interval};

use super::{Model, SimEvent, SimSettings, TICK, unix_ms};
use crate::ingest::IngestError;
use crate::ingest::connect::{Connection, NatsSettings, cause};
use crate::ingest::retry::Retry;
use crate::ingest::stream::StreamSettings;

/// Publishes that wait for their acknowledgement.
const OUTSTANDING_MAX: usize = 4_096;

const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What `simulate` does.
#[derive(Debug, Clone)]
pub struct SimulateSettings {
    /// Where NATS is.
    pub nats: NatsSettings,
    /// The stream, created if it is not there.
    pub stream: StreamSettings,
    /// The market.
    pub sim: SimSettings,
    /// End after so many events.
    pub count: Option<u64>,
    /// End after so long.
    pub duration: Option<Duration>,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events that the stream acknowledged.
    pub stored: u64,
    /// Events that it did not.
    pub failed: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// `simulate` cannot work as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The settings of the connection.
    #[error(transparent)]
    Settings(#[from] IngestError),
}

/// Publishes until the count, the duration or `stop`; calls `progress` every second and whenever
/// something has to be said. A broker that is away is waited for.
///
/// # Errors
/// [`SimulateError`] if the settings cannot be used.
pub async fn simulate(
    settings: &SimulateSettings,
    stop: impl Future<Output = ()>,
    progress: impl Fn(&str),
) -> Result<Summary, SimulateError> {
    settings.nats.options()?;
    let mut run = Run {
        settings,
        model: Model::new(&settings.sim, unix_ms()),
        started: Instant::now(),
        made: 0,
        summary: Summary::default(),
    };
    tokio::select! {
        () = run.sessions(&progress) => {}
        () = stop => {}
    }
    run.summary.elapsed = run.started.elapsed();
    Ok(run.summary)
}

struct Run<'a> {
    settings: &'a SimulateSettings,
    model: Model,
    started: Instant,
    made: u64,
    summary: Summary,
}

impl Run<'_> {
    async fn sessions(&mut self, progress: &impl Fn(&str)) {
        let mut retry = Retry::default();
        while !self.is_done() {
            let error = match self.open().await {
                Ok((connection, context)) => {
                    retry.succeeded();
                    progress(&format!(
                        "publishing to stream {} ({} tokens)",
                        self.settings.stream.name, self.settings.sim.tokens
                    ));
                    self.publish(connection, &context, progress).await;
                    "the connection to NATS was lost".to_owned()
                }
                Err(error) => error,
            };
            if !self.is_done() {
                tokio::time::sleep(retry.failed(&error)).await;
            }
        }
    }

    fn is_done(&self) -> bool {
        self.settings.count.is_some_and(|count| self.made >= count)
            || self.settings.duration.is_some_and(|duration| self.started.elapsed() >= duration)
    }

    async fn open(&self) -> Result<(Connection, Context), String> {
        let connection = self.settings.nats.connect().await.map_err(|error| error.to_string())?;
        let context = jetstream::new(connection.client.clone());
        self.settings.stream.ensure(&context, false).await.map_err(|error| error.to_string())?;
        Ok((connection, context))
    }

    /// Publishes on one connection until it is lost or everything is done.
    async fn publish(
        &mut self,
        mut connection: Connection,
        context: &Context,
        progress: &impl Fn(&str),
    ) {
        let mut outstanding = FuturesUnordered::new();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lines = interval(PROGRESS_EVERY);
        let mut before = self.summary;
        let mut backlog: Vec<SimEvent> = Vec::new();
        while !self.is_done() {
            tokio::select! {
                biased;
                () = connection.lost() => {
                    self.summary.failed += (outstanding.len() + backlog.len()) as u64;
                    return;
                }
                Some(stored) = outstanding.next() => self.count(stored),
                _ = lines.tick() => {
                    let rate = self.summary.stored - before.stored;
                    before = self.summary;
                    progress(&self.line(rate, outstanding.len()));
                }
                _ = ticks.tick(), if backlog.is_empty() => {
                    backlog = self.model.due(unix_ms());
                    backlog.reverse();
                }
                () = std::future::ready(()),
                    if !backlog.is_empty() && outstanding.len() < OUTSTANDING_MAX =>
                {
                    let Some(event) = backlog.pop() else { continue };
                    self.made += 1;
                    match context.publish(event.subject, event.payload.into()).await {
                        Ok(acknowledgement) => outstanding.push(async move {
                            acknowledgement.await.map(drop).map_err(|error| cause(&error))
                        }),
                        Err(error) => self.count(Err(cause(&error))),
                    }
                }
            }
        }
        while let Some(stored) = outstanding.next().await {
            self.count(stored);
        }
    }

    fn count(&mut self, stored: Result<(), String>) {
        match stored {
            Ok(()) => self.summary.stored += 1,
            Err(cause) => {
                self.summary.failed += 1;
                if self.summary.failed.is_power_of_two() {
                    let failed = self.summary.failed;
                    tracing::warn!(%cause, failed, "an event was not stored");
                }
            }
        }
    }

    fn line(&self, rate: u64, outstanding: usize) -> String {
        format!(
            "{:>6.0} s  stored {:>9}  {:>6}/s  failed {}  waiting {}",
            self.started.elapsed().as_secs_f64(),
            self.summary.stored,
            rate,
            self.summary.failed,
            outstanding
        )
    }
}
