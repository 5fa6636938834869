//! What a shard is made from.

use std::sync::Arc;

use super::census::Census;
use super::limits::Limits;
use crate::channel::Pattern;

/// What connections are for.
#[derive(Debug, Clone)]
pub enum Mode {
    /// Channels: `/ws`, `/health`, `/ready`; subscriptions within these subjects.
    Channels {
        /// The patterns that cover everything a client may subscribe to.
        allowed: Arc<[Pattern]>,
    },
    /// Every message comes back, on any path: for protocol conformance tools.
    Echo,
}

/// What a shard is made from.
#[derive(Debug, Clone)]
pub struct ShardSettings {
    /// The shard's number, from 0.
    pub shard: usize,
    /// The instance's name.
    pub instance: Arc<str>,
    /// What connections are for.
    pub mode: Mode,
    /// The bounds.
    pub limits: Limits,
    /// The instance's counters.
    pub census: Arc<Census>,
}

impl ShardSettings {
    /// A connection's public name: instance, shard and running number.
    pub(super) fn connection_name(&self, number: u64) -> String {
        format!("{}-{}-{number}", self.instance, self.shard)
    }
}
