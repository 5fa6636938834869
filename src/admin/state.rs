//! What the admin port tells of: reports that others write and that stop nobody when they are read.

use std::sync::Arc;

use crate::ingest::SourceReport;
use crate::load::MemoryMeter;
use crate::shard::Census;

/// What the admin port tells of.
#[derive(Debug, Clone)]
pub(crate) struct AdminState {
    /// The shards' reports.
    pub census: Arc<Census>,
    /// The allocator's figure, which is asked for once a minute at most.
    pub memory: Arc<MemoryMeter>,
    /// The source's report.
    pub source: Arc<SourceReport>,
    /// The budget of a connection, in bytes.
    pub connection_budget_bytes: usize,
}
