//! What is saved of the device.

use serde::{Deserialize, Serialize};

/// Nothing: the queue is the transport's, and entropy is not replayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RngState {}
