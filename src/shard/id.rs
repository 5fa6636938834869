//! The name of a connection within its shard.

/// A connection of one shard. The index is used again; the generation tells the users apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// The place in the shard's table.
    pub index: u32,
    /// How often the place was used before, wrapping.
    pub generation: u32,
}
