//! The source that polls a backend over HTTP: `GET {url}?since={cursor}`, changes as JSON.
//!
//! The format, and what a backend has to keep to, is in docs/http-source.md. Requests follow one
//! another: there is never a second one under way. As long as the backend goes on from the cursor
//! an outage loses nothing; a cursor that it refuses, or a backlog that is too long, is a loss
//! that clients are told of, together with the first answer after it, so that whoever reloads then
//! has everything.
//!
//! | file | owns |
//! |---|---|
//! | `settings` | where the backend is and how to log in, checked at start |
//! | `endpoint` | PURE: the address, with and without a cursor |
//! | `headers` | PURE: conditional requests, `Retry-After` |
//! | `answer` | PURE: the answer's format |
//! | `backend` | one request and what came of it |
//! | `downstream` | what the shards are told, and when it is too old |
//!
//! Bounds: the waits of [`Retry`] after failures, or the poll interval if that is longer; log
//! lines as [`Retry`] says.

mod answer;
mod backend;
mod downstream;
mod endpoint;
mod headers;
mod settings;

use std::time::{Duration, Instant};

use super::shutdown::Shutdown;
use super::{IngestError, Publisher, ShardsGone};
use crate::retry::Retry;
use answer::Answer;
use backend::{Backend, Place, PollError, Reply};
use downstream::Downstream;
pub use endpoint::EndpointError;
use headers::Validators;
pub use settings::{HttpSettings, HttpSettingsError};

/// Polls until shutdown.
///
/// # Errors
/// Settings that the operator has to correct.
pub(super) async fn run(
    settings: HttpSettings,
    publisher: Publisher,
    shutdown: &Shutdown,
) -> Result<(), IngestError> {
    let interval = settings.interval;
    let served = settings.served.clone();
    let backend = Backend::new(settings)?;
    tracing::info!(url = backend.shown(), ?interval, "polling the backend");
    let poller = Poller {
        backend,
        interval,
        place: Place::default(),
        retry: Retry::default(),
        downstream: Downstream::new(publisher, served, interval),
    };
    match poller.run(shutdown).await {
        Ok(()) | Err(ShardsGone) => Ok(()),
    }
}

struct Poller {
    backend: Backend,
    interval: Duration,
    place: Place,
    retry: Retry,
    downstream: Downstream,
}

impl Poller {
    async fn run(mut self, shutdown: &Shutdown) -> Result<(), ShardsGone> {
        loop {
            let began = Instant::now();
            let poll = async {
                tokio::select! {
                    biased;
                    () = shutdown.fired() => None,
                    polled = self.backend.poll(&self.place) => Some(polled),
                }
            };
            let Some(polled) = self.downstream.meanwhile(poll).await? else { return Ok(()) };
            let wait = match self.handle(polled, shutdown).await? {
                Ok(()) => {
                    self.succeeded();
                    self.interval.saturating_sub(began.elapsed())
                }
                Err(error) => self.failed(&error),
            };
            if self.downstream.meanwhile(shutdown.fired_within(wait)).await? {
                return Ok(());
            }
        }
    }

    async fn handle(
        &mut self,
        polled: Result<Reply, PollError>,
        shutdown: &Shutdown,
    ) -> Result<Result<(), PollError>, ShardsGone> {
        let (body, validators) = match polled {
            Ok(Reply::Answer { body, validators }) => (body, validators),
            Ok(Reply::Unchanged) => return self.downstream.confirm().await.map(Ok),
            Err(error) => return Ok(Err(error)),
        };
        match Answer::read(&body, self.place.cursor.as_ref()) {
            Ok(answer) => self.take(answer, validators, shutdown).await.map(Ok),
            Err(error) => Ok(Err(error.into())),
        }
    }

    /// Publishes an answer and goes on from its cursor.
    async fn take(
        &mut self,
        answer: Answer<'_>,
        validators: Validators,
        shutdown: &Shutdown,
    ) -> Result<(), ShardsGone> {
        if self.place.cursor.is_none() || answer.is_reset {
            let hold = self.downstream.until_announcement();
            if self.downstream.meanwhile(shutdown.fired_within(hold)).await? {
                return Ok(());
            }
            self.downstream.announce().await?;
        }
        self.downstream.publish(answer.changes(), shutdown).await?;
        // They hold for the same request only, and with another cursor it is another.
        let is_same = self.place.cursor.as_ref() == Some(&answer.cursor);
        let validators = if is_same { validators } else { Validators::default() };
        self.place = Place { cursor: Some(answer.cursor), validators };
        self.downstream.confirm().await
    }

    fn succeeded(&mut self) {
        if self.retry.failures() > 0 {
            let failures = self.retry.failures();
            tracing::info!(url = self.backend.shown(), failures, "the backend answers again");
        }
        self.retry.succeeded();
    }

    /// Logs a failure and says how long to wait.
    fn failed(&mut self, error: &PollError) -> Duration {
        let mut cause = error.to_string();
        if error.is_unauthorized()
            && let Err(error) = self.backend.reload_token()
        {
            cause = format!("{cause}; {error}");
        }
        if self.retry.failed(&cause, Instant::now()) {
            let (url, failures) = (self.backend.shown(), self.retry.failures());
            tracing::warn!(url, cause, failures, "no usable answer from the backend; retrying");
        }
        if error.loses_cursor() {
            self.place = Place::default();
        }
        let backoff = self.retry.delay_full_jitter(rand::random());
        // Jitter on top of what was asked for, or all instances would come back together.
        error.retry_after().unwrap_or_default() + backoff.max(self.interval)
    }
}
