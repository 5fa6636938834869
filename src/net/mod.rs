//! The only code that touches glommio and its sockets. It holds no rules: it moves bytes between
//! sockets and a [`crate::shard::Shard`], and passes the clock in.
//!
//! ```text
//! listen   listening sockets, one per shard on the same address
//! turns    the tasks of one executor: sockets, feed, timer tick, commands
//! worker   what they share, and the pieces of work that they do
//! doorbell how another thread or task wakes the one that works
//! sockets  the table of connections' sockets, and the shard's way to them
//! ring     a private io_uring that tells which sockets are ready
//! ```

mod doorbell;
mod listen;
mod ring;
mod sockets;
mod turns;
mod worker;

pub(crate) use listen::{ListenError, ListenSettings, listen};
pub(crate) use turns::{WorkerSettings, run};
