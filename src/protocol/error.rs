//! How a client can break the wire protocol. [`super::close`] says what code each is closed with.

/// How the client broke the wire protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A rule of RFC 6455 or RFC 7692, named.
    #[error("{0}")]
    Protocol(&'static str),
    /// Text, or a close reason, that is not UTF-8 (section 8.1).
    #[error("text is not UTF-8")]
    InvalidUtf8,
    /// A message longer than the limit, in bytes.
    #[error("the message is over {limit} bytes")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
    },
    /// A compressed message that inflates to more than its length allows.
    #[error("the message inflates to over {limit} times its bytes")]
    RatioExceeded {
        /// Bytes allowed per compressed byte.
        limit: usize,
    },
}
