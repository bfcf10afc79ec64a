//! What is saved of a device: plain data, untrusted when it comes back.

use serde::{Deserialize, Serialize};

/// What a device knows beside its queues and features. A variant for each kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DeviceState {
    /// See [`super::net`].
    Net(super::net::NetState),
    /// See [`super::balloon`].
    Balloon(super::balloon::BalloonState),
    /// See [`super::console`].
    Console(super::console::ConsoleState),
    /// See [`super::rng`].
    Rng(super::rng::RngState),
    /// See [`super::block`].
    Block(super::block::BlockState),
    /// See [`super::vsock`].
    Vsock(super::vsock::VsockState),
}

/// A queue as the driver configured it, and how far both sides are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueueState {
    /// Whether the driver enabled it.
    pub(crate) ready: bool,
    /// Descriptors in the ring.
    pub(crate) size: u16,
    /// Guest-physical address of the descriptor table.
    pub(crate) descriptors: u64,
    /// Guest-physical address of the available ring (the driver area).
    pub(crate) available: u64,
    /// Guest-physical address of the used ring (the device area).
    pub(crate) used: u64,
    /// The next entry of the available ring that is looked at.
    pub(crate) next_available: u16,
    /// The next entry of the used ring that is written.
    pub(crate) next_used: u16,
}

/// Why a saved state can't be taken over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RestoreError {
    /// It is another kind of device's.
    #[error("the state is not one of a {0} device")]
    Kind(&'static str),
    /// It can't have been saved by us.
    #[error("the state makes no sense: {0}")]
    Invalid(String),
}
