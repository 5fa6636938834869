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
//! Data goes down only: source, event, queue, shard, connection, socket. Each room may use the rooms
//! named behind it; `tests/architecture.rs` reads this table and holds the imports against it.
//!
//! ```text
//! clock     nothing: time as a value
//! heap      nothing: the arithmetic of memory
//! position  nothing: where a message stands in the stream
//! channel   nothing: names and patterns
//! secret    nothing: what no log may show
//! retry     nothing: how long to wait before the next try
//! tail      nothing: it is a client, and shares no code with the server
//! shard_command  nothing: what other threads ask of a shard, and its answers
//! protocol  channel, heap, position: bytes to values and back, pure
//! event     heap, position, protocol: one published message, encoded once
//! feed      event, position: where threads meet
//! shard     channel, clock, event, feed, heap, position, protocol: the rules of one core, pure
//! load      event, retry, shard: how near its limits the process is
//! ingest    channel, clock, event, feed, load, position, retry, secret: knows NATS and backends
//! net       clock, feed, heap, shard, shard_command: the only code with glommio's sockets, no rules
//! admin     event, feed, ingest, load, protocol, shard: the admin port
//! config    channel, ingest, load, net, protocol, secret, shard: settings to the others' types
//! control   config: the machine, signals, logs, doctor
//! runtime   everything: the composition root
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
