//! One connection to NATS: made, watched, and given up when it is lost.
//!
//! A [`Link`] lives as long as one TCP connection. When it is lost the source drops it and asks
//! the [`Connector`] for the next, which tries the servers in turn for ever, reads the credentials
//! again each time (they may have been rotated), and says in the log what is wrong. Secrets are
//! taken out of URLs before anything can print them. It knows no stream. Bounds: attempts of
//! [`CONNECT_TIMEOUT`], waits and log lines of [`Retry`]; a dead peer is noticed after three
//! unanswered pings, within [`PING_INTERVAL`] x 3.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerError};
use tokio::sync::watch;

use super::nats::{NatsSettings, NatsSettingsError, Server};
use super::shutdown::Shutdown;
use crate::retry::Retry;

/// How long one server may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a request may take; the JetStream API answers in milliseconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// The third ping without an answer ends the connection: 4.5 s after the last byte.
const PING_INTERVAL: Duration = Duration::from_millis(1_500);

/// Messages that one subscription holds before the client library drops more.
const SUBSCRIPTION_MESSAGES_MAX: usize = 16_384;

/// One live connection.
#[derive(Debug)]
pub(crate) struct Link {
    /// The client library's handle.
    pub(crate) client: Client,
    /// The server's URL without credentials, for the log.
    pub(crate) url: String,
    signal: Arc<Signal>,
    lost: watch::Receiver<bool>,
}

#[derive(Debug)]
struct Signal {
    lost: watch::Sender<bool>,
    dropped_total: AtomicU64,
}

impl Link {
    /// Resolves when the connection is gone.
    pub(crate) async fn lost(&self) {
        let mut lost = self.lost.clone();
        // An error means that the client has ended, which is a loss as well.
        lost.wait_for(|is_lost| *is_lost).await.ok();
    }

    /// Times the client library dropped a message because a subscription was full.
    pub(crate) fn dropped_total(&self) -> u64 {
        self.signal.dropped_total.load(Ordering::Relaxed)
    }
}

/// What ended a wait that was not for its own result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The process is shutting down.
    Shutdown,
    /// The connection is gone.
    Lost,
}

/// Runs `work` until it is done, the connection is lost or the process shuts down. `work` is
/// dropped half-way in the last two cases: it must not publish to the shards.
///
/// # Errors
/// What came first if it was not the work's end.
pub(crate) async fn guard<T>(
    link: &Link,
    shutdown: &Shutdown,
    work: impl Future<Output = T>,
) -> Result<T, End> {
    tokio::select! {
        biased;
        () = shutdown.fired() => Err(End::Shutdown),
        () = link.lost() => Err(End::Lost),
        done = work => Ok(done),
    }
}

/// Makes connections, one after the other.
#[derive(Debug)]
pub(crate) struct Connector {
    settings: NatsSettings,
    servers: Vec<Server>,
    next: usize,
    retry: Retry,
}

impl Connector {
    /// Checks the settings and everything that they point to.
    ///
    /// # Errors
    /// What the operator has to put right; nothing that a broker could cause.
    pub(crate) fn new(settings: NatsSettings) -> Result<Self, NatsSettingsError> {
        let servers = settings.check()?;
        // Instances begin at different servers of a cluster.
        let next = rand::random_range(0..servers.len());
        Ok(Self { settings, servers, next, retry: Retry::default() })
    }

    /// The next connection, however long it takes; `None` at shutdown.
    pub(crate) async fn connect(&mut self, shutdown: &Shutdown) -> Option<Link> {
        loop {
            let is_new_round = self.next == 0;
            if is_new_round && self.retry.failures() > 0 {
                let delay = self.retry.delay(rand::random());
                if shutdown.fired_within(delay).await {
                    return None;
                }
            }
            let server = &self.servers[self.next];
            self.next = (self.next + 1) % self.servers.len();
            let attempt = tokio::select! {
                biased;
                () = shutdown.fired() => return None,
                attempt = attempt(&self.settings, server) => attempt,
            };
            match attempt {
                Ok(link) => {
                    tracing::info!(url = link.url, "connected to NATS");
                    return Some(link);
                }
                Err(failure) => failure.report(&mut self.retry, server.url()),
            }
        }
    }

    /// Tells that the last connection does its work, so that a later failure is a first one.
    pub(crate) fn settled(&mut self) {
        self.retry.succeeded();
    }

    /// Tells that the last connection is gone. It counts as a failure: a server that accepts
    /// connections and drops them is not tried without a wait.
    pub(crate) fn lost(&mut self, link: &Link) {
        if self.retry.failed("lost", Instant::now()) {
            tracing::warn!(url = link.url, "the connection to NATS is lost; connecting again");
        }
    }
}

/// Why an attempt failed.
enum Failure {
    /// The files of the credentials, which were readable at start, are not now.
    Settings(NatsSettingsError),
    /// The server, the network or the credentials.
    Connect(async_nats::ConnectError),
}

impl Failure {
    fn report(&self, retry: &mut Retry, url: &str) {
        let cause = match self {
            Self::Settings(error) => error.to_string(),
            Self::Connect(error) => error.to_string(),
        };
        if !retry.failed(&cause, Instant::now()) {
            return;
        }
        let failures = retry.failures();
        match self {
            Self::Settings(_) => {
                tracing::error!(
                    url,
                    cause,
                    failures,
                    "the NATS settings became unusable; retrying"
                );
            }
            Self::Connect(error) if is_refusal(error.kind()) => tracing::error!(
                url,
                cause,
                failures,
                "NATS refuses the credentials: check the credentials file, the user and password, \
                 or the token; retrying"
            ),
            Self::Connect(_) => {
                tracing::warn!(url, cause, failures, "cannot connect to NATS; retrying");
            }
        }
    }
}

fn is_refusal(kind: ConnectErrorKind) -> bool {
    matches!(kind, ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication)
}

async fn attempt(settings: &NatsSettings, server: &Server) -> Result<Link, Failure> {
    let (lost_sender, lost) = watch::channel(false);
    let signal = Arc::new(Signal { lost: lost_sender, dropped_total: AtomicU64::new(0) });
    let watcher = Arc::clone(&signal);
    let options: ConnectOptions = settings
        .options(server)
        .map_err(Failure::Settings)?
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(REQUEST_TIMEOUT))
        .ping_interval(PING_INTERVAL)
        .subscription_capacity(SUBSCRIPTION_MESSAGES_MAX)
        // The connector connects again, with fresh credentials and a log line that says why it
        // failed; the library's own attempts would do neither.
        .max_reconnects(1)
        .ignore_discovered_servers()
        .event_callback(move |event| {
            watcher.observe(&event);
            std::future::ready(())
        });
    let client = options.connect(server.address()).await.map_err(Failure::Connect)?;
    Ok(Link { client, url: server.url().to_owned(), signal, lost })
}

impl Signal {
    fn observe(&self, event: &Event) {
        match event {
            Event::Disconnected | Event::Closed => {
                self.lost.send_replace(true);
            }
            Event::SlowConsumer(_) => {
                self.dropped_total.fetch_add(1, Ordering::Relaxed);
            }
            Event::ServerError(ServerError::AuthorizationViolation) => {
                tracing::error!("NATS withdrew the credentials of this connection");
            }
            Event::ServerError(error) => {
                tracing::error!(%error, "NATS reports an error");
            }
            Event::LameDuckMode => {
                tracing::info!("the NATS server is about to stop and will close this connection");
            }
            Event::Connected | Event::Draining | Event::ClientError(_) => {}
        }
    }
}
