//! What the shards are told of a stream that is followed: each message, and what is known of it.
//!
//! The one place where what the [`Tracker`] finds becomes what the shards are told. It knows no NATS
//! types and does no IO but to push into the shards' queues; a source brings it what the stream and
//! its consumers say. Bounds: none of its own.

use super::filter::FilterPlan;
use super::publisher::{Publisher, ShardsGone};
use super::stream_state::StreamState;
use super::tracker::{Contact, Seen, Step, Tracker, Why};
use crate::feed::SourceStatus;
use crate::ingest::ending::Look;
use crate::position::{Base, Epoch, Incoming, Position, StreamPos};

/// A message of the stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    /// Its stream sequence.
    pub(crate) sequence: u64,
    /// When the broker stored it, in nanoseconds since the Unix epoch.
    pub(crate) stored_nanos: i128,
    pub(crate) subject: &'a str,
    pub(crate) payload: &'a [u8],
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is handled: published, or not one of ours.
    Handled,
    /// It had been before.
    Repeat,
    /// Another consumer is needed.
    Broken(&'static str),
}

/// Whether the shards have the newest message of each channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Newest {
    /// When what the stream retains has been read.
    #[default]
    WithWindow,
    /// They have.
    Given,
    /// They have to be read again.
    Wanted,
    /// They are being read; the stream has named this position so far.
    Reading(u64),
    /// They have been read: the shards have them when everything up to here is handled.
    ReadTo(u64),
}

/// Follows one stream, and tells the shards.
#[derive(Debug)]
pub(crate) struct Follower {
    publisher: Publisher,
    tracker: Tracker,
    plan: FilterPlan,
    epoch: Option<Epoch>,
    newest: Newest,
    has_been_live: bool,
    /// The shards were told a position after which nothing is missing, and no message since.
    has_claimed: bool,
}

impl Follower {
    /// Nothing is known yet of the stream.
    pub(crate) fn new(publisher: Publisher) -> Self {
        Self {
            publisher,
            tracker: Tracker::default(),
            plan: FilterPlan::Whole,
            epoch: None,
            newest: Newest::default(),
            has_been_live: false,
            has_claimed: false,
        }
    }

    /// Where the reading is.
    pub(crate) fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// The way to the shards.
    pub(crate) fn publisher(&mut self) -> &mut Publisher {
        &mut self.publisher
    }

    /// Whether messages have arrived as they were published.
    pub(crate) fn has_been_live(&self) -> bool {
        self.has_been_live
    }

    /// Takes in what the stream says of itself before a consumer is made: from
    /// [`Tracker::start`] on. Of its subjects `plan` says which are ours.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub(crate) async fn contact(
        &mut self,
        epoch: Epoch,
        state: StreamState,
        plan: FilterPlan,
    ) -> Result<(), ShardsGone> {
        self.plan = plan;
        self.publisher.kept(state.kept).await?;
        if !self.has_been_live {
            self.publisher.status(SourceStatus::Loading).await?;
        }
        let contact = self.tracker.contact(state);
        let base = match contact {
            Contact::Continues => return Ok(()),
            Contact::Overtaken { messages } => {
                tracing::error!(%epoch, messages, "messages aged away before they were read");
                return self.lose(state.base_after_loss()).await;
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
        self.has_claimed = base.after.is_some();
        self.newest = Newest::WithWindow;
        self.epoch = Some(epoch.clone());
        self.publisher.epoch_with(epoch, base).await
    }

    /// Takes in what the stream says of itself when the consumer is there; false if another contact
    /// is needed.
    pub(crate) fn opened(&mut self, state: StreamState) -> bool {
        self.tracker.opened(state)
    }

    /// The stream holds a message at [`Tracker::unreadable_last`] that was stored then.
    pub(crate) fn overlaps(&mut self, stored_nanos: i128) {
        self.tracker.overlaps(stored_nanos);
    }

    /// The same before [`Self::take_unreadable`]; `None` if it holds nothing at
    /// [`Tracker::last`].
    pub(crate) fn holds_at_last(&mut self, stored_nanos: Option<i128>) {
        self.tracker.holds_at_last(stored_nanos);
    }

    /// Goes on with another consumer, which has delivered up to `consumer`.
    pub(crate) fn change_consumer(&mut self, consumer: u64) {
        self.tracker.change_consumer(consumer);
    }

    /// Takes in a message that the consumer sent as its `consumer`-th.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub(crate) async fn take(
        &mut self,
        message: &Stored<'_>,
        consumer: u64,
    ) -> Result<Taken, ShardsGone> {
        self.publisher.report().messages.add(1);
        match self.tracker.step(message.sequence, consumer, message.stored_nanos) {
            Step::Hole => Ok(Taken::Broken("a message was lost on the way")),
            Step::Regressed => Ok(Taken::Broken("another message has our position")),
            Step::Repeat => {
                self.publisher.report().repeats.add(1);
                Ok(Taken::Repeat)
            }
            Step::Deliver => self.publish(message).await,
            step @ (Step::DeliverAsFirst | Step::DeliverAfterLoss) => {
                self.tell_missing(step).await?;
                self.publish(message).await
            }
        }
    }

    /// Takes in the message behind the last one, which no consumer can bring.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub(crate) async fn take_unreadable(&mut self, message: &Stored<'_>) -> Result<(), ShardsGone> {
        self.publisher.report().messages.add(1);
        let step = self.tracker.step_unreadable(message.sequence, message.stored_nanos);
        if step == Step::Regressed {
            // The next contact says so.
            return Ok(());
        }
        self.tell_missing(step).await?;
        self.publish(message).await.map(|_| ())
    }

    /// Takes in a look at the end of the stream, whose subjects `plan` cuts; returns why another
    /// consumer is needed, if it is.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub(crate) async fn looked(
        &mut self,
        look: &Look,
        state: StreamState,
        plan: FilterPlan,
    ) -> Result<Option<&'static str>, ShardsGone> {
        self.plan = plan;
        self.publisher.kept(state.kept).await?;
        match self.tracker.looked(look, state) {
            Seen::Nothing => Ok(None),
            Seen::Broken(cause) => Ok(Some(cause)),
            Seen::LostEnd(base) => {
                tracing::warn!(pos = state.last, "messages up to this are lost");
                self.lose(base).await?;
                Ok(None)
            }
        }
    }

    /// Whether the source can be live for the first time once it has caught up: not while messages
    /// may be missing at the end, for what a client has that comes from elsewhere may be behind them.
    pub(crate) fn is_end_known(&self) -> bool {
        self.has_been_live || self.tracker.last() >= self.tracker.named()
    }

    /// Everything that was in the stream at the contact has been handled.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub(crate) async fn caught_up(&mut self) -> Result<(), ShardsGone> {
        if !self.has_been_live {
            self.has_been_live = true;
            // Whoever came meanwhile need not wait to be told what is missing in the window.
            self.publisher.tell().await?;
        }
        self.publisher.status(SourceStatus::Live).await?;
        if self.publisher.wants_newest() {
            self.newest = Newest::Wanted;
        }
        let is_given = match self.newest {
            Newest::WithWindow => true,
            Newest::ReadTo(end) => end <= self.tracker.last(),
            Newest::Given | Newest::Wanted | Newest::Reading(_) => false,
        };
        if is_given {
            self.newest = Newest::Given;
            self.publisher.newest_complete().await?;
        }
        Ok(())
    }

    /// Messages do not arrive; the shards know that before the stream was seen.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub(crate) async fn stale(&mut self) -> Result<(), ShardsGone> {
        match &self.epoch {
            Some(_) => self.publisher.status(SourceStatus::Stale).await,
            None => Ok(()),
        }
    }

    /// Whether the newest message of each channel is to be read from the stream.
    pub(crate) fn wants_newest(&self) -> bool {
        self.newest == Newest::Wanted
    }

    /// They are being read from now on.
    pub(crate) fn begin_newest(&mut self) {
        self.publisher.report().newest_reads.add(1);
        self.newest = Newest::Reading(self.tracker.named());
    }

    /// Takes in the newest message that the stream holds on its channel. What lies beyond the
    /// position of the consumer is left to that.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub(crate) async fn take_newest(&mut self, message: &Stored<'_>) -> Result<(), ShardsGone> {
        // A reading that outlasts a loss or the stream itself brings what may be out of date; one that
        // begins too late brings what is stored later than our last message.
        if let Newest::Reading(end) = &mut self.newest {
            // It hides the one before it on its channel, until it is published.
            *end = message.sequence.max(*end);
        }
        let is_ours = matches!(self.newest, Newest::Reading(_))
            && message.sequence <= self.tracker.last()
            && self.tracker.stored_nanos().is_some_and(|last| message.stored_nanos <= last);
        match is_ours {
            true => self.publisher.newest(&message.incoming()).await,
            false => Ok(()),
        }
    }

    /// All of them have been read, or they cannot be.
    pub(crate) fn end_newest(&mut self, is_whole: bool) {
        if let Newest::Reading(end) = self.newest {
            self.newest = if is_whole { Newest::ReadTo(end) } else { Newest::Wanted };
        }
    }

    async fn publish(&mut self, message: &Stored<'_>) -> Result<Taken, ShardsGone> {
        if self.plan.accepts(message.subject) {
            self.publisher.publish(&message.incoming()).await?;
        }
        Ok(Taken::Handled)
    }

    /// Tells of messages that are missing before the one that the tracker has just taken in.
    async fn tell_missing(&mut self, step: Step) -> Result<(), ShardsGone> {
        let pos = self.tracker.last();
        match step {
            Step::DeliverAsFirst => {
                tracing::info!(pos, "the oldest messages aged away before they were read");
                if !self.has_claimed {
                    return Ok(());
                }
            }
            Step::DeliverAfterLoss => {
                let losses_total = self.publisher.report().losses.total() + 1;
                // The 1st, 2nd, 4th, 8th and so on.
                if losses_total.is_power_of_two() {
                    tracing::warn!(pos, losses_total, "messages before this may be lost");
                }
            }
            _ => return Ok(()),
        }
        self.lose(Base { after: None, whole_from: StreamPos(pos) }).await
    }

    async fn lose(&mut self, base: Base) -> Result<(), ShardsGone> {
        self.has_claimed = base.after.is_some();
        if let Newest::Reading(_) | Newest::ReadTo(_) = self.newest {
            self.newest = Newest::Wanted;
        }
        self.publisher.loss(base).await
    }
}

impl Stored<'_> {
    fn incoming(&self) -> Incoming<'_> {
        let ts_ms = u64::try_from(self.stored_nanos / 1_000_000).unwrap_or_default();
        let position = Position { pos: StreamPos(self.sequence), ts_ms };
        Incoming { subject: self.subject, payload: self.payload, position }
    }
}
