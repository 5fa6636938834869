//! The WebSocket protocol of a client, without IO: bytes in, values out.
//!
//! ```text
//! handshake  the upgrade: request and response (RFC 6455, section 4)
//! frame      bytes to messages, and the frames of a client (section 5)
//! deflate    permessage-deflate (RFC 7692)
//! tls        rustls without IO
//! ```
//!
//! It is strict: every mistake of a server is an error that names it. Nothing is repaired silently.

pub mod deflate;
pub mod frame;
pub mod handshake;
pub mod tls;

/// What the server did wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Its answer to the upgrade.
    #[error("upgrade: {0}")]
    Handshake(&'static str),
    /// A frame, or the order of frames.
    #[error("frame: {0}")]
    Frame(&'static str),
    /// A message over the reader's limit, bytes.
    #[error("a message of over {0} bytes")]
    TooLarge(usize),
    /// Text, or a close reason, that is not UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
    /// A compressed message that cannot be inflated.
    #[error("permessage-deflate: {0}")]
    Deflate(&'static str),
}
