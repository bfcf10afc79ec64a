//! A node that is being emptied: it takes no new VMs, boots none, and shuts down those that run.

use serde::{Deserialize, Serialize};

use crate::{Name, Tenant, VmId};

/// That a node drains. It is written down, so that a new host process goes on with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Since when, ms since the Unix epoch.
    pub since_ms: u64,
    /// When guests that have not ended by themselves are stopped, ms since the Unix epoch.
    pub stop_at_ms: u64,
}

/// How far a drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrainState {
    /// The node takes VMs and boots them.
    Off,
    /// VMs are being shut down.
    Draining,
    /// No VM runs.
    Drained,
}

impl DrainState {
    /// Its name as it stands in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Draining => "draining",
            Self::Drained => "drained",
        }
    }
}

/// What an operator is told about a drain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainReport {
    /// How far it is.
    pub state: DrainState,
    /// What was written down of it; nothing where the node does not drain.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// How many VMs are yet to end.
    pub remaining: u64,
    /// The first of them.
    pub vms: Vec<RemainingVm>,
}

/// A VM that is yet to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemainingVm {
    /// The VM.
    pub id: VmId,
    /// Its name.
    pub name: Name,
    /// Whose it is.
    pub tenant: Tenant,
    /// Its observed state, by name.
    pub state: String,
}
