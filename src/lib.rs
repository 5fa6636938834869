//! odin-ws: NATS JetStream in, WebSocket out, one io_uring executor per core.
pub mod channel;
pub mod event;
pub mod feed;
pub mod ingest;
pub mod protocol;
pub mod shard;
