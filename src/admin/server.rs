//! The admin port: its listening socket and what stands at which path. It is for operators, not
//! for the public.
//!
//! Bounds: axum serves one request per connection at a time; a scrape copies each shard's report, and
//! asks the allocator, whose answer may stop shards, once a minute at most.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::metrics;
use super::state::AdminState;
use crate::patience::while_in_use;

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
pub(crate) struct AdminServer {
    listener: std::net::TcpListener,
}

impl AdminServer {
    /// Listens on `addr`; port 0 lets the kernel choose one.
    ///
    /// # Errors
    /// If it cannot be had.
    pub(crate) fn listen(addr: SocketAddr) -> Result<Self, AdminError> {
        let listener = while_in_use(|| {
            let listener = std::net::TcpListener::bind(addr)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        match listener {
            Ok(listener) => Ok(Self { listener }),
            Err(source) => Err(AdminError { addr, source }),
        }
    }

    /// Serves until the runtime ends. It must be called within tokio.
    ///
    /// # Errors
    /// If the system refuses the socket.
    pub(crate) fn spawn(self, state: AdminState) -> io::Result<()> {
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

/// The query that has the allocator asked now: to look into memory by hand. It may stop shards, so
/// nothing that scrapes regularly should send it.
const HEAP_NOW: &str = "heap=now";

fn routes(state: AdminState) -> Router {
    Router::new().route("/metrics", get(scrape)).with_state(state)
}

async fn scrape(State(state): State<AdminState>, RawQuery(query): RawQuery) -> Response {
    if query.as_deref() == Some(HEAP_NOW) {
        state.memory.read_heap(Instant::now());
    }
    match metrics::render(&state) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
