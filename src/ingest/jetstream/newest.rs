//! The newest message of each channel, read again from the stream after a loss.
//!
//! One consumer per served subject brings the last message of each channel. The main consumer goes
//! on meanwhile: what lies beyond its position is left to it. Bounds: one reading at a time,
//! [`BATCH`] messages under way, and [`EVERY_MIN`] between the beginnings of two.

use std::time::Duration;

use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy};
use async_nats::jetstream::{Context, Message};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::consumer::explain;
use crate::channel::Pattern;
use crate::ingest::stream::StreamError;

/// Messages asked for at once.
const BATCH: usize = 256;

/// Time between the beginnings of two readings: a stream that loses messages all the time must not
/// be read as a whole all the time.
const EVERY_MIN: Duration = Duration::from_secs(5);

/// The server removes a consumer that was left behind after this time.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(10);

/// Some of them, or why they cannot be read now; an empty batch is the end.
type Batch = Result<Vec<Message>, StreamError>;

/// The state of the reading.
#[derive(Default)]
pub(super) struct NewestRead {
    state: State,
    /// When the next reading may begin.
    not_before: Option<Instant>,
}

#[derive(Default)]
enum State {
    /// The shards have the newest message of every channel, or there is no stream yet.
    #[default]
    Given,
    /// They do not.
    Wanted,
    /// They are being read; the stream ended at this position when that began.
    Reading(mpsc::Receiver<Batch>, u64),
    /// They have been read; they are complete when the main consumer has come so far.
    ReadTo(u64),
}

impl NewestRead {
    /// The shards are to be given them, by the main consumer or by a reading.
    pub(super) fn want(&mut self) {
        self.state = State::Wanted;
    }

    /// Whether they are wanted.
    pub(super) fn is_wanted(&self) -> bool {
        matches!(self.state, State::Wanted)
    }

    /// The main consumer has brought them all.
    pub(super) fn set_given(&mut self) {
        self.state = State::Given;
    }

    /// Whether a reading may begin: it is wanted, and the last one was not just now.
    pub(super) fn may_begin(&self) -> bool {
        self.is_wanted() && self.not_before.is_none_or(|at| at <= Instant::now())
    }

    /// Begins to read the last message of every channel that the `subjects` match, of a stream that
    /// ends at `last`.
    pub(super) fn begin(
        &mut self,
        context: Context,
        stream: String,
        subjects: Vec<Pattern>,
        last: u64,
    ) {
        self.not_before = Some(Instant::now() + EVERY_MIN);
        // The task ends with the receiver.
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let end = read(&context, &stream, &subjects, &sender).await.map(|()| Vec::new());
            sender.send(end).await.unwrap_or_default();
        });
        self.state = State::Reading(receiver, last);
    }

    /// The next messages, or when the next reading may begin (`None`). For ever if there is
    /// nothing to wait for.
    pub(super) async fn next(&mut self) -> Option<Batch> {
        match &mut self.state {
            State::Reading(batches, last) => {
                let batch = batches.recv().await;
                match &batch {
                    Some(Ok(messages)) if messages.is_empty() => self.state = State::ReadTo(*last),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => self.state = State::Wanted,
                }
                batch
            }
            State::Wanted => match self.not_before {
                Some(at) if at > Instant::now() => {
                    tokio::time::sleep_until(at).await;
                    None
                }
                _ => None,
            },
            State::Given | State::ReadTo(_) => std::future::pending().await,
        }
    }

    /// Whether everything was read and the main consumer, which is at `handled`, has brought the
    /// rest; true once.
    pub(super) fn is_complete_at(&mut self, handled: u64) -> bool {
        let is_complete = matches!(self.state, State::ReadTo(last) if last <= handled);
        if is_complete {
            self.state = State::Given;
        }
        is_complete
    }
}

/// Sends the last messages of all channels in batches.
async fn read(
    context: &Context,
    stream: &str,
    subjects: &[Pattern],
    sender: &mpsc::Sender<Batch>,
) -> Result<(), StreamError> {
    for subject in subjects {
        let (consumer, mut left) = open(context, stream, subject).await?;
        while left > 0 {
            let batch = fetch(&consumer).await?;
            left = left.saturating_sub(batch.len() as u64);
            if batch.is_empty() {
                // What was removed meanwhile does not come any more.
                break;
            }
            if sender.send(Ok(batch)).await.is_err() {
                break;
            }
        }
        let name = &consumer.cached_info().name;
        if let Err(error) = context.delete_consumer_from_stream(name, stream).await {
            // The server does it after the inactive threshold.
            tracing::debug!(consumer = name, %error, "a consumer was not removed");
        }
    }
    Ok(())
}

async fn open(
    context: &Context,
    stream: &str,
    subject: &Pattern,
) -> Result<(Consumer<Config>, u64), StreamError> {
    let config = Config {
        description: Some("odin-ws, newest of each channel".to_owned()),
        deliver_policy: DeliverPolicy::LastPerSubject,
        ack_policy: AckPolicy::None,
        inactive_threshold: INACTIVE_THRESHOLD,
        num_replicas: 1,
        memory_storage: true,
        filter_subject: subject.to_string(),
        ..Config::default()
    };
    let consumer =
        context.create_consumer_on_stream(config, stream).await.map_err(|e| explain(&e))?;
    let left = consumer.cached_info().num_pending;
    Ok((consumer, left))
}

async fn fetch(consumer: &Consumer<Config>) -> Result<Vec<Message>, StreamError> {
    let failed = |error: String| StreamError::Failed(error);
    let mut messages = consumer
        .fetch()
        .max_messages(BATCH)
        .messages()
        .await
        .map_err(|error| failed(error.to_string()))?;
    let mut batch = Vec::new();
    while let Some(message) = messages.next().await {
        batch.push(message.map_err(|error| failed(error.to_string()))?);
    }
    Ok(batch)
}
