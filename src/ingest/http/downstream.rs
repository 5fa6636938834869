//! What the shards are told: the epoch, changes with positions, and how fresh they are.
//!
//! There is no stream behind the source: the epoch is made up at the start and positions are
//! counted from 1, so they mean nothing on another instance. When history was lost the same epoch
//! is announced again. Bounds: clients are told to reload at most once per [`RELOAD_EVERY_MIN`];
//! the source counts as stale when no good answer came for the poll interval and
//! [`STALE_AFTER`].

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::answer::{Change, Unusable};
use crate::channel::Pattern;
use crate::feed::SourceStatus;
use crate::ingest::clock::unix_ms;
use crate::ingest::shutdown::Shutdown;
use crate::ingest::{Publisher, ShardsGone};
use crate::position::{Base, Epoch, Incoming, Position, StreamPos};

/// An outage that is shorter than this, beyond the poll interval, loses nothing and is not told.
const STALE_AFTER: Duration = Duration::from_secs(3);

/// Time between two announcements that make clients reload, whatever the backend does.
const RELOAD_EVERY_MIN: Duration = Duration::from_secs(5);

/// The way to the shards.
pub(super) struct Downstream {
    publisher: Publisher,
    epoch: Epoch,
    served: Arc<[Pattern]>,
    pos: StreamPos,
    fresh_for: Duration,
    /// When the last good answer is too old; `None` if the source is not live.
    stale_at: Option<Instant>,
    is_announced: bool,
    /// When clients were last told to reload.
    reloaded: Option<Instant>,
    unusable_total: u64,
}

impl Downstream {
    /// Nothing is told yet. Changes of channels that `served` does not cover are left out.
    pub(super) fn new(publisher: Publisher, served: Arc<[Pattern]>, interval: Duration) -> Self {
        Self {
            publisher,
            epoch: Epoch(format!("http-{:016x}", rand::random::<u64>()).into()),
            served,
            pos: StreamPos::default(),
            fresh_for: interval + STALE_AFTER,
            stale_at: None,
            is_announced: false,
            reloaded: None,
            unusable_total: 0,
        }
    }

    /// Waits for `work`, and meanwhile tells the shards if the last good answer becomes too old.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub(super) async fn meanwhile<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, ShardsGone> {
        let mut work = pin!(work);
        if let Some(stale_at) = self.stale_at {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = sleep_until(stale_at.into()) => {}
            }
            self.stale_at = None;
            tracing::warn!("no good answer from the backend: clients are told");
            self.publisher.status(SourceStatus::Stale).await?;
        }
        Ok(work.await)
    }

    /// How long the next [`Self::announce`] has to wait.
    pub(super) fn until_announcement(&self) -> Duration {
        let since = self.reloaded.map(|told| told.elapsed());
        since.map_or(Duration::ZERO, |since| RELOAD_EVERY_MIN.saturating_sub(since))
    }

    /// Announces that what follows does not connect to what was before: at the first contact, or
    /// when history was lost.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub(super) async fn announce(&mut self) -> Result<(), ShardsGone> {
        if !std::mem::replace(&mut self.is_announced, true) {
            return self.publisher.epoch_from_start(self.epoch.clone()).await;
        }
        tracing::warn!(epoch = %self.epoch, "changes may be lost: clients are told to reload");
        self.reloaded = Some(Instant::now());
        let whole_from = StreamPos(self.pos.0 + 1);
        self.publisher.loss(Base { after: None, whole_from }).await?;
        self.publisher.tell().await
    }

    /// Publishes changes in their order, all with the time of now, as fast as there is room; what
    /// cannot be used is counted and left out. At shutdown it ends before the next change.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub(super) async fn publish<'a>(
        &mut self,
        changes: impl Iterator<Item = Result<Change<'a>, Unusable>>,
        shutdown: &Shutdown,
    ) -> Result<(), ShardsGone> {
        let ts_ms = unix_ms();
        for change in changes {
            if !self.publisher.has_room() {
                self.publisher.flush();
                if shutdown.fired_before(self.publisher.room()).await {
                    return Ok(());
                }
            }
            match change.and_then(|change| self.served(change)) {
                Ok(Change { channel, payload }) => {
                    self.pos = StreamPos(self.pos.0 + 1);
                    let position = Position { pos: self.pos, ts_ms };
                    let payload = payload.as_bytes();
                    let incoming = Incoming { subject: &channel, payload, position };
                    self.publisher.publish(&incoming).await?;
                }
                Err(unusable) => self.leave_out(&unusable),
            }
        }
        Ok(())
    }

    /// Tells that everything up to now has been published.
    ///
    /// # Errors
    /// [`ShardsGone`] at shutdown.
    pub(super) async fn confirm(&mut self) -> Result<(), ShardsGone> {
        self.stale_at = Some(Instant::now() + self.fresh_for);
        self.publisher.status(SourceStatus::Live).await
    }

    fn served<'a>(&self, change: Change<'a>) -> Result<Change<'a>, Unusable> {
        match self.served.iter().any(|pattern| pattern.matches(&change.channel)) {
            true => Ok(change),
            false => Err(Unusable::not_served(&change.channel)),
        }
    }

    fn leave_out(&mut self, unusable: &Unusable) {
        self.unusable_total += 1;
        // The 1st, 2nd, 4th, 8th and so on.
        if self.unusable_total.is_power_of_two() {
            let unusable_total = self.unusable_total;
            tracing::warn!(reason = %unusable, unusable_total, "a change is left out");
        }
    }
}
