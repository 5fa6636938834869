//! A NATS connection: its settings, and what can be wrong with them.
//!
//! Every connection is made anew from the settings, so that credentials that were rotated on
//! disk are taken up. Bounds: [`CONNECT_TIMEOUT`], [`REQUEST_TIMEOUT`].

use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use tokio::sync::watch;

use super::IngestError;
use crate::config::hide_user_info;
use crate::config::secret::Secret;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// Messages of one subscription that wait in the client before more are dropped by it.
const SUBSCRIPTION_CAPACITY: usize = 65_536;

/// Where NATS is and how to get in.
#[derive(Debug, Clone, Default)]
pub struct NatsSettings {
    /// Addresses of servers of one cluster.
    pub urls: Vec<String>,
    /// A .creds file, as managed services issue them.
    pub creds_file: Option<String>,
    /// User name.
    pub user: Option<String>,
    /// Password of the user.
    pub password: Option<Secret>,
    /// Token.
    pub token: Option<Secret>,
    /// PEM file of the CA that the servers' certificates are signed by.
    pub ca_file: Option<String>,
    /// The client's name, which NATS shows to its operators.
    pub name: Arc<str>,
}

/// Why there is no connection. The broker's or the network's fault, or wrong credentials.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The settings cannot be used any more, such as a credentials file that was removed.
    #[error(transparent)]
    Settings(#[from] IngestError),
    /// No server took the connection.
    #[error("no connection to NATS at {urls}: {cause}")]
    Refused {
        /// The addresses, without user and password.
        urls: String,
        /// What the last one said.
        cause: String,
    },
}

/// A connection, and a signal that it is lost.
#[derive(Debug)]
pub(super) struct Connection {
    pub client: Client,
    lost: watch::Receiver<bool>,
}

impl Connection {
    /// Resolves when the connection is lost. The client would connect again by itself; the
    /// sources make a new one instead, for what they had on the old one may be gone.
    pub(super) async fn lost(&mut self) {
        // The sender lives in the client's callback: without it the client is gone as well.
        if self.lost.wait_for(|is_lost| *is_lost).await.is_err() {
            tracing::debug!("the NATS client has ended");
        }
    }
}

impl NatsSettings {
    /// The client's options; checks everything that can be checked without a connection.
    ///
    /// # Errors
    /// What cannot be used, and the fix.
    pub fn options(&self) -> Result<ConnectOptions, IngestError> {
        self.addresses()?;
        let mut options = ConnectOptions::new()
            .name(&*self.name)
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .subscription_capacity(SUBSCRIPTION_CAPACITY);
        if let Some(path) = &self.creds_file {
            let fix = "set it to a readable .creds file, as `nsc generate creds` writes them";
            let problem = |problem: std::io::Error| IngestError::File {
                setting: "NATS_CREDS_FILE",
                path: path.clone(),
                problem: problem.to_string(),
                fix,
            };
            let creds = std::fs::read_to_string(path).map_err(problem)?;
            options = options.credentials(&creds).map_err(problem)?;
        }
        if let Some(path) = &self.ca_file {
            std::fs::read(path).map_err(|problem| IngestError::File {
                setting: "NATS_CA_FILE",
                path: path.clone(),
                problem: problem.to_string(),
                fix: "set it to a readable PEM file",
            })?;
            options = options.add_root_certificates(PathBuf::from(path)).require_tls(true);
        }
        if let (Some(user), password) = (&self.user, &self.password) {
            let password = password.as_ref().map_or("", Secret::reveal);
            options = options.user_and_password(user.clone(), password.to_owned());
        }
        if let Some(token) = &self.token {
            options = options.token(token.reveal().to_owned());
        }
        Ok(options)
    }

    /// Connects to the first server that takes the connection.
    pub(super) async fn connect(&self) -> Result<Connection, ConnectError> {
        let (report, lost) = watch::channel(false);
        let report = Arc::new(report);
        let client = self
            .options()?
            .event_callback(move |event| {
                let report = Arc::clone(&report);
                async move { on_event(&event, &report) }
            })
            .connect(self.addresses()?)
            .await
            .map_err(|error| ConnectError::Refused { urls: self.shown(), cause: cause(&error) })?;
        Ok(Connection { client, lost })
    }

    fn addresses(&self) -> Result<Vec<ServerAddr>, IngestError> {
        let parse = |url: &String| {
            ServerAddr::from_str(url).map_err(|error| IngestError::Url {
                url: hide_user_info(url),
                problem: cause(&error),
            })
        };
        self.urls.iter().map(parse).collect()
    }

    fn shown(&self) -> String {
        hide_user_info(&self.urls.join(","))
    }
}

fn on_event(event: &Event, lost: &watch::Sender<bool>) {
    match event {
        Event::Disconnected | Event::Closed => {
            lost.send_replace(true);
        }
        Event::SlowConsumer(_) => {
            tracing::warn!("messages from NATS arrive faster than they are taken: some were lost");
        }
        Event::ServerError(error) => tracing::warn!(%error, "NATS reports an error"),
        Event::LameDuckMode => tracing::info!("the NATS server is about to shut down"),
        Event::Connected | Event::Draining | Event::ClientError(_) => {}
    }
}

/// An error with its causes, in one line.
pub(super) fn cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}
