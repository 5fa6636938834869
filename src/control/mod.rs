//! What is around the server: the machine it runs on, its signals, its log.
//!
//! ```text
//! doctor   what this machine limits the server to, and the fix
//! machine  cores, descriptors, io_uring: found out before anything starts
//! signals  SIGTERM and ctrl-C
//! log      structured logs
//! ```

pub mod doctor;
pub mod log;
pub mod machine;
pub mod signals;
