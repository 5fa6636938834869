//! What is around the server: the machine it runs on, its signals, its log.
//!
//! ```text
//! machine  cores, descriptors, io_uring: found out before anything starts
//! signals  SIGTERM and ctrl-C
//! log      structured logs
//! ```

pub mod log;
pub mod machine;
pub mod signals;
