//! Probes: asks a stream and its consumer what they hold, beside the reading.
//!
//! Bounds: one probe at a time, of three requests. The next begins [`INTERVAL`] after it ended.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::Consumer;
use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::stream::Info;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::ingest::continuity::Probe;
use crate::ingest::stream::{StreamError, call};

const INTERVAL: Duration = Duration::from_secs(1);

/// How far a reader has come when it asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrived {
    /// The highest stream sequence that has come.
    pub(super) stream: u64,
    /// The consumer's sequence of the last message that has come.
    pub(super) consumer: u64,
}

/// Probes in the background.
pub(super) struct Probes {
    under_way: Option<BoxFuture<'static, Result<Probe, StreamError>>>,
    due: Instant,
}

impl Probes {
    pub(super) fn new() -> Self {
        Self { under_way: None, due: Instant::now() }
    }

    pub(super) fn begin(
        &mut self,
        probe: impl Future<Output = Result<Probe, StreamError>> + Send + 'static,
    ) {
        self.under_way = Some(probe.boxed());
    }

    /// Waits for the probe that is under way. If there is none, waits until one is due and returns
    /// `None`.
    pub(super) async fn next(&mut self) -> Option<Result<Probe, StreamError>> {
        let Some(probe) = &mut self.under_way else {
            tokio::time::sleep_until(self.due).await;
            return None;
        };
        let probe = probe.await;
        self.under_way = None;
        self.due = Instant::now() + INTERVAL;
        Some(probe)
    }
}

/// Asks the stream, the consumer and the stream again.
///
/// # Errors
/// Why one of them did not answer; [`StreamError::Missing`] if the stream is another one now.
pub(super) async fn probe(
    context: Context,
    consumer: Consumer<Config>,
    created_nanos: i128,
    arrived: Arrived,
) -> Result<Probe, StreamError> {
    let asked = std::time::Instant::now();
    let subject = format!("STREAM.INFO.{}", consumer.cached_info().stream_name);
    let before: Info = call(&context, &subject, &()).await?;
    let sent = consumer.get_info().await.map_err(|error| StreamError::Failed(error.to_string()))?;
    let after: Info = call(&context, &subject, &()).await?;
    if after.created.unix_timestamp_nanos() != created_nanos {
        return Err(StreamError::Missing);
    }
    Ok(Probe {
        asked,
        read_to: arrived.stream,
        last: before.state.last_sequence,
        is_all_sent: sent.num_pending == 0,
        is_all_read: sent.delivered.consumer_sequence == arrived.consumer,
        first: after.state.first_sequence,
    })
}
