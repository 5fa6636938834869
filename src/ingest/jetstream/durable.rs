//! The durable consumer of an instance: whose it is, and from where it goes on.
//!
//! The position is ours in this mode, too. At start and after every loss an ordered consumer reads
//! what the stream retains; the durable one takes over when that has caught up. What the durable
//! one sends a second time is dropped by position and acknowledged. So a message that was under way
//! when the process or the connection died makes no hole, nobody waits for its redelivery, and the
//! broker still knows how far this instance is.
//!
//! The consumer's description names the process that reads it. It shows when another process uses
//! the same name: two instances never share a consumer. Bounds: see [`ACK_WAIT`] and [`ACK_PENDING_MAX`];
//! the server removes it when nobody reads it for the inactive threshold.

use std::time::Duration;

use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, Info, ReplayPolicy};
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind};
use async_nats::jetstream::{Context, ErrorCode};

use super::consumer::{PLAIN_NAME_BYTES_MAX, explain, plain_name};
use crate::ingest::name::{NAME_BYTES_MAX, is_name};
use crate::ingest::stream::{StreamError, StreamSettingsError};
use crate::ingest::stream_state::StreamState;

/// When the server sends a message again that was not acknowledged. What is under way is handled
/// within seconds; a message that comes again is dropped.
const ACK_WAIT: Duration = Duration::from_secs(10);

/// Messages that wait for their acknowledgement, more than can be under way.
const ACK_PENDING_MAX: i64 = 4_096;

/// The shortest inactive threshold: the server must not remove a consumer between two connections.
const INACTIVE_THRESHOLD_MIN: Duration = Duration::from_secs(30);

/// Bytes of `JS_CONSUMER_NAME`. The consumer's name is this, a dash and the instance's name.
const NAME_PREFIX_BYTES_MAX: usize = 64;

const _: () = assert!(NAME_PREFIX_BYTES_MAX + 1 + PLAIN_NAME_BYTES_MAX <= NAME_BYTES_MAX);

/// How the description of a consumer of ours begins; the owner follows.
const DESCRIPTION: &str = "odin-ws, durable, read by process ";

/// What the durable consumer of an instance is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurableSettings {
    /// The first part of its name; the instance is the second.
    pub name: String,
    /// The server removes it when nobody has read it for so long.
    pub inactive_threshold: Duration,
}

impl Default for DurableSettings {
    fn default() -> Self {
        Self { name: "odin-ws".into(), inactive_threshold: Duration::from_secs(300) }
    }
}

impl DurableSettings {
    /// Checks what can be checked without a broker.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(&self) -> Result<(), StreamSettingsError> {
        if !is_name(&self.name, NAME_PREFIX_BYTES_MAX) {
            return Err(StreamSettingsError::ConsumerName(self.name.clone()));
        }
        if self.inactive_threshold < INACTIVE_THRESHOLD_MIN {
            return Err(StreamSettingsError::InactiveThreshold(self.inactive_threshold));
        }
        Ok(())
    }
}

/// The durable consumer as this process sees it.
#[derive(Debug)]
pub(super) struct Durable {
    name: String,
    inactive_threshold: Duration,
    /// This process, by a number of its own.
    description: String,
    must_recreate: bool,
}

/// What an existing consumer of our name is to us.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// There is none.
    Nothing,
    /// Ours or a dead process's, and where it stands is of use.
    Usable,
    /// Ours, but it must be made again. Either the server still sends its messages to a dead
    /// connection of ours, or it stands beyond the end of the stream, or it would send a message
    /// that nobody can read again for ever.
    MustRecreate,
    /// Another process reads it.
    Taken,
    /// Nothing that this program made.
    Foreign,
}

impl Durable {
    pub(super) fn new(settings: &DurableSettings, instance: &str) -> Self {
        Self {
            name: format!("{}-{}", settings.name, plain_name(instance)),
            inactive_threshold: settings.inactive_threshold,
            description: format!("{DESCRIPTION}{:016x}", rand::random::<u64>()),
            must_recreate: false,
        }
    }

    /// Makes the next [`Self::prepare`] replace the consumer: it would send a message that cannot
    /// be read again for ever.
    pub(super) fn set_must_recreate(&mut self) {
        self.must_recreate = true;
    }

    /// The consumer, ours and read by nobody; made if it was missing. It is asked for before the
    /// stream is read by other means: what is published from then on is waiting in it.
    ///
    /// # Errors
    /// Why it cannot be had now; another process reads it.
    pub(super) async fn prepare(
        &mut self,
        context: &Context,
        stream: &str,
        state: StreamState,
    ) -> Result<Consumer<Config>, StreamError> {
        let found: Result<Consumer<Config>, _> =
            context.get_consumer_from_stream(&self.name, stream).await;
        let found = match &found {
            Ok(found) => self.judge(found.cached_info(), state),
            Err(error) if is_missing(error) => Found::Nothing,
            Err(error) if error.kind() == ConsumerErrorKind::InvalidConsumerType => Found::Foreign,
            Err(error) => return Err(explain(error)),
        };
        let mut consumer = match found {
            Found::Foreign => return Err(StreamError::ConsumerForeign(self.name.clone())),
            Found::Taken => return Err(StreamError::ConsumerTaken(self.name.clone())),
            Found::Nothing => self.make(context, stream).await?,
            Found::Usable => self.adopt(context, stream).await?,
            Found::MustRecreate => self.replace(context, stream).await?,
        };
        self.must_recreate = false;
        // Nobody reads it, so what it says of itself stays true until it is read.
        consumer.info().await.map_err(|error| StreamError::Failed(error.to_string()))?;
        Ok(consumer)
    }

    /// Makes it ours and as it is configured now.
    async fn adopt(
        &self,
        context: &Context,
        stream: &str,
    ) -> Result<Consumer<Config>, StreamError> {
        match self.make(context, stream).await {
            Err(StreamError::Refused(reason)) => {
                let consumer = &self.name;
                tracing::warn!(consumer, reason, "a consumer cannot be changed and is made again");
                self.replace(context, stream).await
            }
            adopted => adopted,
        }
    }

    async fn replace(
        &self,
        context: &Context,
        stream: &str,
    ) -> Result<Consumer<Config>, StreamError> {
        match context.delete_consumer_from_stream(&self.name, stream).await {
            Err(error) if !is_missing(&error) => Err(explain(&error)),
            Ok(_) | Err(_) => self.make(context, stream).await,
        }
    }

    fn judge(&self, info: &Info, state: StreamState) -> Found {
        let description = info.config.description.as_deref().unwrap_or_default();
        let is_ours = description == self.description;
        if !description.starts_with(DESCRIPTION) || info.config.ack_policy != AckPolicy::Explicit {
            Found::Foreign
        } else if info.num_waiting > 0 && !is_ours {
            Found::Taken
        } else if self.must_recreate
            || info.num_waiting > 0
            || info.delivered.stream_sequence > state.last
        {
            Found::MustRecreate
        } else {
            Found::Usable
        }
    }

    async fn make(&self, context: &Context, stream: &str) -> Result<Consumer<Config>, StreamError> {
        context.create_consumer_on_stream(self.config(), stream).await.map_err(|e| explain(&e))
    }

    fn config(&self) -> Config {
        Config {
            durable_name: Some(self.name.clone()),
            description: Some(self.description.clone()),
            // What is there already is read by the ordered consumer.
            deliver_policy: DeliverPolicy::New,
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: ACK_PENDING_MAX,
            replay_policy: ReplayPolicy::Instant,
            inactive_threshold: self.inactive_threshold,
            ..Config::default()
        }
    }
}

fn is_missing(error: &ConsumerError) -> bool {
    matches!(
        error.kind(),
        ConsumerErrorKind::JetStream(refusal)
            if refusal.error_code() == ErrorCode::CONSUMER_NOT_FOUND
    )
}
