//! From one incoming message to every shard's queue: enveloped once, shared by reference.
//!
//! Owns the previous position of each channel (`prev`), what is claimed of it, and the fan-out to
//! the queues, and lets only valid channel names through: brokers accept subjects that nobody could
//! subscribe to, even ones with wildcards in them. It knows no broker.
//!
//! A loss takes back at once what is claimed: the shards are told, and `prev` is 0. The notice to
//! clients, which makes all of them load anew, may wait: it is sent at most once per [`super::notice::NOTICE_EVERY`].
//! Until then no event has a `prev`.
//!
//! Bounds. At most [`CHANNELS_MAX`] channels are remembered (beyond that the memory of `prev`
//! starts afresh and the next message of each channel says 0, "none known"). A full queue makes
//! [`Publisher::publish`] wait, which stops the source from pulling more; the other shards have
//! been given everything up to and with this message by then. A shard that takes nothing for
//! [`SHARD_PATIENCE`] is given up: the others go on, and it is told the epoch again when it comes
//! back, so that its clients reload.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::gate::Gate;
use super::notice::Notices;
use super::pace::Pace;
use super::report::SourceReport;
use crate::channel::Pattern;
use crate::clock::Clock;
use crate::event::Event;
use crate::feed::{Feed, FeedError, FeedSender, Overrun, SourceStatus};
use crate::load::LoadLevel;
use crate::position::{Base, Epoch, Incoming, Kept, Position, StreamPos};

/// Channels whose previous position is remembered: 200,000 x about 100 bytes = 20 MB.
const CHANNELS_MAX: usize = 200_000;

/// Bytes that a subject may have: the limit on the channels that clients may name.
pub const SUBJECT_BYTES_MAX: usize = 256;

/// Messages pushed before the shards are woken even though the source has more at hand.
const EVENTS_PER_WAKE_MAX: usize = 256;

/// How long a shard may take nothing while its queue is full, before the others go on without it.
/// A turn of a shard takes 50 ms at most: a shard without a turn in this time is stuck.
const SHARD_PATIENCE: Duration = Duration::from_secs(5);

/// The patience is waited for in parts. If the whole process does not run for a while, only one
/// part is used up: the shard is not blamed for it.
const PATIENCE_PARTS: u32 = 20;

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
    epoch: Option<Epoch>,
    /// From this position on no message is left out between two messages.
    whole_from: StreamPos,
    /// The newest message that was published in this epoch.
    newest: StreamPos,
    kept: Kept,
    notices: Notices,
    /// The newest messages that the shards hold are doubtful.
    is_newest_doubtful: bool,
    status: SourceStatus,
    pace: Pace,
    gate: Gate,
    patience: Duration,
    /// Time that a test has passed by.
    #[cfg(test)]
    passed: Duration,
    report: Arc<SourceReport>,
    clock: Clock,
}

impl Publisher {
    /// A publisher into these queues, one per shard.
    pub fn new(shards: Vec<FeedSender>) -> Self {
        Self {
            shards,
            previous: HashMap::new(),
            unwoken: 0,
            epoch: None,
            whole_from: StreamPos::default(),
            newest: StreamPos::default(),
            kept: Kept::All,
            notices: Notices::default(),
            is_newest_doubtful: false,
            status: SourceStatus::Connecting,
            pace: Pace::new(0, Instant::now()),
            gate: Gate::default(),
            patience: SHARD_PATIENCE,
            #[cfg(test)]
            passed: Duration::ZERO,
            report: Arc::default(),
            clock: Clock::start(),
        }
    }

    /// Stamps events with the time of the process's clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Hands at most so many events a second to the shards; 0 is no limit.
    #[must_use]
    pub fn with_rate_max(self, events_per_second: u32) -> Self {
        Self { pace: Pace::new(events_per_second, Instant::now()), ..self }
    }

    /// Pauses while `level` says that the process is near one of its limits.
    #[must_use]
    pub fn with_load(self, level: Arc<LoadLevel>) -> Self {
        Self { gate: Gate::new(level), ..self }
    }

    /// Gives up a shard whose queue is full after `patience`: at once if it is zero.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Has time pass without waiting for it.
    #[cfg(test)]
    pub(crate) fn pass(&mut self, time: Duration) {
        self.passed += time;
    }

    /// Counts into `report`.
    #[must_use]
    pub fn with_report(self, report: Arc<SourceReport>) -> Self {
        Self { report, ..self }
    }

    /// Where the source counts.
    pub(crate) fn report(&self) -> &Arc<SourceReport> {
        &self.report
    }

    /// The rate, if it is limited.
    pub(crate) fn rate_max(&self) -> Option<u32> {
        self.pace.per_second()
    }

    /// Whether the rate and the limits of the machine allow one more event now.
    pub(crate) fn has_room(&self) -> bool {
        self.pace.has_room(Instant::now) && self.gate.is_open()
    }

    /// Waits until they allow one more event. Sources wait before they take a message, so that
    /// they can be ended while they do.
    pub(crate) async fn room(&self) {
        self.report.broadcast_rate_pause.add(self.pace.room().await);
        self.gate.opened(&self.report).await;
    }

    /// Envelopes one message and pushes it to every shard. Shards are woken by [`Self::flush`],
    /// which the source calls when it has nothing more at hand; every [`EVENTS_PER_WAKE_MAX`]
    /// messages it happens by itself. Waits while a queue is full. A message whose subject is not
    /// a valid channel name is counted and left out.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub async fn publish(&mut self, incoming: &Incoming<'_>) -> Result<(), ShardsGone> {
        self.tell_if_due().await?;
        let Some((channel, prev)) = self.advance(incoming.subject, incoming.position.pos) else {
            return Ok(());
        };
        let arrived_us = self.clock.monotonic_us();
        let event = Arc::new(Event::new(incoming, channel, prev, arrived_us));
        self.pace.count(Instant::now);
        self.gate.count();
        self.report.events.add(1);
        self.push(&Feed::Event(event)).await
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
        if self.epoch.is_some() {
            // Clients are told of it, and with it of every loss before.
            self.notices.told(self.now());
        }
        self.previous.clear();
        self.newest = StreamPos::default();
        self.epoch = Some(epoch.clone());
        self.whole_from = base.whole_from;
        self.report.epochs.add(1);
        self.push(&Feed::Epoch { epoch, base }).await?;
        self.flush();
        Ok(())
    }

    /// Messages may be missing before what follows: `base` is what is known from now on. What was
    /// claimed is taken back at once. Clients are told at once if they were not lately, or else by
    /// [`Self::tell_if_due`].
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub async fn loss(&mut self, base: Base) -> Result<(), ShardsGone> {
        self.take_back(base).await?;
        self.notices.lost(self.now());
        self.tell_if_due().await
    }

    /// The same, but clients are not told before [`Self::tell`]: where the messages are missing is
    /// not known yet.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub async fn doubt(&mut self, base: Base) -> Result<(), ShardsGone> {
        self.take_back(base).await?;
        self.notices.hold();
        Ok(())
    }

    async fn take_back(&mut self, base: Base) -> Result<(), ShardsGone> {
        self.whole_from = base.whole_from;
        self.is_newest_doubtful = true;
        self.report.losses.add(1);
        self.push(&Feed::Loss(base)).await
    }

    /// When clients are to be told of a loss; `None` if there is nothing to tell.
    pub(crate) fn notice_due(&self) -> Option<Instant> {
        self.notices.due()
    }

    /// Tells clients of the losses so far if it is time.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub(crate) async fn tell_if_due(&mut self) -> Result<(), ShardsGone> {
        match self.notices.due() {
            Some(due) if due <= self.now() => self.tell().await,
            Some(_) | None => Ok(()),
        }
    }

    /// Tells clients of the losses so far, if there are any.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub async fn tell(&mut self) -> Result<(), ShardsGone> {
        if self.notices.tell(self.now()) {
            // What came since the first of them was not known to be whole.
            self.whole_from = self.whole_from.max(StreamPos(self.newest.0 + 1));
            self.report.notices.add(1);
            self.push(&Feed::Notice).await?;
            self.flush();
        }
        Ok(())
    }

    /// The time by which clients are told.
    fn now(&self) -> Instant {
        #[cfg(test)]
        return Instant::now() + self.passed;
        #[cfg(not(test))]
        Instant::now()
    }

    /// Whether the shards' newest messages have to be read again: after a loss, or because a shard
    /// that was given up has come back. True once.
    pub(crate) fn wants_newest(&mut self) -> bool {
        let came_back = self.shards.iter().filter(|shard| shard.came_back()).count() > 0;
        std::mem::take(&mut self.is_newest_doubtful) || came_back
    }

    /// Gives the newest message that the stream holds on its channel. It must be no newer than what
    /// was published, and is not delivered.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub async fn newest(&mut self, incoming: &Incoming<'_>) -> Result<(), ShardsGone> {
        let known = self.previous.get_key_value(incoming.subject);
        let channel = match known {
            Some((channel, _)) => Arc::clone(channel),
            None if is_channel(incoming.subject) => incoming.subject.into(),
            None => return Ok(()),
        };
        let arrived_us = self.clock.monotonic_us();
        let event = Event::new(incoming, channel, StreamPos::default(), arrived_us);
        self.push(&Feed::Newest(Arc::new(event))).await
    }

    /// The newest message of every channel that the stream holds was published or given.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub async fn newest_complete(&mut self) -> Result<(), ShardsGone> {
        self.push(&Feed::NewestComplete).await?;
        self.flush();
        Ok(())
    }

    /// Tells how many messages of each channel the stream keeps, unless that is known.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub async fn kept(&mut self, kept: Kept) -> Result<(), ShardsGone> {
        if kept != self.kept {
            self.kept = kept;
            self.push(&Feed::Kept(kept)).await?;
            self.flush();
        }
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
            self.report.set_status(status);
            self.push(&Feed::Status(status)).await?;
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
        self.newest = pos;
        if let Some((channel, _)) = self.previous.get_key_value(subject) {
            let channel = Arc::clone(channel);
            let prev = self.previous.insert(Arc::clone(&channel), pos).unwrap_or_default();
            let is_known = prev >= self.whole_from && !self.notices.is_untold();
            return Some((channel, if is_known { prev } else { StreamPos::default() }));
        }
        // Only valid names are in the map, so this is done once per channel.
        if !is_channel(subject) {
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
        self.report.refused.add(1);
        let refused_total = self.report.refused.total();
        // The 1st, 2nd, 4th, 8th and so on.
        if refused_total.is_power_of_two() {
            let subject: String = subject.chars().take(SUBJECT_BYTES_MAX).collect();
            tracing::warn!(?subject, %pos, refused_total, "not a valid channel: message left out");
        }
    }

    /// Gives `item` at once to every shard that has room, and waits for the other shards.
    async fn push(&mut self, item: &Feed) -> Result<(), ShardsGone> {
        let mut full = Vec::new();
        for (index, shard) in self.shards.iter().enumerate() {
            match shard.try_push(item.clone()) {
                Ok(()) => {}
                Err(FeedError::Full(_)) => full.push(index),
                Err(FeedError::Closed) => return Err(ShardsGone),
            }
        }
        if !full.is_empty() {
            self.push_when_there_is_room(item, full).await?;
        }
        self.unwoken += 1;
        if self.unwoken >= EVENTS_PER_WAKE_MAX {
            self.flush();
        }
        Ok(())
    }

    async fn push_when_there_is_room(
        &mut self,
        item: &Feed,
        mut full: Vec<usize>,
    ) -> Result<(), ShardsGone> {
        self.shards.iter().for_each(FeedSender::wake);
        let began = Instant::now();
        let mut parts = 0;
        while let Some(&index) = full.first() {
            if self.patience.is_zero() && self.give_up(&full, item) {
                break;
            }
            let shard = &self.shards[index];
            let has_room = tokio::time::timeout(self.patience / PATIENCE_PARTS, shard.space());
            parts += u32::from(has_room.await.is_err());
            let mut still_full = Vec::new();
            for index in full {
                match self.shards[index].try_push(item.clone()) {
                    Ok(()) => {}
                    Err(FeedError::Full(_)) => still_full.push(index),
                    Err(FeedError::Closed) => return Err(ShardsGone),
                }
            }
            full = still_full;
            if parts >= PATIENCE_PARTS && self.give_up(&full, item) {
                break;
            }
        }
        self.report.shard_pause.add(began.elapsed());
        Ok(())
    }

    /// Goes on without these shards, which do not have `item`. Returns false before the stream is known: nothing that could
    /// fill a queue is pushed then.
    fn give_up(&self, shards: &[usize], item: &Feed) -> bool {
        let Some(epoch) = &self.epoch else { return false };
        for &shard in shards {
            let patience = self.patience;
            tracing::error!(
                shard,
                ?patience,
                "the shard takes nothing: the others go on without it"
            );
            self.report.overruns.add(1);
            self.shards[shard].give_up(Overrun {
                epoch: epoch.clone(),
                is_new_life: matches!(item, Feed::Epoch { .. }),
                whole_from: self.whole_from.max(StreamPos(self.newest.0 + 1)),
                kept: self.kept,
                status: self.status,
            });
        }
        true
    }
}

/// Whether clients could subscribe to this subject.
fn is_channel(subject: &str) -> bool {
    Pattern::parse(subject, SUBJECT_BYTES_MAX).is_ok_and(|name| !name.is_wildcard())
}

#[cfg(test)]
mod tests {
    use super::*;
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
        first_end.take(&mut ours, 8);
        second_end.take(&mut theirs, 8);
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
    fn a_previous_position_behind_which_something_may_be_missing_is_not_told() {
        let (sender, _end) = feed(64);
        let mut publisher = Publisher::new(vec![sender]);
        let base = Base { after: None, whole_from: StreamPos(40) };
        block_on(publisher.epoch_with(Epoch("e".into()), base)).unwrap();
        let previous: Vec<u64> = [12, 41, 43]
            .into_iter()
            .map(|pos| publisher.advance("a.x", StreamPos(pos)).unwrap().1.0)
            .collect();
        assert_eq!(previous, [0, 0, 41]);
    }

    fn on_tokio<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
    }

    fn positions(items: &[Feed]) -> Vec<u64> {
        let events = items.iter().filter_map(|item| match item {
            Feed::Event(event) => Some(event.position().pos.0),
            _ => None,
        });
        events.collect()
    }

    #[test]
    fn a_full_queue_holds_the_publisher_until_it_is_drained() {
        let (sender, receiver) = feed(1);
        let mut publisher = Publisher::new(vec![sender]);
        let consumer = std::thread::spawn(move || {
            let mut items = Vec::new();
            while items.len() < 100 {
                assert!(block_on(receiver.ready()));
                receiver.take(&mut items, 1);
            }
            positions(&items)
        });
        on_tokio(async {
            for pos in 1..=100 {
                publisher.publish(&incoming("a", pos)).await.unwrap();
            }
            publisher.flush();
        });
        assert_eq!(consumer.join().unwrap(), (1..=100).collect::<Vec<u64>>());
        assert_eq!(publisher.report().overruns.total(), 0);
    }

    #[test]
    fn while_one_shard_is_full_the_others_have_everything_up_to_the_message_at_hand() {
        let (blocked, blocked_end) = feed(3);
        let (other, other_end) = feed(64);
        let mut publisher = Publisher::new(vec![blocked, other]);
        on_tokio(async {
            for pos in 1..=3 {
                publisher.publish(&incoming("a", pos)).await.unwrap();
            }
            let mut theirs = Vec::new();
            {
                let message = incoming("a", 4);
                let mut waiting = std::pin::pin!(publisher.publish(&message));
                let is_done = futures_lite::future::poll_once(waiting.as_mut()).await.is_some();
                assert!(!is_done);
                other_end.take(&mut theirs, 64);
                assert_eq!(positions(&theirs), [1, 2, 3, 4]);
                let mut ours = Vec::new();
                blocked_end.take(&mut ours, 2);
                waiting.await.unwrap();
                blocked_end.take(&mut ours, 64);
                assert_eq!(positions(&ours), [1, 2, 3, 4]);
            }
        });
    }

    #[test]
    fn a_shard_that_takes_nothing_is_given_up_and_told_when_it_comes_back() {
        let (stuck, stuck_end) = feed(3);
        let (other, other_end) = feed(64);
        let patience = Duration::from_millis(100);
        let mut publisher = Publisher { patience, ..Publisher::new(vec![stuck, other]) };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        on_tokio(async {
            publisher.epoch_with(Epoch("e".into()), Base::default()).await.unwrap();
            for pos in 1..=20 {
                publisher.publish(&incoming("a", pos)).await.unwrap();
            }
            publisher.status(SourceStatus::Live).await.unwrap();
            stuck_end.take(&mut ours, 64);
            for pos in 21..=22 {
                publisher.publish(&incoming("a", pos)).await.unwrap();
            }
            stuck_end.take(&mut ours, 64);
            other_end.take(&mut theirs, 64);
        });
        assert_eq!(positions(&theirs), (1..=22).collect::<Vec<u64>>());
        assert_eq!(positions(&ours), [1, 2, 21, 22]);
        let told: Vec<&Feed> = ours.iter().filter(|item| !matches!(item, Feed::Event(_))).collect();
        assert!(
            matches!(
                told[..],
                [
                    Feed::Epoch { .. },
                    Feed::Loss(_),
                    Feed::Notice,
                    Feed::Kept(Kept::All),
                    Feed::Status(SourceStatus::Live)
                ]
            ),
            "{told:?}"
        );
        assert_eq!(publisher.report().overruns.total(), 1);
        assert!(publisher.wants_newest(), "what it holds is out of date");
        assert!(!publisher.wants_newest());
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
        assert_eq!(receiver.take(&mut items, 8), 1);
        assert_eq!(publisher.report().refused.total(), 6);
    }

    #[test]
    fn the_end_of_the_shards_ends_the_source() {
        let (sender, receiver) = feed(1);
        drop(receiver);
        let mut publisher = Publisher::new(vec![sender]);
        assert_eq!(block_on(publisher.publish(&incoming("a", 1))), Err(ShardsGone));
    }
}
