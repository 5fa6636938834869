//! From one incoming message to every shard's queue: enveloped once, shared by reference.
//!
//! Owns the previous position of each channel (`prev`) and the fan-out to the queues, and lets
//! only valid channel names through: brokers accept subjects that nobody could subscribe to, even
//! ones with wildcards in them. It knows no broker. Bounds: at most [`CHANNELS_MAX`] channels are remembered (beyond that the memory
//! of `prev` starts afresh and the next message of each channel says 0, "none known"); a full
//! queue makes [`Publisher::publish`] wait, which stops the source from pulling more.

use std::collections::HashMap;
use std::sync::Arc;

use crate::channel::Pattern;
use crate::event::{Base, Epoch, Event, Incoming, Position, StreamPos};
use crate::feed::{Feed, FeedError, FeedSender, SourceStatus};

/// Channels whose previous position is remembered: 200,000 x about 100 bytes = 20 MB.
const CHANNELS_MAX: usize = 200_000;

/// Bytes that a subject may have: the limit on the channels that clients may name.
pub const SUBJECT_BYTES_MAX: usize = 256;

/// Messages pushed before the shards are woken even though the source has more at hand.
const BATCH_EVENTS_MAX: usize = 256;

/// Every shard has ended: the process is shutting down and the source should return.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shards have ended")]
pub struct ShardsGone;

/// The way from a source to the shards. One per process, owned by the running source.
#[derive(Debug)]
pub struct Publisher {
    shards: Vec<FeedSender>,
    previous: HashMap<Arc<str>, StreamPos>,
    unwoken: usize,
    status: SourceStatus,
    refused_total: u64,
}

impl Publisher {
    /// A publisher into these queues, one per shard.
    pub fn new(shards: Vec<FeedSender>) -> Self {
        Self {
            shards,
            previous: HashMap::new(),
            unwoken: 0,
            status: SourceStatus::Connecting,
            refused_total: 0,
        }
    }

    /// Envelopes one message and pushes it to every shard. Shards are woken by [`Self::flush`],
    /// which the source calls when it has nothing more at hand; every [`BATCH_EVENTS_MAX`]
    /// messages it happens by itself. Waits while a queue is full. A message whose subject is not
    /// a valid channel name is counted and left out.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub async fn publish(&mut self, incoming: &Incoming<'_>) -> Result<(), ShardsGone> {
        let Some((channel, prev)) = self.advance(incoming.subject, incoming.position.pos) else {
            return Ok(());
        };
        let event = Arc::new(Event::new(incoming, channel, prev));
        self.push(&Feed::Event(event)).await
    }

    /// Announces the stream's epoch: at the first contact, and when the stream was made again.
    /// Of what came before nothing is known.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub async fn epoch(&mut self, epoch: Epoch) -> Result<(), ShardsGone> {
        self.epoch_with(epoch, Base::default()).await
    }

    /// Announces the epoch of a source that counts its positions itself, from 1.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub async fn epoch_from_start(&mut self, epoch: Epoch) -> Result<(), ShardsGone> {
        let after = Some(Position::default());
        self.epoch_with(epoch, Base { after, ..Base::default() }).await
    }

    /// Announces the stream's epoch, and what is known of its messages.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub async fn epoch_with(&mut self, epoch: Epoch, base: Base) -> Result<(), ShardsGone> {
        self.previous.clear();
        self.push(&Feed::Epoch { epoch, base }).await?;
        self.flush();
        Ok(())
    }

    /// Tells the shards how the source is doing; a status that has not changed is not repeated.
    /// Wakes them for what was pushed before, too.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub async fn status(&mut self, status: SourceStatus) -> Result<(), ShardsGone> {
        if status != self.status {
            self.status = status;
            self.push(&Feed::Source(status)).await?;
        }
        self.flush();
        Ok(())
    }

    /// Wakes the shards if anything was pushed since the last wake.
    pub fn flush(&mut self) {
        if self.unwoken == 0 {
            return;
        }
        self.unwoken = 0;
        for shard in &self.shards {
            shard.wake();
        }
    }

    /// The channel of a subject and its previous position; `None` if the subject is not valid.
    fn advance(&mut self, subject: &str, pos: StreamPos) -> Option<(Arc<str>, StreamPos)> {
        if let Some((channel, _)) = self.previous.get_key_value(subject) {
            let channel = Arc::clone(channel);
            let prev = self.previous.insert(Arc::clone(&channel), pos).unwrap_or_default();
            return Some((channel, prev));
        }
        // Only valid names are in the map, so this is done once per channel.
        if Pattern::parse(subject, SUBJECT_BYTES_MAX).map_or(true, |name| name.is_wildcard()) {
            self.refuse(subject, pos);
            return None;
        }
        if self.previous.len() >= CHANNELS_MAX {
            tracing::warn!(channels = CHANNELS_MAX, "too many channels: `prev` starts afresh");
            self.previous.clear();
        }
        let channel: Arc<str> = subject.into();
        self.previous.insert(Arc::clone(&channel), pos);
        Some((channel, StreamPos::default()))
    }

    fn refuse(&mut self, subject: &str, pos: StreamPos) {
        self.refused_total += 1;
        // The 1st, 2nd, 4th, 8th and so on.
        if self.refused_total.is_power_of_two() {
            let subject: String = subject.chars().take(SUBJECT_BYTES_MAX).collect();
            let refused_total = self.refused_total;
            tracing::warn!(?subject, %pos, refused_total, "not a valid channel: message left out");
        }
    }

    async fn push(&mut self, item: &Feed) -> Result<(), ShardsGone> {
        for shard in &self.shards {
            let mut pending = item.clone();
            while let Err(error) = shard.try_push(pending) {
                match error {
                    FeedError::Closed => return Err(ShardsGone),
                    FeedError::Full(handed_back) => pending = handed_back,
                }
                self.shards.iter().for_each(FeedSender::wake);
                shard.space().await;
            }
        }
        self.unwoken += 1;
        if self.unwoken >= BATCH_EVENTS_MAX {
            self.flush();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Position;
    use crate::feed::feed;
    use futures_lite::future::block_on;

    fn incoming(subject: &str, pos: u64) -> Incoming<'_> {
        let position = Position { pos: StreamPos(pos), ts_ms: 0 };
        Incoming { subject, payload: b"{}", position }
    }

    #[test]
    fn every_shard_gets_the_same_event_with_the_previous_position() {
        let (first, first_end) = feed(8);
        let (second, second_end) = feed(8);
        let mut publisher = Publisher::new(vec![first, second]);
        for (subject, pos) in [("a.x", 1), ("a.y", 2), ("a.x", 5)] {
            block_on(publisher.publish(&incoming(subject, pos))).unwrap();
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        first_end.drain(&mut ours, 8);
        second_end.drain(&mut theirs, 8);
        let prev: Vec<_> = ours
            .iter()
            .zip(&theirs)
            .map(|pair| match pair {
                (Feed::Event(mine), Feed::Event(other)) => {
                    assert!(Arc::ptr_eq(mine, other));
                    let text = String::from_utf8_lossy(mine.tail()).into_owned();
                    text.split("\"prev\":").nth(1).unwrap().chars().next().unwrap()
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(prev, ['0', '0', '1']);
    }

    #[test]
    fn a_full_queue_holds_the_publisher_until_it_is_drained() {
        let (sender, receiver) = feed(1);
        let mut publisher = Publisher::new(vec![sender]);
        std::thread::scope(|scope| {
            let consumer = scope.spawn(|| {
                let mut items = Vec::new();
                while items.len() < 100 {
                    assert!(block_on(receiver.ready()));
                    receiver.drain(&mut items, 1);
                }
            });
            for pos in 1..=100 {
                block_on(publisher.publish(&incoming("a", pos))).unwrap();
            }
            publisher.flush();
            consumer.join().unwrap();
        });
    }

    #[test]
    fn subjects_that_are_not_channel_names_are_left_out() {
        let (sender, receiver) = feed(8);
        let mut publisher = Publisher::new(vec![sender]);
        let long = "x".repeat(SUBJECT_BYTES_MAX + 1);
        for subject in ["a.*.x", "a.>", "a\u{1}b", "a b", "", &long, "a.b"] {
            block_on(publisher.publish(&incoming(subject, 1))).unwrap();
        }
        let mut items = Vec::new();
        assert_eq!(receiver.drain(&mut items, 8), 1);
        assert_eq!(publisher.refused_total, 6);
    }

    #[test]
    fn the_end_of_the_shards_ends_the_source() {
        let (sender, receiver) = feed(1);
        drop(receiver);
        let mut publisher = Publisher::new(vec![sender]);
        assert_eq!(block_on(publisher.publish(&incoming("a", 1))), Err(ShardsGone));
    }
}
