//! The newest message of each channel, read again from the stream after a loss.
//!
//! One consumer per served subject brings the last message of each channel. The main consumer goes
//! on meanwhile: what lies beyond its position is left to it. Bounds: one reading at a time,
//! [`BATCH`] messages under way, [`EVERY_MIN`] between the beginnings of two, and [`AFTER_FAILURE`]
//! after one that failed. A reading is whole if everything that its consumers have sent has come, and
//! they have nothing more to send.

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

/// Time after one that failed: what made it fail may last, such as a message that the client library
/// swallows.
const AFTER_FAILURE: Duration = Duration::from_secs(30);

/// The server removes a consumer that was left behind after this time.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(10);

/// What a reading brings.
#[derive(Debug)]
pub(super) enum Batch {
    /// Some of them.
    Messages(Vec<Message>),
    /// There are no more.
    End,
    /// The rest cannot be read now.
    Failed(StreamError),
}

/// The reading, if there is one under way.
#[derive(Debug, Default)]
pub(super) struct NewestRead {
    batches: Option<mpsc::Receiver<Batch>>,
    /// When the next reading may begin.
    not_before: Option<Instant>,
}

impl NewestRead {
    /// Begins to read the last message of every channel that the `subjects` match.
    pub(super) fn begin(&mut self, context: Context, stream: String, subjects: Vec<Pattern>) {
        self.not_before = Some(Instant::now() + EVERY_MIN);
        // The task ends with the receiver.
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let end = match read(&context, &stream, &subjects, &sender).await {
                Ok(()) => Batch::End,
                Err(error) => Batch::Failed(error),
            };
            sender.send(end).await.unwrap_or_default();
        });
        self.batches = Some(receiver);
    }

    /// What comes next of the reading that is under way. If there is none and one `is_wanted`, waits
    /// until it may begin and returns `None`.
    pub(super) async fn next(&mut self, is_wanted: bool) -> Option<Batch> {
        let Some(batches) = &mut self.batches else {
            if !is_wanted {
                return std::future::pending().await;
            }
            if let Some(at) = self.not_before {
                tokio::time::sleep_until(at).await;
            }
            return None;
        };
        let batch = batches.recv().await;
        if !matches!(batch, Some(Batch::Messages(_))) {
            self.batches = None;
        }
        // A task that ended without a word has failed.
        let batch = batch.unwrap_or(Batch::Failed(StreamError::NoAnswer));
        if matches!(batch, Batch::Failed(_)) {
            self.not_before = Some(Instant::now() + AFTER_FAILURE);
        }
        Some(batch)
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
        let consumer = open(context, stream, subject).await?;
        let mut received = 0;
        loop {
            let batch = fetch(&consumer).await?;
            if batch.is_empty() {
                break;
            }
            received += batch.len() as u64;
            if sender.send(Batch::Messages(batch)).await.is_err() {
                return Ok(());
            }
        }
        let info = consumer.get_info().await.map_err(|e| StreamError::Failed(e.to_string()))?;
        if info.num_pending > 0 || info.delivered.consumer_sequence != received {
            let problem = format!("{received} messages of {subject} have come, and not all");
            return Err(StreamError::Failed(problem));
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
) -> Result<Consumer<Config>, StreamError> {
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
    context.create_consumer_on_stream(config, stream).await.map_err(|e| explain(&e))
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
