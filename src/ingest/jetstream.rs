//! The JetStream source: a thin ordered consumer of our own.
//!
//! One ephemeral pull consumer without acknowledgements, read from the first retained message at
//! first contact and from the next one afterwards. Whatever goes wrong, the answer is the same: a
//! new connection and a new consumer after the last message that was published to the shards.
//! Loss is noticed by the connection's end, by missed heartbeats or by a hole in the consumer
//! sequence. Bounds: [`HEARTBEAT`] and its misses, [`BATCH_MESSAGES`] asked for at a time.

use std::time::Duration;

use async_nats::jetstream::consumer::pull::{self, Stream as Messages};
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy};
use async_nats::jetstream::stream::{Info, Stream};
use async_nats::jetstream::{self, Message};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;

use super::connect::{ConnectError, Connection, NatsSettings, cause};
use super::position::{Contact, Tracker, Verdict};
use super::publisher::{Publisher, ShardsGone};
use super::retry::Retry;
use super::stopped;
use super::stream::{StreamError, StreamSettings};
use crate::channel::Pattern;
use crate::event::{Epoch, Incoming, Position, StreamPos};
use crate::feed::SourceStatus;

/// How often the server says that it is there while it has nothing to send. Two misses end the
/// session: a dead connection is noticed within 4 s.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// How long one pull request stands; the next one follows without a gap.
const PULL_EXPIRES: Duration = Duration::from_secs(30);

/// Messages asked for at a time: at 800 bytes 0.4 MB on the way.
const BATCH_MESSAGES: usize = 500;

/// How long the server keeps a consumer that nobody reads.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(30);

/// The JetStream source.
#[derive(Debug, Clone)]
pub struct JetStreamSettings {
    /// Where NATS is.
    pub nats: NatsSettings,
    /// The stream, and with its subjects what is served.
    pub stream: StreamSettings,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("the consumer cannot be created: {0}")]
    Consumer(String),
    #[error("the connection to NATS was lost")]
    ConnectionLost,
    #[error("reading from the stream failed: {0}")]
    Read(String),
    #[error("the consumer skipped a message: it is made again after the last one")]
    Hole,
    #[error("a message without a JetStream reply subject")]
    NotJetStream,
    #[error(transparent)]
    ShardsGone(#[from] ShardsGone),
    #[error("stopped")]
    Stopped,
}

/// Reads the stream until `stop` says so.
pub(super) async fn run(
    settings: &JetStreamSettings,
    publisher: &mut Publisher,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ShardsGone> {
    let mut reader = Reader {
        settings,
        served: patterns(&settings.stream.subjects),
        tracker: Tracker::default(),
        retry: Retry::default(),
        is_known: false,
        is_filtered: false,
        live_from: 0,
    };
    loop {
        let error = match reader.session(publisher, &mut stop).await {
            SessionError::Stopped => return Ok(()),
            SessionError::ShardsGone(gone) => return Err(gone),
            error => error,
        };
        if reader.is_known {
            publisher.status(SourceStatus::Stale).await?;
        }
        publisher.flush();
        let delay = reader.retry.failed(&error);
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = stopped(&mut stop) => return Ok(()),
        }
    }
}

fn patterns(subjects: &[String]) -> Vec<Pattern> {
    subjects.iter().filter_map(|subject| Pattern::parse(subject, usize::MAX).ok()).collect()
}

struct Reader<'a> {
    settings: &'a JetStreamSettings,
    served: Vec<Pattern>,
    tracker: Tracker,
    retry: Retry,
    /// Whether the stream was reached before.
    is_known: bool,
    /// Whether the stream stores more than what is served.
    is_filtered: bool,
    /// The stream's last sequence when the consumer was made: from there on messages are live,
    /// however many arrive.
    live_from: u64,
}

impl Reader<'_> {
    /// One connection and one consumer, until something ends them.
    async fn session(
        &mut self,
        publisher: &mut Publisher,
        stop: &mut watch::Receiver<bool>,
    ) -> SessionError {
        let opened = tokio::select! {
            opened = self.open(publisher) => opened,
            () = stopped(stop) => return SessionError::Stopped,
        };
        let (mut connection, consumer) = match opened {
            Ok(opened) => opened,
            Err(error) => return error,
        };
        let messages = consumer
            .stream()
            .max_messages_per_batch(BATCH_MESSAGES)
            .heartbeat(HEARTBEAT)
            .expires(PULL_EXPIRES)
            .messages();
        let messages = match messages.await {
            Ok(messages) => messages,
            Err(error) => return SessionError::Consumer(cause(&error)),
        };
        let ended = self.read(messages, &mut connection, publisher, stop).await;
        match ended {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    /// Connects, finds the stream, announces its epoch and makes a consumer.
    async fn open(
        &mut self,
        publisher: &mut Publisher,
    ) -> Result<(Connection, Consumer<pull::Config>), SessionError> {
        let connection = self.settings.nats.connect().await?;
        let context = jetstream::new(connection.client.clone());
        let stream = self.settings.stream.ensure(&context, self.is_known).await?;
        let info = stream.cached_info();
        let created_ns = info.created.unix_timestamp_nanos();
        let contact = self.tracker.contact(created_ns, info.state.last_sequence);
        if contact != Contact::Continue {
            if contact != Contact::First {
                tracing::warn!(?contact, stream = %info.config.name, "the stream is not what it was");
            }
            let epoch = format!("{}-{created_ns:x}", info.config.name);
            publisher.epoch(Epoch(epoch.into())).await?;
        }
        self.live_from = info.state.last_sequence;
        let is_first = !std::mem::replace(&mut self.is_known, true);
        let filters = self.filters(&info.config.subjects);
        self.is_filtered = !filters.is_empty();
        let consumer = self.make_consumer(&connection, &stream, filters).await?;
        let pending = consumer.cached_info().num_pending;
        tracing::info!(
            stream = %info.config.name,
            messages = pending,
            "{}",
            if is_first { "reading the stream" } else { "reading the stream again" }
        );
        let status = if pending == 0 { SourceStatus::Live } else { SourceStatus::Loading };
        if pending == 0 || is_first {
            publisher.status(status).await?;
        }
        if pending == 0 {
            self.retry.succeeded();
        }
        Ok((connection, consumer))
    }

    async fn make_consumer(
        &mut self,
        connection: &Connection,
        stream: &Stream<Info>,
        filters: Vec<String>,
    ) -> Result<Consumer<pull::Config>, SessionError> {
        let deliver_policy = match self.tracker.consumer_made() {
            None => DeliverPolicy::All,
            Some(start_sequence) => DeliverPolicy::ByStartSequence { start_sequence },
        };
        // Several filters came with server 2.10; before it everything is read and sorted out here.
        let (one, several) = match filters.as_slice() {
            [one] => (one.clone(), Vec::new()),
            _ if connection.client.is_server_compatible(2, 10, 0) => (String::new(), filters),
            _ => (String::new(), Vec::new()),
        };
        let config = pull::Config {
            description: Some(format!("odin-ws {}", self.settings.nats.name)),
            deliver_policy,
            ack_policy: AckPolicy::None,
            inactive_threshold: INACTIVE_THRESHOLD,
            memory_storage: true,
            num_replicas: 1,
            filter_subject: one,
            filter_subjects: several,
            ..pull::Config::default()
        };
        stream.create_consumer(config).await.map_err(|error| SessionError::Consumer(cause(&error)))
    }

    /// The subjects to ask for, if the stream stores others too; none if all of it is served.
    fn filters(&self, stored: &[String]) -> Vec<String> {
        let stored = patterns(stored);
        if stored.iter().all(|subject| self.served.iter().any(|served| served.covers(subject))) {
            return Vec::new();
        }
        let is_within =
            |inner: &Pattern, outer: &[Pattern]| outer.iter().any(|it| it.covers(inner));
        let asked = self.served.iter().filter(|served| is_within(served, &stored));
        let whole = stored
            .iter()
            .filter(|stored| is_within(stored, &self.served) && !self.served.contains(stored));
        asked.chain(whole).map(|pattern| pattern.as_str().to_owned()).collect()
    }

    /// Publishes what arrives; ends only with an error.
    async fn read(
        &mut self,
        mut messages: Messages,
        connection: &mut Connection,
        publisher: &mut Publisher,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<std::convert::Infallible, SessionError> {
        loop {
            // As long as messages are at hand they make one batch; then the shards are woken.
            let next = match messages.next().now_or_never() {
                Some(next) => next,
                None => {
                    publisher.flush();
                    tokio::select! {
                        next = messages.next() => next,
                        () = connection.lost() => return Err(SessionError::ConnectionLost),
                        () = stopped(stop) => return Err(SessionError::Stopped),
                    }
                }
            };
            match next {
                Some(Ok(message)) => self.take(&message, publisher).await?,
                Some(Err(error)) => return Err(SessionError::Read(cause(&error))),
                None => return Err(SessionError::Read("the consumer ended".into())),
            }
            if *stop.borrow() {
                return Err(SessionError::Stopped);
            }
        }
    }

    async fn take(
        &mut self,
        message: &Message,
        publisher: &mut Publisher,
    ) -> Result<(), SessionError> {
        let info = message.info().map_err(|_| SessionError::NotJetStream)?;
        match self.tracker.message(info.stream_sequence, info.consumer_sequence) {
            Verdict::Hole => return Err(SessionError::Hole),
            Verdict::Duplicate => {}
            Verdict::Take => {
                let subject = message.subject.as_str();
                if !self.is_filtered || self.served.iter().any(|served| served.matches(subject)) {
                    let position = Position {
                        pos: StreamPos(info.stream_sequence),
                        ts_ms: milliseconds(info.published.unix_timestamp_nanos()),
                    };
                    let payload = &message.payload;
                    publisher.publish(&Incoming { subject, payload, position }).await?;
                }
            }
        }
        if info.pending == 0 || info.stream_sequence >= self.live_from {
            self.retry.succeeded();
            publisher.status(SourceStatus::Live).await?;
        }
        Ok(())
    }
}

fn milliseconds(nanoseconds: i128) -> u64 {
    u64::try_from(nanoseconds / 1_000_000).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_what_is_served_and_stored() {
        let cases: [(&[&str], &[&str], &[&str]); 5] = [
            (&["a.>", "b.>"], &["a.>", "b.>"], &[]),
            (&["a.>", "b.>"], &["a.x", "b.y"], &[]),
            (&["a.>"], &["a.>", "b.>"], &["a.>"]),
            (&["a.*.x", "b.>"], &["a.>", "c.>"], &["a.*.x"]),
            (&["a.>"], &["a.x", "b.>"], &["a.x"]),
        ];
        for (served, stored, expected) in cases {
            let owned =
                |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            let settings = JetStreamSettings {
                nats: NatsSettings::default(),
                stream: StreamSettings {
                    name: "S".into(),
                    subjects: owned(served),
                    max_age: Duration::ZERO,
                    max_messages: 1,
                    max_bytes: 1,
                    replicas: 1,
                    update: false,
                },
            };
            let reader = Reader {
                settings: &settings,
                served: patterns(&settings.stream.subjects),
                tracker: Tracker::default(),
                retry: Retry::default(),
                is_known: false,
                is_filtered: false,
                live_from: 0,
            };
            assert_eq!(reader.filters(&owned(stored)), owned(expected), "{served:?} {stored:?}");
        }
    }
}
