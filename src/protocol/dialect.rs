//! What a connection agreed to in its handshake: the form in which it is sent events.
//!
//! There is one encoding, `odin.v1.json`; a second one gets its place here.

use super::extension::Deflate;

/// The form of a connection's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dialect {
    /// The compression that was agreed; `None` for plain text.
    pub deflate: Option<Deflate>,
}
