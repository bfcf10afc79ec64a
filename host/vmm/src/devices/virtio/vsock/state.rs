//! What is saved of the device.

use serde::{Deserialize, Serialize};

/// Connections are not saved: their other ends are programs of the host. The restored guest is told
/// that all are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VsockState {
    /// The guest's context id. A restored VM may have another one, which its driver reads anew.
    pub(crate) guest_cid: u32,
    /// The port at which the next connection of the host is tried, so that what the guest still
    /// sends on old connections finds no new ones.
    pub(crate) next_port: u32,
}
