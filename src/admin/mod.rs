//! The admin port: what operators and their tools ask of a running server.
//!
//! It runs on the control thread. It reads reports that shards and source write on their own
//! account, so that asking stops nobody.
//!
//! ```text
//! server   the socket, and what stands at which path
//! metrics  the reports as Prometheus' text
//! state    what the port tells of
//! ```

mod metrics;
mod server;
mod state;

pub(crate) use server::{AdminError, AdminServer};
pub(crate) use state::AdminState;
