//! Reading one consumer: messages to the publisher, in order, and what is said between them.

use std::time::{Duration, Instant};

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull::MessagesErrorKind;
use futures_util::StreamExt;
use tokio::time::sleep_until;

use super::consumer::{Item, Opened};
use super::probe::{Answer, Arrived};
use super::{Reader, Stop, consumer};
use crate::feed::SourceStatus;
use crate::ingest::ShardsGone;
use crate::ingest::connect::{End, Link, guard};
use crate::ingest::filter::without_covered;
use crate::ingest::shutdown::Shutdown;
use crate::ingest::stream::StreamError;
use crate::ingest::tracker::{Seen, Step};
use crate::position::{Epoch, Incoming, Position, StreamPos};

/// Messages handled in a row before the shards are woken and the connection is checked.
const MESSAGES_IN_ROW_MAX: usize = 256;

/// Silence after which a consumer that is still catching up is asked whether anything is left:
/// what it had announced may have aged away in the meantime.
const CATCH_UP_SILENCE: Duration = Duration::from_secs(1);

/// What there is to do next.
#[derive(Debug)]
enum Next {
    /// Handle what has arrived.
    Arrived,
    /// Take in what a look at the stream found.
    Looked(Result<Answer, StreamError>),
    /// Begin one.
    LookIsDue,
    /// Take in newest messages that were read again; `None` to begin to read them.
    Newest(Option<Result<Vec<Message>, StreamError>>),
    /// Tell clients of a loss.
    NoticeIsDue,
    /// Nothing came for a while, and not everything has been read.
    Silence,
}

impl Reader {
    /// Reads one consumer until it ends; says why it did.
    pub(super) async fn read(
        &mut self,
        opened: &mut Opened,
        link: &Link,
        shutdown: &Shutdown,
    ) -> Stop {
        loop {
            let next = match self.advance(opened, link, shutdown).await {
                Ok(()) => self.next(opened, link, shutdown).await,
                Err(stop) => Err(stop),
            };
            let handled = match next {
                Ok(Next::Arrived) => Ok(()),
                Ok(Next::Looked(answer)) => self.looked(answer, opened).await,
                Ok(Next::LookIsDue) => {
                    opened.look(self.arrived());
                    Ok(())
                }
                Ok(Next::Newest(batch)) => self.take_newest(batch, opened).await,
                Ok(Next::NoticeIsDue) => self.publisher.tell_if_due().await.map_err(Stop::from),
                Ok(Next::Silence) => self.check_caught_up(opened, link, shutdown).await,
                Err(stop) => Err(stop),
            };
            if let Err(stop) = handled {
                return stop;
            }
        }
    }

    /// Handles what is at hand and acknowledges it. Then changes to the durable consumer if it is
    /// time.
    async fn advance(
        &mut self,
        opened: &mut Opened,
        link: &Link,
        shutdown: &Shutdown,
    ) -> Result<(), Stop> {
        self.handle_ready(opened).await?;
        guard(link, shutdown, opened.acknowledge()).await?;
        if opened.has_to_hand_over()
            && let Some(delivered) = guard(link, shutdown, opened.hand_over()).await??
        {
            self.tracker.change_consumer(delivered);
        }
        Ok(())
    }

    /// Handles what is at hand, [`MESSAGES_IN_ROW_MAX`] at most, and wakes the shards once for all
    /// of it.
    async fn handle_ready(&mut self, opened: &mut Opened) -> Result<(), Stop> {
        for _ in 0..MESSAGES_IN_ROW_MAX {
            if !self.has_room() {
                break;
            }
            let Some(item) = opened.at_hand() else { break };
            self.handle(item, opened).await?;
        }
        if opened.is_caught_up() {
            self.live().await?;
            self.check_newest().await?;
        }
        self.publisher.flush();
        Ok(())
    }

    /// Sees to it that the shards have the newest message of each channel.
    async fn check_newest(&mut self) -> Result<(), ShardsGone> {
        let handled = self.tracker.last();
        let is_lost = self.publisher.wants_newest();
        if is_lost {
            self.newest.want();
        } else if self.newest.is_complete_at(handled) {
            self.publisher.newest_complete().await?;
        } else if self.progress.is_window_unread {
            // Everything that the stream retains has been read, and nothing was lost.
            self.newest.set_given();
            self.publisher.newest_complete().await?;
        }
        self.progress.is_window_unread = false;
        Ok(())
    }

    /// Waits for what comes next.
    async fn next(
        &mut self,
        opened: &mut Opened,
        link: &Link,
        shutdown: &Shutdown,
    ) -> Result<Next, Stop> {
        if !self.has_room() {
            guard(link, shutdown, self.room()).await?;
        }
        let is_catching_up = !opened.is_caught_up();
        let silence = opened.silent_since + CATCH_UP_SILENCE;
        let notice_due = self.publisher.notice_due();
        let notice = async {
            match notice_due {
                Some(due) => sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shutdown.fired() => Err(End::Shutdown.into()),
            () = notice => Ok(Next::NoticeIsDue),
            answer = opened.probes.next() => Ok(answer.map_or(Next::LookIsDue, Next::Looked)),
            // Before the loss of the connection: what had arrived is handled first.
            item = opened.messages.next() => {
                opened.arrived = Some(item);
                Ok(Next::Arrived)
            }
            batch = self.newest.next(), if !is_catching_up => Ok(Next::Newest(batch)),
            () = link.lost() => Err(End::Lost.into()),
            () = sleep_until(silence), if is_catching_up => Ok(Next::Silence),
        }
    }

    /// Whether the rates allow one more message now.
    fn has_room(&self) -> bool {
        self.pace.has_room(Instant::now) && self.publisher.has_room()
    }

    /// Waits until the rates allow one more message. Nothing is pulled meanwhile: the backlog stays
    /// in the stream.
    async fn room(&self) {
        self.publisher.report().nats_rate_pause.add(self.pace.room().await);
        self.publisher.room().await;
    }

    async fn handle(&mut self, item: Item, opened: &mut Opened) -> Result<(), Stop> {
        let message = match item {
            Some(Ok(message)) => message,
            Some(Err(error)) if error.kind() == MessagesErrorKind::MissingHeartbeat => {
                return Err(Stop::Silent);
            }
            Some(Err(error)) => return Err(Stop::Broken(error.to_string())),
            None => return Err(Stop::Broken("the consumer ended".to_owned())),
        };
        let Ok(info) = message.info() else {
            return Err(Stop::Broken("a message came without its position".to_owned()));
        };
        self.pace.count(Instant::now);
        self.publisher.report().messages.add(1);
        let stored_nanos = info.published.unix_timestamp_nanos();
        let step = self.tracker.step(info.stream_sequence, info.consumer_sequence, stored_nanos);
        opened.catch_up(info.stream_sequence, info.pending);
        match step {
            Step::Hole => return Err(Stop::Broken("a message was lost on the way".to_owned())),
            Step::Regressed => {
                return Err(Stop::Broken("another message has our position".to_owned()));
            }
            Step::Repeat => {
                self.publisher.report().repeats.add(1);
                opened.handled(&message);
                return Ok(());
            }
            Step::Deliver => {}
            Step::DeliverAsFirst | Step::DeliverAfterLoss => {
                self.tell_step(step, opened.epoch()).await?;
            }
        }
        if opened.plan.accepts(&message.subject) {
            let position = position(info.stream_sequence, stored_nanos);
            let incoming =
                Incoming { subject: &message.subject, payload: &message.payload, position };
            self.publisher.publish(&incoming).await?;
        }
        opened.handled(&message);
        Ok(())
    }

    /// What has come and was handled.
    fn arrived(&self) -> Arrived {
        Arrived { stream: self.tracker.last(), consumer: self.tracker.consumer() }
    }

    /// Tells of messages that are missing before the one that the tracker has just taken in.
    pub(super) async fn tell_step(&mut self, step: Step, epoch: Epoch) -> Result<(), ShardsGone> {
        let pos = self.tracker.last();
        match step {
            Step::DeliverAsFirst => {
                tracing::info!(%epoch, pos, "the oldest messages aged away before they were read");
                if !self.progress.has_claimed {
                    return Ok(());
                }
            }
            Step::DeliverAfterLoss => {
                let losses = self.publisher.report().losses.total() + 1;
                // The 1st, 2nd, 4th, 8th and so on.
                if losses.is_power_of_two() {
                    tracing::warn!(%epoch, pos, losses, "messages before this may be lost");
                }
            }
            _ => return Ok(()),
        }
        self.progress.has_claimed = false;
        self.publisher.loss(self.tracker.base_of_last()).await
    }

    /// Acts on a look. If it failed, the next one tells.
    async fn looked(
        &mut self,
        answer: Result<Answer, StreamError>,
        opened: &mut Opened,
    ) -> Result<(), Stop> {
        let Answer { look, info } = match answer {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, "the stream does not say what it holds");
                return Ok(());
            }
        };
        let state = consumer::stream_state(&info);
        self.publisher.kept(state.kept).await?;
        opened.plan = consumer::plan(&self.subjects, &info.config);
        match self.tracker.looked(&look, state) {
            Seen::Nothing => {}
            Seen::Broken(cause) => return Err(Stop::Broken(cause.to_owned())),
            Seen::LostEnd(base) => {
                let epoch = opened.epoch();
                tracing::warn!(%epoch, pos = state.last, "messages up to this are lost");
                self.progress.has_claimed = true;
                self.publisher.loss(base).await?;
            }
        }
        if self.tracker.is_settled() {
            opened.probes.settled();
        }
        Ok(())
    }

    /// Gives the shards newest messages that were read again, or begins to read them. What lies
    /// beyond the position of the main consumer is left to that.
    async fn take_newest(
        &mut self,
        batch: Option<Result<Vec<Message>, StreamError>>,
        opened: &mut Opened,
    ) -> Result<(), Stop> {
        let messages = match batch {
            Some(Ok(messages)) => messages,
            Some(Err(error)) => {
                tracing::debug!(%error, "the newest messages cannot be read now");
                return Ok(());
            }
            None if self.newest.may_begin() => {
                self.publisher.report().newest_reads.add(1);
                let subjects = without_covered(&self.subjects);
                let last = self.tracker.named();
                let (context, stream) = (opened.context(), opened.stream());
                self.newest.begin(context, stream, subjects, last);
                return Ok(());
            }
            None => return Ok(()),
        };
        for message in messages {
            let Ok(info) = message.info() else { continue };
            if info.stream_sequence > self.tracker.last() {
                continue;
            }
            let position = position(info.stream_sequence, info.published.unix_timestamp_nanos());
            let incoming =
                Incoming { subject: &message.subject, payload: &message.payload, position };
            self.publisher.newest(&incoming).await?;
        }
        Ok(())
    }

    /// Asks the consumer whether anything is left to catch up with.
    async fn check_caught_up(
        &mut self,
        opened: &mut Opened,
        link: &Link,
        shutdown: &Shutdown,
    ) -> Result<(), Stop> {
        opened.silent_since = tokio::time::Instant::now();
        if guard(link, shutdown, opened.pending()).await? == Some(0) {
            opened.set_caught_up();
        }
        Ok(())
    }

    async fn live(&mut self) -> Result<(), ShardsGone> {
        if self.retry.failures() > 0 || !self.progress.has_been_live {
            tracing::info!(pos = self.tracker.last(), "the source is live");
        }
        if !self.progress.has_been_live {
            // Whoever came meanwhile need not wait to be told what is missing in the window.
            self.publisher.tell().await?;
        }
        self.progress.has_been_live = true;
        self.connector.settled();
        self.retry.succeeded();
        self.publisher.status(SourceStatus::Live).await
    }
}

/// The position of a message by its sequence and its store time in nanoseconds.
pub(super) fn position(sequence: u64, stored_nanos: i128) -> Position {
    let ts_ms = u64::try_from(stored_nanos / 1_000_000).unwrap_or_default();
    Position { pos: StreamPos(sequence), ts_ms }
}
