//! The source for plain NATS pub/sub: live messages only, at most once.
//!
//! There is no stream behind it, so positions are counted by this process and the epoch is made
//! up: a client's position means nothing on another instance. What is published while the
//! connection is down, or is dropped because this process is too slow, is lost without a trace;
//! a fresh epoch is announced then, so that clients reload. Bounds: the client library holds
//! 16,384 messages per subscription and drops more.
//!
//! What was dropped lies behind what the library holds, and nothing shows where. So claims are taken
//! back as soon as a drop is known, and the fresh epoch begins when everything that was held then
//! has been handled.

use std::time::{Duration, Instant};

use async_nats::Message;
use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{FutureExt, StreamExt};

use super::clock::unix_ms;
use super::connect::{Connector, End, Link, guard};
use super::filter::without_covered;
use super::nats::NatsSettings;
use super::pace::Pace;
use super::shutdown::Shutdown;
use super::stream::parse_subjects;
use super::{IngestError, Publisher, ShardsGone};
use crate::channel::Pattern;
use crate::feed::SourceStatus;
use crate::position::{Base, Epoch, Incoming, Position, StreamPos};

/// What is subscribed to if nothing is configured: both generations of subjects.
pub const CORE_SUBJECTS_DEFAULT: [&str; 9] = [
    "token.*.update",
    "global.>",
    "odin.tokens.*.price",
    "odin.tokens.*.volume",
    "odin.tokens.batch.update",
    "odin.market.statistics",
    "odin.system.health",
    "odin.token.>",
    "odin.global.>",
];

/// Messages handled in a row before the shards are woken and the connection is checked.
const MESSAGES_IN_ROW_MAX: usize = 256;

/// An epoch lasts at least this long: a lasting overload must not make clients reload all the
/// time.
const EPOCH_LASTS_MIN: Duration = Duration::from_secs(5);

/// The settings of the pub/sub source.
#[derive(Debug, Clone)]
pub struct CoreSettings {
    /// Where NATS is.
    pub nats: NatsSettings,
    /// What is subscribed to; see [`CORE_SUBJECTS_DEFAULT`].
    pub subjects: Vec<String>,
}

/// Reads until shutdown.
///
/// # Errors
/// Settings that the operator has to correct.
pub(super) async fn run(
    settings: CoreSettings,
    publisher: Publisher,
    shutdown: &Shutdown,
) -> Result<(), IngestError> {
    let patterns = without_covered(&parse_subjects(&settings.subjects)?);
    let pace = Pace::new(settings.nats.rate_max, Instant::now());
    let mut connector = Connector::new(settings.nats)?;
    let mut listener = Listener {
        publisher,
        pace,
        patterns,
        pos: StreamPos::default(),
        dropped_total: 0,
        is_doubtful: false,
        began: Instant::now(),
    };
    while let Some(link) = connector.connect(shutdown).await {
        listener.publisher.report().connections.add(1);
        let subscribed = guard(&link, shutdown, listener.subscribe(&link)).await;
        let ended = match subscribed {
            Ok(Some(inbox)) => {
                connector.settled();
                listener.listen(inbox, &link, shutdown).await
            }
            Ok(None) => Ok(End::Lost),
            Err(end) => Ok(end),
        };
        match ended {
            Ok(End::Lost) => connector.lost(&link),
            Ok(End::Shutdown) | Err(ShardsGone) => break,
        }
    }
    Ok(())
}

/// The messages of all subscriptions, each with the index of its pattern.
type Inbox = SelectAll<BoxStream<'static, (usize, Message)>>;

struct Listener {
    publisher: Publisher,
    pace: Pace,
    patterns: Vec<Pattern>,
    pos: StreamPos,
    dropped_total: u64,
    /// Messages were dropped behind what is handled next.
    is_doubtful: bool,
    /// When the epoch began.
    began: Instant,
}

impl Listener {
    /// Subscribes to every pattern; `None` if the connection ended meanwhile.
    async fn subscribe(&self, link: &Link) -> Option<Inbox> {
        let mut inbox = SelectAll::new();
        for (index, pattern) in self.patterns.iter().enumerate() {
            let subscriber = link.client.subscribe(pattern.to_string()).await.ok()?;
            inbox.push(subscriber.map(move |message| (index, message)).boxed());
        }
        // Everything published from here on arrives.
        link.client.flush().await.ok()?;
        Some(inbox)
    }

    async fn listen(
        &mut self,
        mut inbox: Inbox,
        link: &Link,
        shutdown: &Shutdown,
    ) -> Result<End, ShardsGone> {
        self.begin_epoch().await?;
        self.publisher.status(SourceStatus::Live).await?;
        (self.dropped_total, self.is_doubtful) = (link.dropped_total(), false);
        loop {
            for _ in 0..MESSAGES_IN_ROW_MAX {
                if !self.has_room() {
                    break;
                }
                let Some(Some((index, message))) = inbox.next().now_or_never() else { break };
                self.handle(index, &message).await?;
            }
            // The library's tasks, which count what they drop, have their turn.
            tokio::task::yield_now().await;
            self.check_dropped(link).await?;
            if self.is_doubtful && self.has_room() {
                // Unconstrained: tokio would say at times that nothing is there although it is.
                match tokio::task::unconstrained(inbox.next()).now_or_never() {
                    Some(Some((index, message))) => self.handle(index, &message).await?,
                    Some(None) | None => self.begin_after_drops().await?,
                }
            }
            self.publisher.flush();
            let is_doubtful = self.is_doubtful;
            let next = tokio::select! {
                biased;
                () = shutdown.fired() => return Ok(End::Shutdown),
                // Before the loss of the connection: what had arrived is handled first.
                Some(next) = self.next(&mut inbox) => Some(next),
                () = link.lost() => None,
                // Nothing else may come that would have the drops told.
                () = tokio::time::sleep(EPOCH_LASTS_MIN), if is_doubtful => continue,
            };
            let Some((index, message)) = next else {
                self.publisher.status(SourceStatus::Stale).await?;
                return Ok(End::Lost);
            };
            self.handle(index, &message).await?;
        }
    }

    /// The next message, as soon as the rates allow one.
    async fn next(&self, inbox: &mut Inbox) -> Option<(usize, Message)> {
        if !self.has_room() {
            self.publisher.report().nats_rate_pause.add(self.pace.room().await);
            self.publisher.room().await;
        }
        inbox.next().await
    }

    fn has_room(&self) -> bool {
        self.pace.has_room(Instant::now) && self.publisher.has_room()
    }

    async fn handle(&mut self, index: usize, message: &Message) -> Result<(), ShardsGone> {
        self.pace.count(Instant::now);
        self.publisher.report().messages.add(1);
        // Where patterns overlap the broker sends a copy for each: the first pattern's counts.
        if self.patterns[..index].iter().any(|pattern| pattern.matches(&message.subject)) {
            return Ok(());
        }
        self.pos = StreamPos(self.pos.0 + 1);
        let position = Position { pos: self.pos, ts_ms: unix_ms() };
        let incoming = Incoming { subject: &message.subject, payload: &message.payload, position };
        self.publisher.publish(&incoming).await
    }

    /// Takes claims back if a subscription was full and messages were dropped. Under a lasting
    /// overload a fresh epoch is announced once per [`EPOCH_LASTS_MIN`], so that clients can reload.
    async fn check_dropped(&mut self, link: &Link) -> Result<(), ShardsGone> {
        let dropped_total = link.dropped_total();
        if dropped_total != self.dropped_total {
            let messages = dropped_total - self.dropped_total;
            tracing::error!(messages, dropped_total, "messages were dropped: too slow");
            self.dropped_total = dropped_total;
            self.doubt().await?;
        }
        if self.is_doubtful && self.began.elapsed() >= EPOCH_LASTS_MIN {
            self.begin_epoch().await?;
            self.doubt().await?;
        }
        Ok(())
    }

    async fn doubt(&mut self) -> Result<(), ShardsGone> {
        self.is_doubtful = true;
        let whole_from = StreamPos(self.pos.0 + 1);
        self.publisher.doubt(Base { after: None, whole_from }).await
    }

    /// Everything that was held when messages were dropped last has been handled.
    async fn begin_after_drops(&mut self) -> Result<(), ShardsGone> {
        self.is_doubtful = false;
        self.begin_epoch().await
    }

    async fn begin_epoch(&mut self) -> Result<(), ShardsGone> {
        let epoch = Epoch(format!("core-{:016x}", rand::random::<u64>()).into());
        tracing::info!(%epoch, "listening");
        self.began = Instant::now();
        self.publisher.epoch_from_start(epoch).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_subjects_are_valid_and_none_is_redundant() {
        let subjects = CORE_SUBJECTS_DEFAULT.map(String::from);
        let patterns = parse_subjects(&subjects).unwrap();
        assert_eq!(without_covered(&patterns).len(), CORE_SUBJECTS_DEFAULT.len());
    }
}
