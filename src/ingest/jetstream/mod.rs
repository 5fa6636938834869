//! The JetStream source: one consumer per instance, ordered or durable, its position kept by us.
//!
//! ```text
//!  connect -> stream as configured -> contact (epoch?) -> consumer from our position -> read
//!     ^                 ^                                                               |
//!     |                 '----------- consumer, stream or a message lost ----------------|
//!     '------------------------------- connection lost --------------------------------'
//! ```
//!
//! [`consumer`] makes consumers, [`durable`] the one that the ordered one hands over to in durable
//! mode, [`read`] reads them, [`probe`] asks meanwhile what the stream still holds, [`newest`] reads
//! the newest message of each channel again after a loss, [`unreadable`] brings messages that the
//! client library cannot parse, [`Follower`] tells the shards what all of it means, and this file makes
//! the contacts.
//! The epoch is derived from the stream alone (name and creation time), so that it is the same
//! on every instance. When a stream that was not made anew gives positions out a second time (the
//! broker lost its tail) there is nothing to derive another epoch from: the same one is announced
//! again, upon which the shards drop their logs and tell their clients. Messages that are gone
//! before they were read are a loss within the epoch.

mod consumer;
mod durable;
mod newest;
mod probe;
mod read;
mod unreadable;

use std::time::Instant;

use async_nats::jetstream::{self, Context};

use self::consumer::Opened;
use self::durable::Durable;
pub use self::durable::DurableSettings;
use self::newest::NewestRead;
use super::connect::{Connector, End, Link, guard};
use super::follower::Follower;
use super::nats::NatsSettings;
use super::pace::Pace;
use super::shutdown::Shutdown;
use super::stream::{StreamError, StreamKeeper, StreamSettings};
use super::{IngestError, Publisher, ShardsGone};
use crate::channel::Pattern;
use crate::retry::Retry;

/// Times that a stream is asked again when it says that it ends before our position: a second or
/// two. Then it is believed, which makes every client reload.
const STREAM_END_RECHECKS_MAX: u32 = 4;

/// The JetStream source's settings.
#[derive(Debug, Clone)]
pub struct JetStreamSettings {
    /// Where NATS is.
    pub nats: NatsSettings,
    /// The stream, and the subjects that are read from it.
    pub stream: StreamSettings,
    /// How it is read.
    pub mode: ConsumerMode,
}

/// How the stream is read. In either mode every instance has a consumer of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ConsumerMode {
    /// By an ephemeral consumer that acknowledges nothing.
    #[default]
    Ordered,
    /// By a durable consumer; a message is acknowledged when every shard's queue has it.
    Durable(DurableSettings),
}

impl JetStreamSettings {
    /// Checks what can be checked without a broker.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(&self) -> Result<(), IngestError> {
        self.stream.check()?;
        if let ConsumerMode::Durable(durable) = &self.mode {
            durable.check()?;
        }
        self.nats.check()?;
        Ok(())
    }
}

/// Reads until shutdown.
///
/// # Errors
/// Settings that the operator has to correct.
pub(super) async fn run(
    settings: JetStreamSettings,
    publisher: Publisher,
    shutdown: &Shutdown,
) -> Result<(), IngestError> {
    settings.check()?;
    let instance = settings.nats.name.clone();
    let durable = match &settings.mode {
        ConsumerMode::Ordered => None,
        ConsumerMode::Durable(durable) => Some(Durable::new(durable, &instance)),
    };
    let pace = Pace::new(settings.nats.rate_max, Instant::now());
    let rate_max = pace.per_second().into_iter().chain(publisher.rate_max()).min();
    let mut reader = Reader {
        follower: Follower::new(publisher),
        pace,
        pull: consumer::pull_messages(rate_max),
        subjects: settings.stream.check()?,
        instance,
        durable,
        connector: Connector::new(settings.nats)?,
        keeper: StreamKeeper::new(settings.stream),
        retry: Retry::default(),
        progress: Progress::default(),
        newest: NewestRead::default(),
    };
    while let Some(link) = reader.connector.connect(shutdown).await {
        reader.follower.publisher().report().connections.add(1);
        match reader.follow(&link, shutdown).await {
            Ok(End::Lost) => reader.connector.lost(&link),
            Ok(End::Shutdown) | Err(ShardsGone) => break,
        }
        if reader.follower.stale().await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Why one consumer is not read any more.
enum Stop {
    End(End),
    Gone(ShardsGone),
    /// The stream or a consumer cannot be had now.
    Unusable(StreamError),
    /// The consumer, the stream or a message on the way is lost; another consumer will do.
    Broken(String),
    /// Nothing came for two heartbeats.
    Silent,
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

impl From<ShardsGone> for Stop {
    fn from(gone: ShardsGone) -> Self {
        Self::Gone(gone)
    }
}

impl From<StreamError> for Stop {
    fn from(error: StreamError) -> Self {
        Self::Unusable(error)
    }
}

/// How far the source as a whole has come.
#[derive(Debug, Default)]
struct Progress {
    /// Times in a row that the stream's end lay before our position and was asked for again.
    stream_end_rechecks: u32,
    /// Consumers in a row that ended without one new message.
    fruitless_consumers: u32,
}

struct Reader {
    follower: Follower,
    pace: Pace,
    /// Messages asked for at once.
    pull: usize,
    subjects: Vec<Pattern>,
    instance: String,
    durable: Option<Durable>,
    connector: Connector,
    keeper: StreamKeeper,
    retry: Retry,
    progress: Progress,
    newest: NewestRead,
}

impl Reader {
    /// Opens consumers and reads them, one after the other, on one connection.
    async fn follow(&mut self, link: &Link, shutdown: &Shutdown) -> Result<End, ShardsGone> {
        let context = jetstream::new(link.client.clone());
        loop {
            let stop = match self.open(&context, link, shutdown).await {
                Ok(mut opened) => {
                    self.follower.publisher().report().consumers.add(1);
                    let before = self.follower.tracker().last();
                    let stop = self.read(&mut opened, link, shutdown).await;
                    // Events that came before the end must not wait for the next consumer.
                    self.follower.publisher().flush();
                    let is_fruitless = self.follower.tracker().last() == before;
                    self.progress.fruitless_consumers =
                        if is_fruitless { self.progress.fruitless_consumers + 1 } else { 0 };
                    stop
                }
                Err(stop) => stop,
            };
            let cause = match stop {
                Stop::End(end) => return Ok(end),
                Stop::Gone(gone) => return Err(gone),
                Stop::Broken(cause) => cause,
                Stop::Unusable(error) => {
                    self.follower.stale().await?;
                    error.to_string()
                }
                Stop::Silent => {
                    self.follower.stale().await?;
                    "no heartbeat from the consumer".to_owned()
                }
            };
            if self.retry.failed(&cause, Instant::now()) {
                let failures = self.retry.failures();
                tracing::warn!(
                    url = link.url,
                    cause,
                    failures,
                    "reading the stream failed; retrying"
                );
            }
            let pause = tokio::time::sleep(self.retry.delay(rand::random()));
            if let Err(end) = guard(link, shutdown, pause).await {
                return Ok(end);
            }
        }
    }

    /// Brings the stream into shape, announces what the contact means and opens a consumer.
    async fn open(
        &mut self,
        context: &Context,
        link: &Link,
        shutdown: &Shutdown,
    ) -> Result<Opened, Stop> {
        let info = guard(link, shutdown, self.keeper.ensure(context)).await??;
        let plan = consumer::plan(&self.subjects, &info.config);
        let (stream, state) = (&info.config.name, consumer::stream_state(&info));
        if self.follower.tracker().is_beyond(state)
            && self.progress.stream_end_rechecks < STREAM_END_RECHECKS_MAX
        {
            self.progress.stream_end_rechecks += 1;
            return Err(Stop::Broken(
                "the stream ends before our position: asked again".to_owned(),
            ));
        }
        self.progress.stream_end_rechecks = 0;
        if self.progress.fruitless_consumers >= unreadable::SUSPICION {
            self.progress.fruitless_consumers = 0;
            if self.follower.tracker().goes_on(state) {
                let last = self.follower.tracker().last();
                let stored_at = unreadable::stored_at(context, stream, last);
                self.follower.holds_at_last(guard(link, shutdown, stored_at).await??);
                let search = unreadable::search(context, stream, last);
                let found = guard(link, shutdown, search).await??;
                // It may have been made again before it was searched.
                let now = guard(link, shutdown, self.keeper.info(context)).await??;
                if !self.follower.tracker().goes_on(consumer::stream_state(&now)) {
                    return Err(StreamError::WentBack.into());
                }
                for found in found {
                    self.follower.take_unreadable(&found.stored()).await?;
                    self.durable.iter_mut().for_each(Durable::set_must_recreate);
                }
            }
        }
        let successor = match &mut self.durable {
            None => None,
            Some(durable) => {
                let prepared = durable.prepare(context, stream, state);
                Some(guard(link, shutdown, prepared).await??)
            }
        };
        let epoch = consumer::epoch(stream, state.created_nanos);
        self.follower.contact(epoch, state, plan).await?;
        let request = consumer::Request {
            keeper: &self.keeper,
            stream,
            instance: &self.instance,
            start: self.follower.tracker().start(),
            state,
            successor,
            pull: self.pull,
        };
        let (opened, now) = guard(link, shutdown, request.open(context)).await??;
        if !self.follower.opened(now) {
            return Err(StreamError::WentBack.into());
        }
        if let Some(last) = self.follower.tracker().unreadable_last() {
            let stored_at = unreadable::stored_at(context, stream, last);
            if let Some(stored_nanos) = guard(link, shutdown, stored_at).await?? {
                self.follower.overlaps(stored_nanos);
            }
        }
        Ok(opened)
    }
}
