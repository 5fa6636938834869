//! Looks: asks a stream and its consumer what they hold, beside the reading.
//!
//! Bounds: one look at a time, of two requests: the stream, then the consumer. While nothing comes
//! the next one is taken [`SUSPECTED`] after one that left anything open, and [`SETTLED`] after one
//! that did not. While messages come their sequence tells everything, and a look is taken every
//! [`BUSY`], for what is no message: the stream's settings.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::Consumer;
use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::stream::Info;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::ingest::ending::Look;
use crate::ingest::stream::{StreamError, call};

const SUSPECTED: Duration = Duration::from_secs(1);
const SETTLED: Duration = Duration::from_secs(2);
const BUSY: Duration = Duration::from_secs(5);

/// How far a reader has come when it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrived {
    /// The highest stream sequence that has come.
    pub(super) stream: u64,
    /// The consumer's sequence of the last message that has come.
    pub(super) consumer: u64,
}

/// What a look brought.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) look: Look,
    pub(super) info: Box<Info>,
}

/// Looks in the background.
pub(super) struct Probes {
    under_way: Option<BoxFuture<'static, Result<Answer, StreamError>>>,
    due: Instant,
    /// When the last look began.
    looked: Instant,
    /// How far the reader was when it was asked last.
    arrived: Option<Arrived>,
}

impl Probes {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { under_way: None, due: now + SUSPECTED, looked: now, arrived: None }
    }

    /// Whether a look is worth while for a reader that is so far, when one is due.
    pub(super) fn wants_look(&mut self, arrived: Arrived) -> bool {
        let is_quiet = self.arrived.replace(arrived) == Some(arrived);
        let is_due = is_quiet || self.looked.elapsed() >= BUSY;
        if !is_due {
            self.due = Instant::now() + SUSPECTED;
        }
        is_due
    }

    /// Begins a look.
    pub(super) fn begin(
        &mut self,
        look: impl Future<Output = Result<Answer, StreamError>> + Send + 'static,
    ) {
        self.looked = Instant::now();
        self.under_way = Some(look.boxed());
    }

    /// After the last look nothing was left open: the next one may wait.
    pub(super) fn settled(&mut self) {
        self.due = Instant::now() + SETTLED;
    }

    /// Waits for the look that is under way. If there is none, waits until one is due and returns
    /// `None`.
    pub(super) async fn next(&mut self) -> Option<Result<Answer, StreamError>> {
        let Some(look) = &mut self.under_way else {
            tokio::time::sleep_until(self.due).await;
            return None;
        };
        let look = look.await;
        self.under_way = None;
        self.due = Instant::now() + SUSPECTED;
        Some(look)
    }
}

/// Asks the stream, then the consumer.
///
/// # Errors
/// Why one of them did not answer.
pub(super) async fn look(
    context: Context,
    consumer: Consumer<Config>,
    arrived: Arrived,
) -> Result<Answer, StreamError> {
    let subject = format!("STREAM.INFO.{}", consumer.cached_info().stream_name);
    let info: Box<Info> = Box::new(call(&context, &subject, &()).await?);
    let sent = consumer.get_info().await.map_err(|error| StreamError::Failed(error.to_string()))?;
    let look = Look {
        read_to: arrived.stream,
        received: arrived.consumer,
        last: info.state.last_sequence,
        sent: sent.delivered.consumer_sequence,
        pending: sent.num_pending,
    };
    Ok(Answer { look, info })
}
