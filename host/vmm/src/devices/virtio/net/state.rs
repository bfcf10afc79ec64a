//! What is saved of the device.

use serde::{Deserialize, Serialize};

/// What the driver was told. Packets under way are the network's to repeat, limits are the host's
/// to set, and buckets begin full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetState {
    /// The guest's address.
    pub(super) mac: [u8; 6],
    /// The MTU, if the driver was told one.
    pub(super) mtu: Option<u16>,
    /// Whether the link was up, as the driver was told last.
    pub(super) link_up: bool,
}
