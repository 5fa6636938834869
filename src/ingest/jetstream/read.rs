//! Reading one consumer: messages to the publisher, in order, and what is said between them.

use std::time::{Duration, Instant};

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull::MessagesErrorKind;
use futures_util::StreamExt;
use tokio::time::sleep_until;

use super::consumer::{Item, Opened};
use super::probe::Arrived;
use super::{Reader, Stop};
use crate::feed::SourceStatus;
use crate::ingest::ShardsGone;
use crate::ingest::connect::{End, Link, guard};
use crate::ingest::continuity::Probe;
use crate::ingest::shutdown::Shutdown;
use crate::ingest::stream::StreamError;
use crate::ingest::tracker::Step;
use crate::position::{Base, Incoming, Position, StreamPos};

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
    /// Take in what a probe of the stream found.
    Probed(Result<Probe, StreamError>),
    /// Begin one.
    ProbeIsDue,
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
                Ok(Next::Probed(probe)) => self.probed(probe, opened).await,
                Ok(Next::ProbeIsDue) => {
                    opened.begin_probe(self.arrived());
                    Ok(())
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
        self.handle_ready(opened, link, shutdown).await?;
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
    async fn handle_ready(
        &mut self,
        opened: &mut Opened,
        link: &Link,
        shutdown: &Shutdown,
    ) -> Result<(), Stop> {
        for _ in 0..MESSAGES_IN_ROW_MAX {
            if !self.has_room() {
                break;
            }
            let Some(item) = opened.at_hand() else { break };
            self.handle(item, opened, link, shutdown).await?;
        }
        if opened.is_caught_up() {
            self.live().await?;
        }
        self.publisher.flush();
        Ok(())
    }

    /// Waits for what comes next.
    async fn next(
        &self,
        opened: &mut Opened,
        link: &Link,
        shutdown: &Shutdown,
    ) -> Result<Next, Stop> {
        if !self.has_room() {
            guard(link, shutdown, self.room()).await?;
        }
        if !opened.arrived.is_empty() {
            return Ok(Next::Arrived);
        }
        let is_catching_up = !opened.is_caught_up();
        let silence = opened.silent_since + CATCH_UP_SILENCE;
        tokio::select! {
            biased;
            () = shutdown.fired() => Err(End::Shutdown.into()),
            probe = opened.probes.next(), if self.tracker.needs_probes() => {
                Ok(probe.map_or(Next::ProbeIsDue, Next::Probed))
            }
            // Before the loss of the connection: what had arrived is handled first.
            item = opened.messages.next() => {
                opened.arrived.push_back(item);
                Ok(Next::Arrived)
            }
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

    async fn handle(
        &mut self,
        item: Item,
        opened: &mut Opened,
        link: &Link,
        shutdown: &Shutdown,
    ) -> Result<(), Stop> {
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
        if self.tracker.needs_probe_before(info.stream_sequence, Instant::now) {
            let here = Arrived { stream: info.stream_sequence, consumer: info.consumer_sequence };
            // One probe answers for all that has arrived.
            let arrived = opened.collect().unwrap_or(here);
            let probe = guard(link, shutdown, opened.probe(arrived)).await?;
            self.probed(Ok(probe?), opened).await?;
        }
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
            Step::DeliverAsFirst => {
                let (epoch, pos) = (opened.epoch(), info.stream_sequence);
                tracing::info!(%epoch, pos, "the oldest messages aged away before they were read");
                if self.progress.has_claimed {
                    let base = Base { after: None, whole_from: StreamPos(pos) };
                    self.tell_epoch(epoch, base).await?;
                }
            }
            Step::DeliverAfterLoss => {
                let (epoch, pos) = (opened.epoch(), info.stream_sequence);
                let probe = guard(link, shutdown, opened.probe(self.arrived())).await;
                let probe = probe.ok().and_then(Result::ok);
                let whole_from = self.tracker.lost(probe.as_ref(), Instant::now());
                tracing::error!(%epoch, pos, "messages before this are lost");
                self.tell_epoch(epoch, Base { after: None, whole_from }).await?;
            }
        }
        if opened.plan.accepts(&message.subject) {
            let pos = StreamPos(info.stream_sequence);
            self.publish(&message, pos, stored_nanos).await?;
        }
        opened.handled(&message);
        Ok(())
    }

    /// What has come and was handled.
    fn arrived(&self) -> Arrived {
        Arrived { stream: self.tracker.last(), consumer: self.tracker.consumer() }
    }

    /// Acts on a probe. If it failed, the next one tells.
    async fn probed(
        &mut self,
        probe: Result<Probe, StreamError>,
        opened: &mut Opened,
    ) -> Result<(), Stop> {
        let probe = match probe {
            Ok(probe) => probe,
            Err(StreamError::Missing) => return Err(StreamError::Missing.into()),
            Err(error) => {
                tracing::debug!(%error, "the stream does not say what it holds");
                return Ok(());
            }
        };
        if let Some(whole_from) = self.tracker.probed(&probe) {
            let epoch = opened.epoch();
            tracing::warn!(
                %epoch,
                %whole_from,
                "the stream may have discarded messages before they were read"
            );
            self.tell_epoch(epoch, Base { after: None, whole_from }).await?;
        }
        Ok(())
    }

    async fn publish(
        &mut self,
        message: &Message,
        pos: StreamPos,
        stored_nanos: i128,
    ) -> Result<(), ShardsGone> {
        let ts_ms = u64::try_from(stored_nanos / 1_000_000).unwrap_or_default();
        let position = Position { pos, ts_ms };
        let incoming = Incoming { subject: &message.subject, payload: &message.payload, position };
        self.publisher.publish(&incoming).await
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
        self.progress.has_been_live = true;
        self.connector.settled();
        self.retry.succeeded();
        self.publisher.status(SourceStatus::Live).await
    }
}
