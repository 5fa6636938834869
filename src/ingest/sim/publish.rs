//! The `simulate` command: the simulator's events into JetStream.
//!
//! Events are sent without waiting for each acknowledgement; at most a window of them is
//! outstanding. An event that was not acknowledged is counted as failed and not sent again (the
//! broker may have stored it; the next event is as good): a count to reach counts what the broker
//! acknowledged. The connection and the stream are made again as often as it takes. Bounds: the
//! window, and one second of events that are made up after an outage.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::{self, Context, publish::PublishAck};
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;

use super::model::{Model, SimSettings};
use super::source::SimClock;
use crate::ingest::connect::{Connector, End, Link, guard};
use crate::ingest::nats::{NatsSettings, NatsSettingsError};
use crate::ingest::shutdown::Shutdown;
use crate::ingest::stream::{StreamKeeper, StreamSettings, StreamSettingsError};
use crate::retry::Retry;

/// The largest window: the client library's own limit on unacknowledged messages.
const OUTSTANDING_MAX: usize = 5_000;

/// How long acknowledgements are awaited at the end.
const LAST_ACKS: Duration = Duration::from_secs(2);

/// Time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Ten years: no limit, within what timers can count.
const NO_TIME_LIMIT: Duration = Duration::from_secs(315_360_000);

/// What to publish, where, and until when.
#[derive(Debug, Clone)]
pub struct SimulateSettings {
    /// Where NATS is.
    pub nats: NatsSettings,
    /// The stream, made if it is missing.
    pub stream: StreamSettings,
    /// Tokens, rate and seed.
    pub model: SimSettings,
    /// Events under way without an acknowledgement, 1 to 5,000.
    pub outstanding_max: usize,
    /// Stop when the broker has acknowledged so many.
    pub count: Option<u64>,
    /// Stop after this time.
    pub duration: Option<Duration>,
}

/// Why the command cannot run at all: the settings.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// Where NATS is or how to log in.
    #[error(transparent)]
    Nats(#[from] NatsSettingsError),
    /// The stream or the subjects.
    #[error(transparent)]
    Stream(#[from] StreamSettingsError),
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Events that the broker acknowledged.
    pub published_total: u64,
    /// Events that it refused, or did not acknowledge in time.
    pub failed_total: u64,
    /// Time since the start.
    pub elapsed: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        let rate = self.published_total as f64 / seconds.max(0.001);
        write!(
            f,
            "published {} in {seconds:.1} s ({rate:.0}/s), failed {}",
            self.published_total, self.failed_total
        )
    }
}

/// Publishes until `shutdown` holds true, the count is reached or the time is over. Prints a line
/// of progress to standard error every second.
///
/// # Errors
/// Settings that the operator has to correct, found before the first connection.
pub async fn simulate(
    settings: SimulateSettings,
    shutdown: watch::Receiver<bool>,
) -> Result<Summary, SimulateError> {
    let shutdown = Shutdown::new(shutdown);
    settings.stream.check()?;
    let connector = Connector::new(settings.nats)?;
    let counters = Counters::default();
    let started = Instant::now();
    let clock = SimClock::start();
    let mut simulator = Simulator {
        model: Model::new(&settings.model, clock.now_ms()),
        clock,
        keeper: StreamKeeper::new(settings.stream),
        outstanding_max: settings.outstanding_max.clamp(1, OUTSTANDING_MAX),
        count: settings.count.unwrap_or(u64::MAX),
        acks: FuturesUnordered::new(),
        retry: Retry::default(),
        counters: &counters,
    };
    let time_limit = settings.duration.unwrap_or(NO_TIME_LIMIT);
    tokio::select! {
        () = simulator.work(connector, &shutdown) => {}
        () = tokio::time::sleep(time_limit) => {}
        () = counters.print_progress() => {}
    }
    simulator.await_last_acks().await;
    Ok(counters.summary(started.elapsed()))
}

/// What is counted, for the simulator and the progress line.
#[derive(Debug, Default)]
struct Counters {
    published_total: AtomicU64,
    failed_total: AtomicU64,
    outstanding: AtomicU64,
}

impl Counters {
    fn summary(&self, elapsed: Duration) -> Summary {
        Summary {
            published_total: self.published_total.load(Ordering::Relaxed),
            failed_total: self.failed_total.load(Ordering::Relaxed),
            elapsed,
        }
    }

    /// Prints for ever.
    async fn print_progress(&self) {
        let mut ticks = tokio::time::interval(PROGRESS_EVERY);
        let mut before = self.summary(Duration::ZERO);
        let mut printed = ticks.tick().await;
        loop {
            let now = ticks.tick().await;
            let Summary { published_total, failed_total, .. } = self.summary(Duration::ZERO);
            let seconds = now.duration_since(printed).as_secs_f64().max(0.001);
            let rate = (published_total - before.published_total) as f64 / seconds;
            let outstanding = self.outstanding.load(Ordering::Relaxed);
            eprintln!(
                "published {published_total} ({rate:.0}/s), failed {failed_total}, \
                 outstanding {outstanding}"
            );
            (before.published_total, printed) = (published_total, now);
        }
    }
}

/// Why publishing into one stream over one connection ended.
enum Pumped {
    /// Shutdown, or the count is reached.
    Done,
    /// The connection is gone.
    Lost,
    /// The stream is gone.
    StreamMissing,
}

impl From<End> for Pumped {
    fn from(end: End) -> Self {
        match end {
            End::Shutdown => Self::Done,
            End::Lost => Self::Lost,
        }
    }
}

type Ack = <PublishAckFuture as IntoFuture>::IntoFuture;

struct Simulator<'a> {
    model: Model,
    clock: SimClock,
    keeper: StreamKeeper,
    outstanding_max: usize,
    count: u64,
    acks: FuturesUnordered<Ack>,
    retry: Retry,
    counters: &'a Counters,
}

impl Simulator<'_> {
    async fn work(&mut self, mut connector: Connector, shutdown: &Shutdown) {
        while let Some(link) = connector.connect(shutdown).await {
            if let Pumped::Done = self.publish_over(&link, &mut connector, shutdown).await {
                return;
            }
            connector.lost(&link);
            self.abandon();
        }
    }

    /// Counts what is under way as failed: the connection or the stream that would have
    /// acknowledged it is gone.
    fn abandon(&mut self) {
        self.counters.failed_total.fetch_add(self.acks.len() as u64, Ordering::Relaxed);
        self.acks.clear();
        self.counters.outstanding.store(0, Ordering::Relaxed);
    }

    /// Publishes over one connection, into the stream and into its successors.
    async fn publish_over(
        &mut self,
        link: &Link,
        connector: &mut Connector,
        shutdown: &Shutdown,
    ) -> Pumped {
        let context = jetstream::new(link.client.clone());
        loop {
            match guard(link, shutdown, self.keeper.ensure(&context)).await {
                Ok(Ok(_)) => {
                    connector.settled();
                    match self.pump(&context, link, shutdown).await {
                        Pumped::StreamMissing => self.abandon(),
                        ended => return ended,
                    }
                }
                Ok(Err(error)) => self.report(&error.to_string()),
                Err(end) => return end.into(),
            }
            let pause = tokio::time::sleep(self.retry.delay(rand::random()));
            if let Err(end) = guard(link, shutdown, pause).await {
                return end.into();
            }
        }
    }

    async fn pump(&mut self, context: &Context, link: &Link, shutdown: &Shutdown) -> Pumped {
        loop {
            while let Some(Some(ack)) = self.acks.next().now_or_never() {
                if self.settle(ack) == Settled::StreamMissing {
                    return Pumped::StreamMissing;
                }
            }
            if self.published() >= self.count {
                return Pumped::Done;
            }
            if let Err(ended) = self.send_due(context, link, shutdown).await {
                return ended;
            }
            let has_room = self.has_room();
            let wait = self.clock.until(self.model.next_due_ms());
            let settled = tokio::select! {
                biased;
                () = shutdown.fired() => return Pumped::Done,
                () = link.lost() => return Pumped::Lost,
                Some(ack) = self.acks.next() => self.settle(ack),
                () = tokio::time::sleep(wait), if has_room => Settled::Counted,
            };
            if settled == Settled::StreamMissing {
                return Pumped::StreamMissing;
            }
        }
    }

    /// Sends every event that is due, as far as the window has room.
    async fn send_due(
        &mut self,
        context: &Context,
        link: &Link,
        shutdown: &Shutdown,
    ) -> Result<(), Pumped> {
        while self.has_room() {
            let Some(event) = self.model.next(self.clock.now_ms()) else { break };
            let payload = Bytes::copy_from_slice(event.payload.as_bytes());
            let publish = context.publish(event.subject.to_owned(), payload);
            match guard(link, shutdown, publish).await? {
                Ok(ack) => self.acks.push(ack.into_future()),
                Err(error) => self.fail(&error),
            }
            self.counters.outstanding.store(self.acks.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether another event may be under way: the window has room, and the count needs it.
    fn has_room(&self) -> bool {
        let outstanding = self.acks.len();
        outstanding < self.outstanding_max && self.published() + (outstanding as u64) < self.count
    }

    fn published(&self) -> u64 {
        self.counters.published_total.load(Ordering::Relaxed)
    }

    fn settle(&mut self, ack: Result<PublishAck, PublishError>) -> Settled {
        self.counters.outstanding.store(self.acks.len() as u64, Ordering::Relaxed);
        match ack {
            Ok(_) => {
                self.counters.published_total.fetch_add(1, Ordering::Relaxed);
                self.retry.succeeded();
                Settled::Counted
            }
            Err(error) => {
                self.fail(&error);
                match error.kind() {
                    PublishErrorKind::StreamNotFound => Settled::StreamMissing,
                    _ => Settled::Counted,
                }
            }
        }
    }

    fn fail(&mut self, error: &PublishError) {
        self.counters.failed_total.fetch_add(1, Ordering::Relaxed);
        self.report(&error.to_string());
    }

    fn report(&mut self, cause: &str) {
        if self.retry.failed(cause, Instant::now()) {
            let failures = self.retry.failures();
            tracing::warn!(cause, failures, "publishing failed; retrying");
        }
    }

    /// Waits for what is still under way; what does not come in time has failed.
    async fn await_last_acks(&mut self) {
        let limit = tokio::time::sleep(LAST_ACKS);
        tokio::pin!(limit);
        loop {
            tokio::select! {
                biased;
                ack = self.acks.next() => match ack {
                    Some(ack) => {
                        self.settle(ack);
                    }
                    None => return,
                },
                () = &mut limit => break,
            }
        }
        self.abandon();
    }
}

/// What an acknowledgement said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    Counted,
    /// No stream takes the subject: it was deleted.
    StreamMissing,
}
