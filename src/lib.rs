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
//! patience  nothing: how long a start waits for an address
//! tail      nothing: it is a client, and shares no code with the server
//! conformance  nothing: it tries clients, and shares no code with the server
//! shard_command  nothing: what other threads ask of a shard, and its answers
//! protocol  channel, heap, position: bytes to values and back, pure
//! event     heap, position, protocol: one published message, encoded once
//! feed      event, position: where threads meet
//! shard     channel, clock, event, feed, heap, position, protocol: the rules of one core, pure
//! load      event, retry, shard: how near its limits the process is
//! ingest    channel, clock, event, feed, load, position, retry, secret: knows NATS and backends
//! net       clock, feed, heap, patience, shard, shard_command: the only code with glommio's sockets, no rules
//! admin     event, feed, ingest, load, patience, protocol, shard: the admin port
//! config    channel, ingest, load, net, protocol, secret, shard: settings to the others' types
//! control   config: the machine, signals, logs, doctor
//! runtime   everything: the composition root
//! ```

#![warn(unreachable_pub)]

mod admin;
mod channel;
#[cfg(test)]
mod claims;
mod clock;
pub mod config;
pub mod conformance;
pub mod control;
mod event;
mod feed;
mod heap;
pub mod ingest;
mod load;
mod net;
mod patience;
mod position;
mod protocol;
mod retry;
pub mod runtime;
mod secret;
mod shard;
mod shard_command;
pub mod tail;

/// What benchmarks, fuzz targets and tests reach inside for; no part of any interface.
#[doc(hidden)]
pub mod testing {
    pub use crate::channel::Pattern;
    pub use crate::event::Event;
    pub use crate::feed::{FEED_CAPACITY, Feed, FeedReceiver, SourceStatus, feed};
    pub use crate::load::PressureLimits;
    pub use crate::position::{Incoming, Position, StreamPos};
    pub use crate::protocol::decoder::{DecodeLimits, Decoder, Input};
    pub use crate::protocol::deflate::{Deflater, STORED_HEADER_BYTES, put_stored_header};
    pub use crate::protocol::envelope::encode_tail;
    pub use crate::protocol::error::WireError;
    pub use crate::protocol::extension::Compression;
    pub use crate::protocol::frame::{
        CLIENT_HEADER_BYTES_MAX, HEADER_BYTES_MAX, Opcode, parse_client_header, put_header,
    };
    pub use crate::protocol::handshake;
    pub use crate::protocol::inflate::{InflateLimits, Inflater, RATIO_FREE_BYTES};
    pub use crate::secret::Secret;
    pub use crate::shard::{
        Census, ClientLimits, ConnId, Limits, Mode, Now, Shard, ShardSettings, SubscriptionIndex,
        Wire,
    };
}
