//! A source that runs beside the test, and what it tells one shard, in order.

use std::collections::VecDeque;
use std::time::Duration;

use odin_ws::ingest::{IngestError, NatsSettings, Publisher, Source, run};
use odin_ws::testing::{FEED_CAPACITY, Feed, FeedReceiver, SourceStatus, feed};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Nothing takes this long; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running source and the queue of its only shard.
#[derive(Debug)]
pub(crate) struct RunningSource {
    receiver: FeedReceiver,
    waiting: VecDeque<Feed>,
    shutdown: watch::Sender<bool>,
    task: JoinHandle<Result<(), IngestError>>,
}

/// One thing that the source told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// An event: its position, channel and `data` as JSON text.
    Event(u64, String, String),
    /// An epoch.
    Epoch(String),
    /// What was claimed was taken back: nothing is missing from this position on.
    Loss(u64),
    /// Clients are told of a loss.
    Notice,
    /// A change of status.
    Status(SourceStatus),
}

impl RunningSource {
    /// Starts the source on this runtime.
    pub(crate) fn start(source: Source) -> Self {
        // A failing test shows what its source did; a second call changes nothing.
        tracing_subscriber::fmt().with_test_writer().try_init().ok();
        let (sender, receiver) = feed(FEED_CAPACITY);
        let (shutdown, flag) = watch::channel(false);
        let task = tokio::spawn(run(source, Publisher::new(vec![sender]), flag));
        Self { receiver, waiting: VecDeque::new(), shutdown, task }
    }

    /// The next thing that it tells.
    pub(crate) async fn next(&mut self) -> Told {
        while self.waiting.is_empty() {
            let is_open = tokio::time::timeout(PATIENCE, self.receiver.ready()).await;
            assert!(is_open.expect("the source tells nothing any more"), "the source has ended");
            let mut drained = Vec::new();
            self.receiver.take(&mut drained, FEED_CAPACITY);
            self.waiting.extend(drained.into_iter().filter(|item| !is_about_newest(item)));
        }
        told(self.waiting.pop_front().unwrap())
    }

    /// The next `count` things.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<Told> {
        let mut taken = Vec::new();
        while taken.len() < count {
            taken.push(self.next().await);
        }
        taken
    }

    /// Everything up to and with the first thing equal to `last`.
    pub(crate) async fn until(&mut self, last: &Told) -> Vec<Told> {
        let mut taken = Vec::new();
        while taken.last() != Some(last) {
            taken.push(self.next().await);
        }
        taken
    }

    /// The epoch of a source that is just starting, read up to its being live.
    pub(crate) async fn epoch_once_live(&mut self) -> String {
        let told = self.until(&Told::Status(SourceStatus::Live)).await;
        let epoch = told.into_iter().find_map(|told| match told {
            Told::Epoch(epoch) => Some(epoch),
            _ => None,
        });
        epoch.expect("an epoch before it is live")
    }

    /// Raises the shutdown flag and waits for the end.
    pub(crate) async fn stop(self) {
        self.shutdown.send_replace(true);
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }
}

/// The settings of a client of this server.
pub(crate) fn nats_at(url: &str) -> NatsSettings {
    NatsSettings { urls: vec![url.to_owned()], name: "test".to_owned(), ..Default::default() }
}

/// The positions of the events among these.
pub(crate) fn positions(told: &[Told]) -> Vec<u64> {
    told.iter()
        .filter_map(|told| match told {
            Told::Event(pos, ..) => Some(*pos),
            _ => None,
        })
        .collect()
}

/// The epochs among these.
pub(crate) fn epochs(told: &[Told]) -> Vec<&str> {
    told.iter()
        .filter_map(|told| match told {
            Told::Epoch(epoch) => Some(epoch.as_str()),
            _ => None,
        })
        .collect()
}

/// Whether it is about the newest messages: told at any time, to be seen at the client's end.
fn is_about_newest(item: &Feed) -> bool {
    matches!(item, Feed::Newest(_) | Feed::NewestComplete | Feed::Kept(_))
}

fn told(item: Feed) -> Told {
    match item {
        Feed::Event(event) => {
            let envelope = [b"{\"seq\":1,", event.tail()].concat();
            let value: serde_json::Value = serde_json::from_slice(&envelope).unwrap();
            let data = value["data"].to_string();
            Told::Event(event.position().pos.0, event.channel().to_string(), data)
        }
        Feed::Epoch { epoch, .. } => Told::Epoch(epoch.to_string()),
        Feed::Status(status) => Told::Status(status),
        Feed::Loss(base) => Told::Loss(base.whole_from.0),
        Feed::Notice => Told::Notice,
        other => panic!("{other:?} was filtered out"),
    }
}
