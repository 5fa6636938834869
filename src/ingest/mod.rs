//! Everything that brings messages in: the sources and the publisher that they share.
//!
//! A source connects, reads messages in stream order and hands each to the [`Publisher`], which
//! envelopes it once and pushes it to every shard's queue. Only this folder knows NATS. It never
//! names a shard's rules: it sees queues.

mod publisher;

pub use publisher::{Publisher, ShardsGone};
