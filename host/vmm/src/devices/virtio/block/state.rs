//! What is saved of the device.

use serde::{Deserialize, Serialize};

/// Quiesced, so no request is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlockState {
    /// Bytes of the disk, so that it is not restored onto another.
    pub(super) capacity_bytes: u64,
    /// What the driver wrote to `writeback`.
    pub(super) writeback: bool,
}
