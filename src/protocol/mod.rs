//! Bytes to values and back, and nothing else: no IO, no clock, no state of the server.
//!
//! ```text
//! handshake   request head -> what is asked; the answer to an upgrade
//! response    answers in HTTP before the upgrade: probes and refusals
//! frame       frame headers (RFC 6455, section 5.2), masking
//! error       how a client can break the wire protocol
//! decoder     bytes of one connection -> messages; fragments, UTF-8, control frames
//! extension   offers of permessage-deflate -> what is agreed (RFC 7692, section 7.1)
//! dialect     the form of events that a connection agreed to
//! deflate     tails and messages, compressed; the stored block before a tail
//! inflate     compressed messages -> bytes, within caps
//! close       close codes and reasons (RFC 6455, section 7.4)
//! command     client text -> Command
//! message     server messages -> text
//! envelope    published payload -> the tail that all subscribers share
//! ```

pub(crate) mod close;
pub(crate) mod command;
pub(crate) mod decoder;
pub(crate) mod deflate;
pub(crate) mod dialect;
pub(crate) mod envelope;
pub(crate) mod error;
pub(crate) mod extension;
pub(crate) mod frame;
pub mod handshake;
pub(crate) mod inflate;
pub(crate) mod message;
pub(crate) mod response;
