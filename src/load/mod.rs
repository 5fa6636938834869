//! How near its limits the process is: one level with its cause, always up to date.
//!
//! A watcher measures four times a second, whether messages come or not, and publishes the level.
//! Whoever takes something in reads it and holds back by rules of its own: nothing here knows a
//! source, a client or a socket.
//!
//! | file | owns |
//! |---|---|
//! | `limits` | what the operator allows |
//! | `memory` | memory in use: our own accounting, and the allocator's figure once a minute |
//! | `usage` | what the process uses: memory and CPU time |
//! | `pressure` | PURE: from readings to a level, and which changes are worth a line of log |
//! | `level` | the level as other threads read it, without a lock |
//! | `watcher` | measures and publishes |

mod level;
mod limits;
mod memory;
mod pressure;
mod usage;
mod watcher;

#[cfg(test)]
pub(crate) use level::Level;
pub(crate) use level::{Cause, LoadLevel};
pub use limits::PressureLimits;
pub(crate) use memory::MemoryMeter;
pub(crate) use watcher::Watcher;
