//! The bounded queue between the ingest thread and one shard, and the wake that goes with it.
//!
//! The only place where threads meet on the data path. The sender pushes many items and wakes once;
//! the receiver takes what is there, and sleeps when the queue is empty. It knows neither NATS nor sockets.
//! Bound: `capacity` items (default [`FEED_CAPACITY`]). If the queue is full, the sender is told and
//! waits with [`FeedSender::space`]. If the sender gives up waiting, the receiver is told after it
//! has taken what was queued: no loss goes unnoticed.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use atomic_waker::AtomicWaker;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use tokio::sync::Notify;

use crate::event::Event;
use crate::position::{Base, Epoch, Kept, StreamPos};

/// Items one shard's queue holds: at 800 bytes an event 6.5 MB of shared payload, and more than a
/// second of the busiest minute foreseen (5,000 events/s).
pub const FEED_CAPACITY: usize = 8_192;

/// Items that a receiver is given when it goes on after it was given up.
const COME_BACK_ITEMS: usize = 4;

/// What the source tells the shards, in the order in which it happened.
#[derive(Debug, Clone)]
pub enum Feed {
    /// A published message.
    Event(Arc<Event>),
    /// A life of the stream begins: the first at start, another when the stream was made again, the
    /// same again when the broker gave positions out a second time. Everything logged before does
    /// not connect to what follows, and no newest message of before is known to be one.
    Epoch {
        /// The life.
        epoch: Epoch,
        /// What is known of its messages.
        base: Base,
    },
    /// Messages of this life may be missing before what follows: nothing is claimed any more of what
    /// was before, at once. Clients are told by the next [`Feed::Notice`].
    Loss(Base),
    /// Clients are told of the losses since the last notice.
    Notice,
    /// The newest message that the stream holds on its channel, no newer than what was published.
    Newest(Arc<Event>),
    /// The newest message of every channel that the stream holds was published, or given as
    /// [`Feed::Newest`], since the last epoch or loss.
    NewestComplete,
    /// How many messages of each channel the stream keeps.
    Kept(Kept),
    /// How the source is doing.
    Status(SourceStatus),
}

/// How the source is doing, as `/ready` and clients are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceStatus {
    /// Not connected to the broker yet.
    Connecting,
    /// Reading the messages that the stream retains.
    Loading,
    /// Messages arrive as they are published.
    Live,
    /// Connected once, and lost: what clients have may be out of date.
    Stale,
}

impl SourceStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Connecting, Self::Loading, Self::Live, Self::Stale];

    /// The status as a word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Loading => "loading",
            Self::Live => "live",
            Self::Stale => "stale",
        }
    }
}

#[derive(Debug, Default)]
struct Signal {
    consumer: AtomicWaker,
    space: Notify,
    wants_space: AtomicBool,
    sender_gone: AtomicBool,
    receiver_gone: AtomicBool,
    /// Whether `overrun` holds something: checked without its lock.
    is_overrun: AtomicBool,
    /// Whether the receiver goes on after it was given up, and the sender has not asked since.
    came_back: AtomicBool,
    overrun: Mutex<Option<Overrun>>,
}

/// Where a receiver goes on after it was given up. It has lost the items between those in its queue
/// and this.
#[derive(Debug, Clone)]
pub struct Overrun {
    /// The epoch.
    pub epoch: Epoch,
    /// Whether it began meanwhile.
    pub is_new_life: bool,
    /// From here on nothing is left out between two messages.
    pub whole_from: StreamPos,
    /// How many messages of each channel the stream keeps.
    pub kept: Kept,
    /// How the source is doing.
    pub status: SourceStatus,
}

impl Signal {
    fn overrun(&self) -> MutexGuard<'_, Option<Overrun>> {
        // Its holders only assign: it is whole whatever happened to them.
        self.overrun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `item` if the receiver has been given up and has not come back.
    fn swallow(&self, item: &Feed) -> bool {
        if !self.is_overrun.load(Ordering::SeqCst) {
            return false;
        }
        let mut overrun = self.overrun();
        let Some(missed) = overrun.as_mut() else { return false };
        match item {
            // The notice that it is given tells of all of them.
            Feed::Notice | Feed::Newest(_) | Feed::NewestComplete => {}
            Feed::Event(event) => {
                let next = StreamPos(event.position().pos.0 + 1);
                missed.whole_from = missed.whole_from.max(next);
            }
            Feed::Epoch { epoch, base } => {
                missed.epoch = epoch.clone();
                missed.is_new_life = true;
                missed.whole_from = base.whole_from;
            }
            Feed::Loss(base) => missed.whole_from = base.whole_from,
            Feed::Kept(kept) => missed.kept = *kept,
            Feed::Status(status) => missed.status = *status,
        }
        true
    }
}

/// The ingest thread's end.
#[derive(Debug)]
pub struct FeedSender {
    queue: Sender<Feed>,
    signal: Arc<Signal>,
}

/// The shard's end.
#[derive(Debug)]
pub struct FeedReceiver {
    queue: Receiver<Feed>,
    signal: Arc<Signal>,
}

/// A queue that holds at most `capacity` items.
pub fn feed(capacity: usize) -> (FeedSender, FeedReceiver) {
    let (sender, receiver) = crossbeam_channel::bounded(capacity);
    let signal = Arc::new(Signal::default());
    (
        FeedSender { queue: sender, signal: Arc::clone(&signal) },
        FeedReceiver { queue: receiver, signal },
    )
}

/// Why an item was not taken; it is handed back.
#[derive(Debug)]
pub enum FeedError {
    /// The queue is full: wake the shard, await [`FeedSender::space`], try again.
    Full(Feed),
    /// The shard is gone.
    Closed,
}

impl FeedSender {
    /// Pushes without waking. An item for a receiver that was given up is left out.
    ///
    /// # Errors
    /// [`FeedError::Full`] hands the item back; [`FeedError::Closed`] if the shard has ended.
    pub fn try_push(&self, item: Feed) -> Result<(), FeedError> {
        if self.signal.swallow(&item) {
            return Ok(());
        }
        self.queue.try_send(item).map_err(|error| match error {
            TrySendError::Full(item) => FeedError::Full(item),
            TrySendError::Disconnected(_) => FeedError::Closed,
        })
    }

    /// Gives up a receiver that takes nothing: it loses what is pushed from now on. When it has
    /// taken what is queued, it is told the epoch again and the status, and goes on from there.
    pub fn give_up(&self, overrun: Overrun) {
        *self.signal.overrun() = Some(overrun);
        self.signal.is_overrun.store(true, Ordering::SeqCst);
        // It may have taken everything meanwhile and be asleep.
        self.signal.consumer.wake();
    }

    /// Whether the receiver goes on after it was given up; true once.
    pub(crate) fn came_back(&self) -> bool {
        self.signal.came_back.load(Ordering::Relaxed)
            && self.signal.came_back.swap(false, Ordering::SeqCst)
    }

    /// Wakes the shard: once per batch.
    pub fn wake(&self) {
        self.signal.consumer.wake();
    }

    /// Resolves when the queue has room, or when the shard has ended.
    pub async fn space(&self) {
        loop {
            // Ask first and check second: the receiver checks the wish after it made room.
            self.signal.wants_space.store(true, Ordering::SeqCst);
            if !self.queue.is_full() || self.signal.receiver_gone.load(Ordering::SeqCst) {
                return;
            }
            self.signal.space.notified().await;
        }
    }

    /// Items waiting in the queue.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Drop for FeedSender {
    fn drop(&mut self) {
        self.signal.sender_gone.store(true, Ordering::SeqCst);
        self.signal.consumer.wake();
    }
}

impl Drop for FeedReceiver {
    fn drop(&mut self) {
        self.signal.receiver_gone.store(true, Ordering::SeqCst);
        self.signal.space.notify_one();
    }
}

impl FeedReceiver {
    /// Moves up to `max` items into `into`, in order; returns how many.
    pub fn take(&self, into: &mut impl Extend<Feed>, max: usize) -> usize {
        let mut taken = 0;
        into.extend(self.queue.try_iter().take(max).inspect(|_| taken += 1));
        if taken > 0 && self.signal.wants_space.swap(false, Ordering::SeqCst) {
            self.signal.space.notify_one();
        }
        if taken + COME_BACK_ITEMS <= max && self.is_overrun() {
            taken += self.come_back(into);
        }
        taken
    }

    /// Once the queue is empty, tells a receiver that was given up where it goes on. The sender
    /// pushes nothing until then.
    fn come_back(&self, into: &mut impl Extend<Feed>) -> usize {
        let mut overrun = self.signal.overrun();
        if !self.queue.is_empty() {
            return 0;
        }
        let Some(missed) = overrun.take() else { return 0 };
        self.signal.is_overrun.store(false, Ordering::SeqCst);
        self.signal.came_back.store(true, Ordering::SeqCst);
        // What lies between is not known.
        let base = Base { after: None, whole_from: missed.whole_from };
        let begin = match missed.is_new_life {
            true => Feed::Epoch { epoch: missed.epoch, base },
            false => Feed::Loss(base),
        };
        let (kept, status) = (Feed::Kept(missed.kept), Feed::Status(missed.status));
        let items: [Feed; COME_BACK_ITEMS] = [begin, Feed::Notice, kept, status];
        into.extend(items);
        COME_BACK_ITEMS
    }

    fn is_overrun(&self) -> bool {
        self.signal.is_overrun.load(Ordering::SeqCst)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && !self.is_overrun()
    }

    /// Waits until something is in the queue (true) or the sender is gone (false).
    pub async fn ready(&self) -> bool {
        poll_fn(|cx| {
            if !self.is_empty() {
                return Poll::Ready(true);
            }
            // Register first and check second, or a push in between would go unseen.
            self.signal.consumer.register(cx.waker());
            if !self.is_empty() {
                return Poll::Ready(true);
            }
            if self.signal.sender_gone.load(Ordering::SeqCst) {
                // The sender's last push came before the flag: check once more.
                return Poll::Ready(!self.queue.is_empty());
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Feed {
        Feed::Status(SourceStatus::Live)
    }

    #[test]
    fn a_full_queue_hands_the_item_back() {
        let (sender, receiver) = feed(2);
        sender.try_push(live()).unwrap();
        sender.try_push(live()).unwrap();
        assert!(matches!(sender.try_push(live()), Err(FeedError::Full(_))));
        let mut items = Vec::new();
        assert_eq!(receiver.take(&mut items, 1), 1);
        sender.try_push(live()).unwrap();
        assert_eq!(receiver.take(&mut items, 10), 2);
        drop(receiver);
        assert!(matches!(sender.try_push(live()), Err(FeedError::Closed)));
    }

    fn names(items: &[Feed]) -> Vec<String> {
        let name = |item: &Feed| match item {
            Feed::Epoch { epoch, .. } => epoch.to_string(),
            Feed::Status(status) => status.as_str().to_owned(),
            Feed::Loss(base) => format!("loss before {}", base.whole_from),
            other => format!("{other:?}"),
        };
        items.iter().map(name).collect()
    }

    fn overrun(status: SourceStatus) -> Overrun {
        let (is_new_life, whole_from) = (false, StreamPos(3));
        Overrun { epoch: epoch("a"), is_new_life, whole_from, kept: Kept::All, status }
    }

    fn epoch(name: &str) -> Epoch {
        Epoch(name.into())
    }

    #[test]
    fn a_receiver_that_was_given_up_is_told_after_what_was_queued() {
        let (sender, receiver) = feed(3);
        for _ in 0..3 {
            sender.try_push(Feed::Status(SourceStatus::Stale)).unwrap();
        }
        sender.give_up(overrun(SourceStatus::Stale));
        for missed in [
            live(),
            Feed::Epoch { epoch: epoch("b"), base: Base::default() },
            Feed::Notice,
            Feed::Status(SourceStatus::Loading),
        ] {
            sender.try_push(missed).unwrap();
        }
        let mut items = Vec::new();
        assert_eq!(receiver.take(&mut items, 2), 2);
        sender.try_push(live()).unwrap();
        assert!(!receiver.is_empty());
        assert_eq!(receiver.take(&mut items, 8), 5);
        let told = ["stale", "stale", "stale", "b", "Notice", "Kept(All)", "live"];
        assert_eq!(names(&items), told);
        assert!(receiver.is_empty());
        sender.try_push(live()).unwrap();
        assert_eq!(receiver.take(&mut items, 8), 1, "the queue is as before");
    }

    #[test]
    fn a_receiver_that_is_given_up_in_its_sleep_is_woken() {
        let (sender, receiver) = feed(1);
        let consumer = std::thread::spawn(move || {
            assert!(futures_lite::future::block_on(receiver.ready()));
            let mut items = Vec::new();
            receiver.take(&mut items, 8);
            names(&items)
        });
        sender.give_up(overrun(SourceStatus::Live));
        assert_eq!(consumer.join().unwrap(), ["loss before 3", "Notice", "Kept(All)", "live"]);
    }

    #[test]
    fn a_waiting_receiver_is_woken_by_another_thread_and_by_the_end() {
        let (sender, receiver) = feed(4);
        let consumer = std::thread::spawn(move || {
            let mut items = Vec::new();
            while futures_lite::future::block_on(receiver.ready()) {
                receiver.take(&mut items, 4);
            }
            items.len()
        });
        for _ in 0..3 {
            sender.try_push(live()).unwrap();
            sender.wake();
        }
        drop(sender);
        assert_eq!(consumer.join().unwrap(), 3);
    }

    #[test]
    fn the_end_of_the_receiver_frees_a_waiting_sender() {
        let (sender, receiver) = feed(1);
        sender.try_push(live()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| drop(receiver));
            futures_lite::future::block_on(sender.space());
        });
        assert!(matches!(sender.try_push(live()), Err(FeedError::Closed)));
    }

    #[test]
    fn space_resolves_when_the_receiver_drains() {
        let (sender, receiver) = feed(1);
        for _ in 0..1_000 {
            sender.try_push(live()).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| receiver.take(&mut Vec::new(), 1));
                futures_lite::future::block_on(sender.space());
            });
        }
    }
}
