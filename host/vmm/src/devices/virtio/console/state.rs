//! What is saved of the device.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::ConsoleSize;
use super::control::Message;

/// How far the conversation with the driver is. Output is the host's, which has read it; input that
/// waits was typed for this guest and not for one that is made from it, so it stays behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConsoleState {
    /// Whether the driver has said that it is ready for ports.
    pub(super) is_ready: bool,
    /// The terminal's size.
    pub(super) size: ConsoleSize,
    /// What the driver was told that it is.
    pub(super) told_size: ConsoleSize,
    /// All ports, in their order.
    pub(super) ports: Vec<PortState>,
}

/// One port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PortState {
    /// Its name, which the driver was told.
    pub(super) name: Option<String>,
    /// Whether the driver uses it.
    pub(super) is_ready: bool,
    /// Whether something in the guest has it open.
    pub(super) is_open: bool,
    /// Messages about it that the driver is still to get.
    pub(super) owed: BTreeSet<Message>,
}
