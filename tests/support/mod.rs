//! What the tests over real sockets share: the built server, a client, a real nats-server.
//!
//! Waiting is always for something that happens, with [`GUARD`] against hanging; nothing is
//! asserted about how long it took.
#![allow(dead_code, unused_imports, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

pub mod backend;
pub mod broker;
pub mod client;
pub mod cluster;
pub mod jwt;
pub mod nats;
pub mod proxy;
pub mod server;
pub mod source;

use std::time::Duration;

pub use backend::{Backend, Fault};
pub use broker::Nats;
pub use client::Client;
pub use server::Server;

/// After so long a test that waits has failed.
pub const GUARD: Duration = Duration::from_secs(30);
