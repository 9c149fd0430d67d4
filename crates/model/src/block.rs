//! Ids of blocks, and shards of services.

use crate::JobId;

/// The identity of a block: the attempt that created it, and its number among the outputs of that attempt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BlockId {
    pub job: JobId,
    pub attempt: u32,
    pub part: u32,
}

/// The services of a tenant whose hash begins with the lowest `bits` bits of `number`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Shard {
    pub bits: u8,
    pub number: u32,
}

impl Shard {
    /// All services.
    pub const ALL: Self = Self { bits: 0, number: 0 };
}
