//! The core NATS source: publish-subscribe without a stream.
//!
//! There is no stream, so there is no position that another instance could know: `pos` counts
//! what this process received, and the epoch names this process and connection. What was
//! published during an outage is gone; a new epoch after it tells clients so.

use std::time::{SystemTime, UNIX_EPOCH};

use async_nats::Message;
use futures_util::stream::{Stream, select_all};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;

use super::connect::{ConnectError, Connection, NatsSettings, cause};
use super::publisher::{Publisher, ShardsGone};
use super::retry::Retry;
use super::stopped;
use crate::channel::Pattern;
use crate::event::{Epoch, Incoming, Position, StreamPos};
use crate::feed::SourceStatus;

/// The core NATS source.
#[derive(Debug, Clone)]
pub struct CoreSettings {
    /// Where NATS is.
    pub nats: NatsSettings,
    /// What is subscribed to.
    pub subjects: Vec<Pattern>,
}

#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{subject} cannot be subscribed to: {cause}")]
    Subscribe { subject: String, cause: String },
    #[error("the connection to NATS was lost")]
    ConnectionLost,
    #[error(transparent)]
    ShardsGone(#[from] ShardsGone),
    #[error("stopped")]
    Stopped,
}

/// Receives until `stop` says so.
pub(super) async fn run(
    settings: &CoreSettings,
    publisher: &mut Publisher,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ShardsGone> {
    let subjects = without_overlap(&settings.subjects);
    let mut retry = Retry::default();
    let mut received = 0;
    loop {
        let session = async {
            let (connection, messages) = open(settings, &subjects).await?;
            retry.succeeded();
            Ok::<_, SessionError>((connection, messages))
        };
        let opened = tokio::select! {
            opened = session => opened,
            () = stopped(&mut stop) => return Ok(()),
        };
        let error = match opened {
            Err(error) => error,
            Ok((connection, messages)) => {
                let epoch = format!("core-{:016x}", rand::random::<u64>());
                publisher.epoch(Epoch(epoch.into())).await?;
                publisher.status(SourceStatus::Live).await?;
                let error =
                    receive(connection, messages, &mut received, publisher, &mut stop).await;
                publisher.flush();
                match error {
                    SessionError::Stopped => return Ok(()),
                    SessionError::ShardsGone(gone) => return Err(gone),
                    error => {
                        publisher.status(SourceStatus::Stale).await?;
                        error
                    }
                }
            }
        };
        let delay = retry.failed(&error);
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = stopped(&mut stop) => return Ok(()),
        }
    }
}

/// The subjects that no other covers: NATS would deliver a message once per subscription.
fn without_overlap(subjects: &[Pattern]) -> Vec<Pattern> {
    let mut kept: Vec<Pattern> = Vec::new();
    for subject in subjects {
        if kept.iter().any(|other| other.covers(subject)) {
            continue;
        }
        kept.retain(|other| !subject.covers(other));
        kept.push(subject.clone());
    }
    kept
}

/// A connection and what arrives on it, each message once although subjects may overlap in part.
async fn open(
    settings: &CoreSettings,
    subjects: &[Pattern],
) -> Result<(Connection, impl Stream<Item = Message> + Unpin), SessionError> {
    let connection = settings.nats.connect().await?;
    let refused = |subject: &Pattern, error: &dyn std::error::Error| SessionError::Subscribe {
        subject: subject.to_string(),
        cause: cause(error),
    };
    let mut subscribers = Vec::with_capacity(subjects.len());
    for (index, subject) in subjects.iter().enumerate() {
        let subscriber = connection.client.subscribe(subject.as_str().to_owned()).await;
        let subscriber = subscriber.map_err(|error| refused(subject, &error))?;
        let earlier = subjects[..index].to_vec();
        subscribers.push(subscriber.filter(move |message| {
            let came_before = earlier.iter().any(|other| other.matches(&message.subject));
            std::future::ready(!came_before)
        }));
    }
    // When the flush is through, the server has the subscriptions.
    connection.client.flush().await.map_err(|_| SessionError::ConnectionLost)?;
    tracing::info!(subjects = subjects.len(), "subscribed to NATS");
    Ok((connection, select_all(subscribers)))
}

async fn receive(
    mut connection: Connection,
    mut messages: impl Stream<Item = Message> + Unpin,
    received: &mut u64,
    publisher: &mut Publisher,
    stop: &mut watch::Receiver<bool>,
) -> SessionError {
    loop {
        let next = match messages.next().now_or_never() {
            Some(next) => next,
            None => {
                publisher.flush();
                tokio::select! {
                    next = messages.next() => next,
                    () = connection.lost() => return SessionError::ConnectionLost,
                    () = stopped(stop) => return SessionError::Stopped,
                }
            }
        };
        let Some(message) = next else { return SessionError::ConnectionLost };
        *received += 1;
        if let Err(gone) = take(&message, *received, publisher).await {
            return SessionError::ShardsGone(gone);
        }
        if *stop.borrow() {
            return SessionError::Stopped;
        }
    }
}

async fn take(message: &Message, pos: u64, publisher: &mut Publisher) -> Result<(), ShardsGone> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let position = Position { pos: StreamPos(pos), ts_ms: now.as_millis() as u64 };
    let (subject, payload) = (message.subject.as_str(), &message.payload[..]);
    publisher.publish(&Incoming { subject, payload, position }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covered_subjects_are_left_out() {
        let parse = |text: &str| Pattern::parse(text, 256).unwrap();
        let subjects = ["a.b", "a.*", "c.d", "a.>", "c.d", "*.x"].map(parse);
        let kept = without_overlap(&subjects);
        let kept: Vec<&str> = kept.iter().map(Pattern::as_str).collect();
        assert_eq!(kept, ["c.d", "a.>", "*.x"]);
    }
}
