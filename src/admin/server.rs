//! The admin port: its listening socket and what stands at which path. It is for operators, not
//! for the public.
//!
//! Bounds: axum serves one request per connection at a time; a scrape copies each shard's report.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::metrics;
use super::state::AdminState;

/// The admin address cannot be listened on. The configuration's fault.
#[derive(Debug, thiserror::Error)]
#[error(
    "the admin port {addr} cannot be had: {source}; choose another with --admin-addr or \
     WS_ADMIN_ADDR, or `off`"
)]
pub struct AdminError {
    /// The address.
    addr: SocketAddr,
    /// What the system said.
    source: io::Error,
}

/// The listening socket of the admin port.
#[derive(Debug)]
pub struct AdminServer {
    listener: std::net::TcpListener,
}

impl AdminServer {
    /// Listens on `addr`; port 0 lets the kernel choose one.
    ///
    /// # Errors
    /// If it cannot be had.
    pub fn listen(addr: SocketAddr) -> Result<Self, AdminError> {
        let listen = || {
            let listener = std::net::TcpListener::bind(addr)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        match listen() {
            Ok(listener) => Ok(Self { listener }),
            Err(source) => Err(AdminError { addr, source }),
        }
    }

    /// Serves until the runtime ends. It must be called within tokio.
    ///
    /// # Errors
    /// If the system refuses the socket.
    pub fn spawn(self, state: AdminState) -> io::Result<()> {
        let addr = self.listener.local_addr()?;
        let listener = TcpListener::from_std(self.listener)?;
        tracing::info!(%addr, "metrics on the admin port");
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes(state)).await {
                tracing::error!(%error, "the admin port ended");
            }
        });
        Ok(())
    }
}

fn routes(state: AdminState) -> Router {
    Router::new().route("/metrics", get(scrape)).with_state(state)
}

async fn scrape(State(state): State<AdminState>) -> Response {
    match metrics::render(&state) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
