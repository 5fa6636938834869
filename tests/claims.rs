//! What the server claims of completeness, against a real broker that loses messages in every way
//! that brokers have: `prev`, `recovered:true`, a heartbeat's `position` and `snapshot.complete`
//! are never false, and whoever misses something is told. False alarms are allowed.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod claims_of;
mod support;
