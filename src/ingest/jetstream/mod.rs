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
//! client library cannot parse, [`Tracker`] decides what a contact and a message mean and what is
//! proved by it, and this file makes the contacts.
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
use self::newest::NewestRead;
use self::unreadable::Unreadable;
pub use self::durable::DurableSettings;
use super::connect::{Connector, End, Link, guard};
use super::filter::FilterPlan;
use super::nats::NatsSettings;
use super::pace::Pace;
use super::shutdown::Shutdown;
use super::stream::{StreamError, StreamKeeper, StreamSettings};
use super::stream_state::StreamState;
use super::tracker::{Contact, Tracker, Why};
use super::{IngestError, Publisher, ShardsGone};
use crate::channel::Pattern;
use crate::feed::SourceStatus;
use crate::position::{Base, Epoch, Incoming};
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
        publisher,
        pace,
        pull: consumer::pull_messages(rate_max),
        subjects: settings.stream.check()?,
        instance,
        durable,
        connector: Connector::new(settings.nats)?,
        keeper: StreamKeeper::new(settings.stream),
        tracker: Tracker::default(),
        retry: Retry::default(),
        progress: Progress::default(),
        newest: NewestRead::default(),
    };
    while let Some(link) = reader.connector.connect(shutdown).await {
        reader.publisher.report().connections.add(1);
        match reader.follow(&link, shutdown).await {
            Ok(End::Lost) => reader.connector.lost(&link),
            Ok(End::Shutdown) | Err(ShardsGone) => break,
        }
        if reader.stale().await.is_err() {
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
    has_seen_stream: bool,
    has_been_live: bool,
    /// The shards were told a position after which nothing is missing.
    has_claimed: bool,
    /// Times in a row that the stream's end lay before our position and was asked for again.
    stream_end_rechecks: u32,
    /// Consumers in a row that ended without one new message.
    fruitless_consumers: u32,
    /// A life has begun, and what the stream retains of it is not read yet.
    is_window_unread: bool,
}

struct Reader {
    publisher: Publisher,
    pace: Pace,
    /// Messages asked for at once.
    pull: usize,
    subjects: Vec<Pattern>,
    instance: String,
    durable: Option<Durable>,
    connector: Connector,
    keeper: StreamKeeper,
    tracker: Tracker,
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
                    self.publisher.report().consumers.add(1);
                    let before = self.tracker.last();
                    let stop = self.read(&mut opened, link, shutdown).await;
                    // Events that came before the end must not wait for the next consumer.
                    self.publisher.flush();
                    let is_fruitless = self.tracker.last() == before;
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
                    self.stale().await?;
                    error.to_string()
                }
                Stop::Silent => {
                    self.stale().await?;
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
        let state = consumer::stream_state(&info);
        self.publisher.kept(state.kept).await?;
        if self.tracker.is_beyond(state)
            && self.progress.stream_end_rechecks < STREAM_END_RECHECKS_MAX
        {
            self.progress.stream_end_rechecks += 1;
            return Err(Stop::Broken(
                "the stream ends before our position: asked again".to_owned(),
            ));
        }
        self.progress.stream_end_rechecks = 0;
        let epoch = consumer::epoch(&info.config.name, state.created_nanos);
        if self.progress.fruitless_consumers >= unreadable::SUSPICION {
            self.progress.fruitless_consumers = 0;
            if self.tracker.goes_on(state) {
                let search = unreadable::search(context, &info.config.name, self.tracker.last());
                for found in guard(link, shutdown, search).await?? {
                    self.take_unreadable(found, epoch.clone(), &plan).await?;
                    self.durable.iter_mut().for_each(Durable::set_must_recreate);
                }
            }
        }
        let successor = match &mut self.durable {
            None => None,
            Some(durable) => {
                let prepared = durable.prepare(context, &info.config.name, state);
                Some(guard(link, shutdown, prepared).await??)
            }
        };
        let contact = self.tracker.contact(state);
        self.announce(contact, epoch, state).await?;
        if let Some(last) = self.tracker.unreadable_last() {
            let stored_at = unreadable::stored_at(context, &info.config.name, last);
            if let Some(stored_nanos) = guard(link, shutdown, stored_at).await?? {
                self.tracker.overlaps(stored_nanos);
            }
        }
        let request = consumer::Request {
            keeper: &self.keeper,
            stream: &info.config.name,
            instance: &self.instance,
            start: self.tracker.start(),
            state,
            successor,
            pull: self.pull,
        };
        Ok(guard(link, shutdown, request.open(context, plan)).await??)
    }

    /// Publishes a message that the client library cannot parse.
    async fn take_unreadable(
        &mut self,
        found: Unreadable,
        epoch: Epoch,
        plan: &FilterPlan,
    ) -> Result<(), ShardsGone> {
        let Unreadable { seq, stored_nanos, subject, payload, reason } = found;
        let step = self.tracker.step_unreadable(seq, stored_nanos);
        self.tell_step(step, epoch).await?;
        self.publisher.report().messages.add(1);
        let Some(subject) = subject.filter(|subject| plan.accepts(subject)) else {
            tracing::warn!(pos = seq, reason, "a message is left out");
            return Ok(());
        };
        tracing::warn!(pos = seq, subject, reason, "a message was read without its headers");
        let position = read::position(seq, stored_nanos);
        self.publisher.publish(&Incoming { subject: &subject, payload: &payload, position }).await
    }

    async fn announce(
        &mut self,
        contact: Contact,
        epoch: Epoch,
        state: StreamState,
    ) -> Result<(), ShardsGone> {
        self.progress.has_seen_stream = true;
        if !self.progress.has_been_live {
            self.publisher.status(SourceStatus::Loading).await?;
        }
        let base = match contact {
            Contact::Continues => return Ok(()),
            Contact::Overtaken { messages } => {
                tracing::error!(%epoch, messages, "messages aged away before they were read");
                let base = state.base_after_loss();
                self.progress.has_claimed = base.after.is_some();
                return self.publisher.loss(base).await;
            }
            Contact::Fresh(Why::First) => {
                tracing::info!(%epoch, "reading the stream");
                state.base()
            }
            Contact::Fresh(Why::Recreated) => {
                tracing::warn!(%epoch, "the stream was deleted and made again");
                state.base()
            }
            Contact::Fresh(Why::Regressed) => {
                tracing::error!(%epoch, "the broker has lost messages that were read before");
                state.base_after_regression()
            }
        };
        self.tell_epoch(epoch, base).await
    }

    async fn tell_epoch(&mut self, epoch: Epoch, base: Base) -> Result<(), ShardsGone> {
        self.progress.has_claimed = base.after.is_some();
        self.progress.is_window_unread = true;
        self.publisher.epoch_with(epoch, base).await
    }

    /// Tells the shards that messages do not arrive; they know that before the stream was seen.
    async fn stale(&mut self) -> Result<(), ShardsGone> {
        if !self.progress.has_seen_stream {
            return Ok(());
        }
        self.publisher.status(SourceStatus::Stale).await
    }
}
