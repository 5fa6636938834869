//! Reading one consumer: messages to the publisher, in order, and what is said between them.

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::pull::MessagesErrorKind;
use futures_util::StreamExt;
use tokio::time::sleep_until;

use super::consumer::{Item, Opened};
use super::newest::Batch;
use super::probe::{Answer, Arrived};
use super::{Reader, Stop, consumer};
use crate::ingest::ShardsGone;
use crate::ingest::connect::{End, Link, guard};
use crate::ingest::filter::without_covered;
use crate::ingest::follower::{Stored, Taken};
use crate::ingest::shutdown::Shutdown;
use crate::ingest::stream::StreamError;

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
    Newest(Option<Batch>),
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
                Ok(Next::NoticeIsDue) => {
                    self.follower.publisher().tell_if_due().await.map_err(Stop::from)
                }
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
            self.follower.change_consumer(delivered);
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
        if opened.is_caught_up() && self.follower.is_end_known() {
            self.live().await?;
        }
        self.follower.publisher().flush();
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
        let notice_due = self.follower.publisher().notice_due();
        let wants_newest = self.follower.wants_newest();
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
            batch = self.newest.next(wants_newest), if !is_catching_up => Ok(Next::Newest(batch)),
            () = link.lost() => Err(End::Lost.into()),
            () = sleep_until(silence), if is_catching_up => Ok(Next::Silence),
        }
    }

    /// Whether the rates allow one more message now.
    fn has_room(&mut self) -> bool {
        self.pace.has_room(Instant::now) && self.follower.publisher().has_room()
    }

    /// Waits until the rates allow one more message. Nothing is pulled meanwhile: the backlog stays
    /// in the stream.
    async fn room(&mut self) {
        let publisher = self.follower.publisher();
        publisher.report().nats_rate_pause.add(self.pace.room().await);
        publisher.room().await;
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
        opened.catch_up(info.stream_sequence, info.pending);
        let stored = Stored {
            sequence: info.stream_sequence,
            stored_nanos: info.published.unix_timestamp_nanos(),
            subject: &message.subject,
            payload: &message.payload,
        };
        match self.follower.take(&stored, info.consumer_sequence).await? {
            Taken::Handled | Taken::Repeat => {
                opened.handled(&message);
                Ok(())
            }
            Taken::Broken(cause) => Err(Stop::Broken(cause.to_owned())),
        }
    }

    /// What has come and was handled.
    fn arrived(&self) -> Arrived {
        let tracker = self.follower.tracker();
        Arrived { stream: tracker.last(), consumer: tracker.consumer() }
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
        let plan = consumer::plan(&self.subjects, &info.config);
        if let Some(cause) = self.follower.looked(&look, state, plan).await? {
            return Err(Stop::Broken(cause.to_owned()));
        }
        if self.follower.tracker().is_settled() {
            opened.probes.settled();
        }
        Ok(())
    }

    /// Gives the shards newest messages that were read again, or begins to read them.
    async fn take_newest(&mut self, batch: Option<Batch>, opened: &mut Opened) -> Result<(), Stop> {
        match batch {
            None => {
                self.follower.begin_newest();
                let subjects = without_covered(&self.subjects);
                self.newest.begin(opened.context(), opened.stream(), subjects);
            }
            Some(Batch::Messages(messages)) => {
                for message in messages {
                    let Ok(info) = message.info() else { continue };
                    let stored = Stored {
                        sequence: info.stream_sequence,
                        stored_nanos: info.published.unix_timestamp_nanos(),
                        subject: &message.subject,
                        payload: &message.payload,
                    };
                    self.follower.take_newest(&stored).await?;
                }
            }
            Some(Batch::End) => self.follower.end_newest(true),
            Some(Batch::Failed(error)) => {
                tracing::debug!(%error, "the newest messages cannot be read now");
                self.follower.end_newest(false);
            }
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
        if self.retry.failures() > 0 || !self.follower.has_been_live() {
            tracing::info!(pos = self.follower.tracker().last(), "the source is live");
        }
        self.connector.settled();
        self.retry.succeeded();
        self.follower.caught_up().await
    }
}
