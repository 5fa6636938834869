//! Bytes to values and back: no IO, no clock, no state of the server.
pub mod envelope;
