//! The only code that touches glommio and its sockets. It holds no rules: it moves bytes between
//! sockets and a [`crate::shard::Shard`], and passes the clock in.
//!
//! ```text
//! listen   listening sockets, one per shard on the same address
//! worker   one executor: accept loop, feed loop, timer tick, commands
//! socket   one connection's task, and the shard's way to all sockets
//! ```

mod listen;
mod socket;
mod worker;

pub use listen::{ListenError, ListenSettings, listen};
pub use worker::{ShardCommand, WorkerSettings, run};
