//! Flags and environment to one validated configuration; all errors are told at once.
//!
//! A section is a file with the settings that belong together: a `const` row for each, beside the
//! code that reads it. A setting is added in its section alone; the command line, the printed
//! configuration and `docs/settings.md` follow.
//!
//! ```text
//! context      what is known before any setting is read
//! setting      a row of the table, and what a kind of value is
//! kinds        the kinds of values: numbers, choices, durations, addresses ...
//! values       texts with their origin -> values, and the errors
//!
//! server       where to listen, who this is; all that `serve` and `echo` need
//!   connections  how connections are accepted, and how many
//!   timeouts     how long a client may be silent
//!   drain        how the server ends, and how long connections live
//!   client       what one client may ask for, and the memory that it may take
//!   compression  when messages are compressed
//!   recent_log   what a shard keeps for resumes
//! source       which source; all that it and `simulate` need
//!   nats         where NATS is and how to log in
//!   jetstream    the stream and its consumer
//!   http         the backend that is polled
//!   sim          the price simulator
//! load         when the server takes in less
//! logging      what is logged
//!
//! settings     the table: the sum of the sections
//! cli          the command line, made from the table
//! print        the effective settings as text
//! page         the tables of docs/settings.md
//! ```

pub mod cli;
mod client;
mod compression;
mod connections;
mod context;
mod drain;
mod http;
mod jetstream;
mod kinds;
mod load;
mod logging;
mod nats;
pub mod page;
mod print;
mod recent_log;
mod server;
mod setting;
pub mod settings;
mod sim;
mod source;
mod timeouts;
pub mod values;

pub use connections::{connections_allowed, descriptors_needed};
pub use context::{Machine, ServerKind};
pub use drain::DrainConfig;
pub use load::{broadcast_rate_max, pressure_limits};
pub use logging::{LogConfig, log_config};
pub use print::print;
pub use server::{ServerConfig, server_config};
pub use source::{simulate_settings, source};
