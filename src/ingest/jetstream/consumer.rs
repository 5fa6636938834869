//! One pull consumer: how the ordered one is made, how either is read, when it has caught up.
//!
//! The ordered one acknowledges nothing, lives in memory on one server and disappears by itself:
//! the position is ours. Bounds: at most [`PULL_MESSAGES`] x 1.5 messages are under way, so that
//! a source that is not read (a shard's queue is full) leaves the backlog in the stream.

use std::time::Duration;

use async_nats::Subject;
use async_nats::jetstream::consumer::pull::{Config, MessagesError, Stream as Messages};
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, ReplayPolicy};
use async_nats::jetstream::stream::{
    Config as StreamConfig, ConsumerError, ConsumerErrorKind, Info,
};
use async_nats::jetstream::{Context, Message};
use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;

use super::probe::{Arrived, Probes, look};
use crate::channel::Pattern;
use crate::ingest::filter::FilterPlan;
use crate::ingest::publisher::SUBJECT_BYTES_MAX;
use crate::ingest::stream::{StreamError, StreamKeeper};
use crate::ingest::stream_state::StreamState;
use crate::position::{Epoch, Kept};

/// Messages asked for at once; the next are asked for when half of them came. At 800 bytes
/// 300 KB are under way at most, and 128 messages per round trip are 128,000 a second at 1 ms.
const PULL_MESSAGES: usize = 256;

/// How long one pull stands.
const PULL_EXPIRES: Duration = Duration::from_secs(30);

/// The server sends one when nothing else; the loss of two, 4 s, is the loss of the consumer.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// The server removes a consumer that nobody reads after this time.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(30);

/// Messages to ask for at once under a rate of `rate_max` a second. What is under way is then
/// handled within about two seconds, long before the server sends it again.
pub(super) fn pull_messages(rate_max: Option<u32>) -> usize {
    rate_max.map_or(PULL_MESSAGES, |rate| PULL_MESSAGES.min(rate as usize))
}

/// What a consumer is made from.
pub(super) struct Request<'a> {
    pub(super) keeper: &'a StreamKeeper,
    pub(super) stream: &'a str,
    pub(super) instance: &'a str,
    /// The stream sequence to begin with; `None` for the oldest.
    pub(super) start: Option<u64>,
    pub(super) state: StreamState,
    /// The durable consumer that takes over when this one has caught up.
    pub(super) successor: Option<Consumer<Config>>,
    /// Messages asked for at once.
    pub(super) pull: usize,
}

/// What a consumer's stream of messages yields.
pub(super) type Item = Option<Result<Message, MessagesError>>;

/// A consumer that is being read.
pub(super) struct Opened {
    pub(super) messages: Messages,
    /// An item that was taken out of `messages` before its turn.
    pub(super) arrived: Option<Item>,
    pub(super) probes: Probes,
    context: Context,
    consumer: Consumer<Config>,
    successor: Option<Consumer<Config>>,
    /// Where to acknowledge handled messages; empty unless the consumer wants acknowledgements.
    handled: Vec<Subject>,
    state: StreamState,
    is_caught_up: bool,
    /// When the last message came, or was asked for, as long as it has not caught up.
    pub(super) silent_since: Instant,
    pull: usize,
}

/// How the configured subjects are cut out of the stream.
pub(super) fn plan(subjects: &[Pattern], stream: &StreamConfig) -> FilterPlan {
    let stored: Option<Vec<Pattern>> = stream
        .subjects
        .iter()
        .map(|subject| Pattern::parse(subject, SUBJECT_BYTES_MAX).ok())
        .collect();
    // What comes from other streams may have any subject.
    let is_all_named = stream.sources.is_none() && stream.mirror.is_none();
    let stored = stored.filter(|_| is_all_named);
    FilterPlan::new(subjects, &stored.unwrap_or_default())
}

/// What the stream says of itself.
pub(super) fn stream_state(info: &Info) -> StreamState {
    let kept = match u64::try_from(info.config.max_messages_per_subject) {
        Ok(count @ 1..) => Kept::PerChannel(count),
        Ok(0) | Err(_) => Kept::All,
    };
    StreamState {
        created_nanos: info.created.unix_timestamp_nanos(),
        first: info.state.first_sequence,
        last: info.state.last_sequence,
        last_stored_nanos: info.state.last_timestamp.unix_timestamp_nanos(),
        kept,
    }
}

impl Request<'_> {
    /// Makes the consumer and begins to pull; also returns what the stream says of itself then.
    ///
    /// # Errors
    /// Why there is none now.
    pub(super) async fn open(
        self,
        context: &Context,
    ) -> Result<(Opened, StreamState), StreamError> {
        let config = self.config();
        let consumer = context
            .create_consumer_on_stream(config, self.stream)
            .await
            .map_err(|e| explain(&e))?;
        // Between the contact and now the stream may have been deleted and made again, or have gone
        // back to an older copy: what the caller knows of it tells.
        let now = stream_state(&self.keeper.info(context).await?);
        if now.created_nanos != self.state.created_nanos {
            return Err(StreamError::Missing);
        }
        // A durable consumer that was made just now begins after what had been stored by then.
        let last = self.state.last.max(now.last);
        let state = StreamState { last, ..self.state };
        let messages = pull(&consumer, self.pull).await?;
        let is_caught_up = consumer.cached_info().num_pending == 0;
        let opened = Opened {
            messages,
            arrived: None,
            probes: Probes::new(),
            context: context.clone(),
            consumer,
            successor: self.successor,
            handled: Vec::new(),
            state,
            is_caught_up,
            silent_since: Instant::now(),
            pull: self.pull,
        };
        Ok((opened, now))
    }

    /// Without a filter: the positions of the stream are to come without a hole.
    fn config(&self) -> Config {
        Config {
            name: Some(consumer_name(self.instance)),
            description: Some("odin-ws, ordered".to_owned()),
            deliver_policy: match self.start {
                None => DeliverPolicy::All,
                Some(start_sequence) => DeliverPolicy::ByStartSequence { start_sequence },
            },
            ack_policy: AckPolicy::None,
            replay_policy: ReplayPolicy::Instant,
            inactive_threshold: INACTIVE_THRESHOLD,
            num_replicas: 1,
            memory_storage: true,
            ..Config::default()
        }
    }
}

/// Begins to pull.
async fn pull(consumer: &Consumer<Config>, messages: usize) -> Result<Messages, StreamError> {
    let pulling = consumer
        .stream()
        .max_messages_per_batch(messages)
        .expires(PULL_EXPIRES)
        .heartbeat(HEARTBEAT)
        .messages();
    pulling.await.map_err(|error| StreamError::Failed(error.to_string()))
}

impl Opened {
    /// Whether it is time for the durable consumer to take over.
    pub(super) fn has_to_hand_over(&self) -> bool {
        self.is_caught_up && self.successor.is_some()
    }

    /// Reads the durable consumer from now on; the sequence of its last delivery so far.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(super) async fn hand_over(&mut self) -> Result<Option<u64>, StreamError> {
        let Some(durable) = self.successor.take() else { return Ok(None) };
        self.messages = pull(&durable, self.pull).await?;
        // The durable one sends again what the ordered one had sent and was not handled.
        self.arrived = None;
        self.probes = Probes::new();
        let ordered = std::mem::replace(&mut self.consumer, durable);
        let (name, stream) = (&ordered.cached_info().name, &ordered.cached_info().stream_name);
        if let Err(error) = self.context.delete_consumer_from_stream(name, stream).await {
            // The server does it after the inactive threshold.
            tracing::debug!(consumer = name, %error, "the ordered consumer was not removed");
        }
        Ok(Some(self.consumer.cached_info().delivered.consumer_sequence))
    }

    /// The next item, if it has arrived.
    pub(super) fn at_hand(&mut self) -> Option<Item> {
        self.arrived.take().or_else(|| self.messages.next().now_or_never())
    }

    /// Begins to ask the stream and this consumer what they hold, if that is worth while now.
    pub(super) fn look(&mut self, arrived: Arrived) {
        if self.probes.wants_look(arrived) {
            let look = look(self.context.clone(), self.consumer.clone(), arrived);
            self.probes.begin(look);
        }
    }

    /// Notes that every shard's queue has this message, or no longer needs it.
    pub(super) fn handled(&mut self, message: &Message) {
        if self.consumer.cached_info().config.ack_policy == AckPolicy::Explicit {
            self.handled.extend(message.reply.clone());
        }
    }

    /// Acknowledges the handled messages. If an acknowledgement is lost, the broker sends the
    /// message again, and it is dropped by position.
    pub(super) async fn acknowledge(&mut self) {
        for reply in self.handled.drain(..) {
            if let Err(error) = self.context.client().publish(reply, "+ACK".into()).await {
                tracing::debug!(%error, "a message was not acknowledged");
            }
        }
    }

    /// Where requests are sent.
    pub(super) fn context(&self) -> Context {
        self.context.clone()
    }

    /// The name of the stream.
    pub(super) fn stream(&self) -> String {
        self.consumer.cached_info().stream_name.clone()
    }

    /// Whether everything that was in the stream at the contact has been read.
    pub(super) fn is_caught_up(&self) -> bool {
        self.is_caught_up
    }

    /// Takes in a message's stream sequence and how many wait behind it.
    pub(super) fn catch_up(&mut self, sequence: u64, pending: u64) {
        if !self.is_caught_up {
            self.is_caught_up = pending == 0 || sequence >= self.state.last;
            self.silent_since = Instant::now();
        }
    }

    /// Ends the catching up.
    pub(super) fn set_caught_up(&mut self) {
        self.is_caught_up = true;
    }

    /// How many messages wait for this consumer; `None` if the broker does not say.
    pub(super) async fn pending(&mut self) -> Option<u64> {
        self.consumer.get_info().await.ok().map(|info| info.num_pending)
    }
}

/// The life of a stream: its name and when it was created, the same on every instance.
pub(super) fn epoch(stream: &str, created_nanos: i128) -> Epoch {
    Epoch(format!("{stream}-{created_nanos:016x}").into())
}

/// A name that tells operators whose consumer it is, and that was never used before.
fn consumer_name(instance: &str) -> String {
    format!("odin-ws-{}-{:08x}", plain_name(instance), rand::random::<u32>())
}

/// Bytes of an instance's name in the names of consumers; each character of it has one.
pub(super) const PLAIN_NAME_BYTES_MAX: usize = 64;

/// An instance's name as part of a consumer's: ASCII letters, digits and dashes, `_` for the rest.
pub(super) fn plain_name(instance: &str) -> String {
    let plain = instance.chars().map(|c| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '-' => c,
        _ => '_',
    });
    plain.take(PLAIN_NAME_BYTES_MAX).collect()
}

pub(super) fn explain(error: &ConsumerError) -> StreamError {
    match error.kind() {
        ConsumerErrorKind::JetStream(refusal) => refusal.into(),
        ConsumerErrorKind::TimedOut => StreamError::NoAnswer,
        _ => StreamError::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumer_names_hold_what_jetstream_takes() {
        let name = consumer_name("edge 1.eu*>/é");
        assert!(name.starts_with("odin-ws-edge_1_eu____-"), "{name}");
        assert!(consumer_name(&"x".repeat(500)).len() < 100);
    }

    #[test]
    fn the_epoch_is_the_name_and_the_creation_time() {
        let created_nanos = 0x18c3_f0a2_b4d5_e6f7;
        assert_eq!(epoch("ODIN_TOKENS", created_nanos).to_string(), "ODIN_TOKENS-18c3f0a2b4d5e6f7");
    }
}
