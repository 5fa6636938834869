//! odin-ws: NATS JetStream in, WebSocket out, one io_uring executor per core.
//!
//! ```text
//!  main (tokio)              ingest (tokio)
//!  signals                   source -> publisher: enveloped once
//!      | ShardCommand             | Arc<Event>
//!      v                          v
//!  bounded queue per shard, one wake per batch
//!      |                |                 |
//!  shard 0 (core 0)  shard 1 (core 1) ... shard n: glommio executors, nothing shared
//!  own listener, connections, subscriptions, recent log, timers
//! ```
//!
//! Data goes down only: source, event, queue, shard, connection, socket. Who may use whom:
//!
//! ```text
//! runtime   everything: the composition root
//! config    the settings types of the others
//! admin     the admin port: reports of shard and ingest, and control's figures of the process
//! control   the machine and what the process uses of it, signals, logs, doctor
//! net       shard, feed; the only code with glommio's sockets; no rules
//! ingest    feed, event, channel, load; the only code that knows NATS and other backends
//! load      shard's census, event; how near its limits the process is; knows no source
//! shard     protocol, event, channel, feed's items; pure: no IO, no clock, no runtime
//! protocol  event, channel; pure
//! feed      event; where source and shards meet
//! shard_command  nothing: what other threads ask of a shard, and its answers
//! heap      nothing: the arithmetic of memory
//! tail      nothing of the server: it is a client
//! ```

pub mod admin;
pub mod channel;
pub mod clock;
pub mod config;
pub mod control;
pub mod event;
pub mod feed;
pub mod heap;
pub mod ingest;
pub mod load;
pub mod net;
pub mod position;
pub mod protocol;
mod retry;
pub mod runtime;
pub mod secret;
pub mod shard;
pub mod shard_command;
pub mod tail;
