//! What is saved of the device.

use serde::{Deserialize, Serialize};

/// The two numbers of the configuration space. Which pages are in the balloon is the guest's to
/// know, and what it said about its memory it can be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BalloonState {
    /// What the guest is asked for, pages of 4 KiB.
    pub(super) target_pages: u32,
    /// What it was told that it is asked for.
    pub(super) told_pages: u32,
    /// What it says it has given.
    pub(super) actual_pages: u32,
}
