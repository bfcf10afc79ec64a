//! Where records and the node do not agree.

use serde::{Deserialize, Serialize};

use crate::{ActionId, CleanupId, Digest, IncidentId, Name, OperationId, VmId};

/// Something that is written down and not there, or there and not written down.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "divergence", rename_all = "kebab-case")]
pub enum DivergenceKind {
    /// A VM that runs has no worker process.
    WorkerMissing,
    /// A worker process of this host that no record names.
    WorkerUnrecorded {
        /// Process id.
        pid: u32,
        /// Start time, clock ticks since boot.
        start_ticks: u64,
    },
    /// A worker runs and no host process could take it over: its socket is gone.
    ControlSocketMissing,
    /// Sockets of a worker, of a VM that has none.
    SocketsLeft,
    /// A run directory of a VM that there is no record of.
    RunDirectoryUnrecorded,
    /// Disks of a VM that there is no record of.
    DisksUnrecorded,
    /// A VM's own disk was made and is not there.
    DiskMissing {
        /// The disk.
        disk: Name,
    },
    /// A VM runs and a TAP of it is not there.
    TapMissing {
        /// The interface on the node.
        tap: String,
    },
    /// A TAP of a VM that does not run.
    TapLeft {
        /// The interface on the node.
        tap: String,
    },
    /// A VM runs and no usage window is open.
    WindowMissing,
    /// A usage window is open and its VM does not run.
    WindowLeft,
    /// An idle VM is in a state that only an operation leads out of.
    StateStuck {
        /// The state.
        state: String,
    },
    /// An operation goes on about a VM that there is no record of.
    OperationUnowned {
        /// The operation.
        operation: OperationId,
    },
    /// An incident is open about a VM that there is no record of.
    IncidentUnowned {
        /// The incident.
        incident: IncidentId,
    },
    /// The file of an image is not there.
    ImageMissing {
        /// The image.
        image: Digest,
    },
    /// The component of a plugin's active revision is not there.
    PolicyMissing {
        /// The plugin.
        plugin: Name,
        /// The revision.
        revision: u64,
    },
}

impl DivergenceKind {
    /// The name of every kind, as it stands in JSON.
    pub const NAMES: [&str; 16] = [
        "worker-missing",
        "worker-unrecorded",
        "control-socket-missing",
        "sockets-left",
        "run-directory-unrecorded",
        "disks-unrecorded",
        "disk-missing",
        "tap-missing",
        "tap-left",
        "window-missing",
        "window-left",
        "state-stuck",
        "operation-unowned",
        "incident-unowned",
        "image-missing",
        "policy-missing",
    ];

    /// The name of the kind, as it stands in JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::WorkerMissing => "worker-missing",
            Self::WorkerUnrecorded { .. } => "worker-unrecorded",
            Self::ControlSocketMissing => "control-socket-missing",
            Self::SocketsLeft => "sockets-left",
            Self::RunDirectoryUnrecorded => "run-directory-unrecorded",
            Self::DisksUnrecorded => "disks-unrecorded",
            Self::DiskMissing { .. } => "disk-missing",
            Self::TapMissing { .. } => "tap-missing",
            Self::TapLeft { .. } => "tap-left",
            Self::WindowMissing => "window-missing",
            Self::WindowLeft => "window-left",
            Self::StateStuck { .. } => "state-stuck",
            Self::OperationUnowned { .. } => "operation-unowned",
            Self::IncidentUnowned { .. } => "incident-unowned",
            Self::ImageMissing { .. } => "image-missing",
            Self::PolicyMissing { .. } => "policy-missing",
        }
    }

    /// What a person must do about a divergence that the host can't repair; `None` where it can.
    #[must_use]
    pub fn what_to_do(&self) -> Option<String> {
        Some(match self {
            Self::ControlSocketMissing => {
                "reboot the VM before this host restarts: its control socket is gone, and the \
                 next host process could not take it over"
                    .to_owned()
            }
            Self::DiskMissing { disk } => format!(
                "bring the file of disk {disk} back, or delete the VM: its data is not where the \
                 host left it"
            ),
            Self::TapMissing { tap } => {
                format!("reboot the VM: its interface {tap} was removed, and its network is down")
            }
            Self::StateStuck { state } => format!(
                "restart the host: the VM is {state} and nothing is under way; the log says why \
                 its operation could not be finished"
            ),
            Self::ImageMissing { image } => {
                format!("push the image {image} again: its file is gone, and VMs of it can't boot")
            }
            Self::PolicyMissing { plugin, revision } => format!(
                "push the component of plugin {plugin} again: the file of revision {revision}, \
                 which is active, is gone, and the host can't load it when it restarts"
            ),
            Self::WorkerMissing
            | Self::WorkerUnrecorded { .. }
            | Self::SocketsLeft
            | Self::RunDirectoryUnrecorded
            | Self::DisksUnrecorded
            | Self::TapLeft { .. }
            | Self::WindowMissing
            | Self::WindowLeft
            | Self::OperationUnowned { .. }
            | Self::IncidentUnowned { .. } => return None,
        })
    }
}

/// What is done about a divergence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "repair", rename_all = "kebab-case")]
pub enum Repair {
    /// Nothing: it was only looked for.
    None,
    /// The cleanup queue removes it.
    Cleanup {
        /// The task.
        task: CleanupId,
    },
    /// It is an incident, which the recovery policy decides.
    Incident,
    /// The record was put right.
    Corrected,
    /// A person must act.
    ActionRequired {
        /// The record.
        action: ActionId,
    },
}

/// One finding of an audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    /// What does not agree.
    #[serde(flatten)]
    pub kind: DivergenceKind,
    /// The VM, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmId>,
    /// What is done about it.
    #[serde(flatten)]
    pub repair: Repair,
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// When it began, ms since the Unix epoch.
    pub at_ms: u64,
    /// How long it took, µs.
    pub elapsed_us: u64,
    /// VMs that were compared with the node.
    pub checked: u64,
    /// VMs that were not, because something was under way with them.
    pub busy: u64,
    /// What does not agree.
    pub divergences: Vec<Divergence>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CleanupId;

    fn every_kind() -> Vec<DivergenceKind> {
        let id = uuid::Uuid::from_u128(1);
        let name: Name = "a".parse().unwrap();
        let tap = || "rt0-0".to_owned();
        vec![
            DivergenceKind::WorkerMissing,
            DivergenceKind::WorkerUnrecorded {
                pid: 1,
                start_ticks: 2,
            },
            DivergenceKind::ControlSocketMissing,
            DivergenceKind::SocketsLeft,
            DivergenceKind::RunDirectoryUnrecorded,
            DivergenceKind::DisksUnrecorded,
            DivergenceKind::DiskMissing { disk: name.clone() },
            DivergenceKind::TapMissing { tap: tap() },
            DivergenceKind::TapLeft { tap: tap() },
            DivergenceKind::WindowMissing,
            DivergenceKind::WindowLeft,
            DivergenceKind::StateStuck {
                state: "starting".to_owned(),
            },
            DivergenceKind::OperationUnowned {
                operation: OperationId::from_uuid(id),
            },
            DivergenceKind::IncidentUnowned {
                incident: IncidentId::from_uuid(id),
            },
            DivergenceKind::ImageMissing {
                image: Digest::new([0; 32]),
            },
            DivergenceKind::PolicyMissing {
                plugin: name,
                revision: 1,
            },
        ]
    }

    #[test]
    fn every_kind_has_the_name_that_stands_in_json_and_reads_back() {
        let kinds = every_kind();
        let names: Vec<_> = kinds.iter().map(DivergenceKind::name).collect();
        assert_eq!(names, DivergenceKind::NAMES);
        for kind in kinds {
            let name = kind.name();
            let found = Divergence {
                kind,
                vm: None,
                repair: Repair::Cleanup {
                    task: CleanupId::from_uuid(uuid::Uuid::from_u128(3)),
                },
            };
            let json = serde_json::to_value(&found).unwrap();
            assert_eq!(json["divergence"], name);
            assert_eq!(json["repair"], "cleanup");
            assert_eq!(serde_json::from_value::<Divergence>(json).unwrap(), found);
        }
    }
}
