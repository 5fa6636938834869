//! The bounds of the recent log: the newest messages that a shard keeps for resumes. It has
//! nothing to do with log lines (`logging`).

use super::kinds::Number;
use super::setting::{Scope, Section, Setting};

pub(super) const LOG_SECONDS: Setting<Number<u64>> =
    Setting::new("WS_LOG_SECONDS", "log-seconds", Scope::Serve, Number::new(1, 86_400))
        .default("120")
        .unit("seconds")
        .help("age of a shard's recent log");

pub(super) const LOG_MESSAGES: Setting<Number<usize>> =
    Setting::new("WS_LOG_MESSAGES", "log-messages", Scope::Serve, Number::new(1, 10_000_000))
        .default("100000")
        .unit("messages")
        .help("messages in a shard's recent log");

pub(super) const LOG_BYTES: Setting<Number<usize>> =
    Setting::new("WS_LOG_BYTES", "log-bytes", Scope::Serve, Number::new(1_024, 1 << 36))
        .default("52428800")
        .unit("bytes")
        .help("bytes in a shard's recent log");

pub(super) const SECTION: Section = Section {
    name: "recent-log",
    title: "Recent log",
    settings: &[&LOG_SECONDS, &LOG_MESSAGES, &LOG_BYTES],
};
