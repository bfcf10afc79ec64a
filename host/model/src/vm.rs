//! What the host keeps about a VM.

use serde::{Deserialize, Serialize};

use crate::devices::is_false;
use crate::{DesiredState, Digest, MacAddress, VmId, VmSpec, VmState};

/// A VM as the store keeps it and the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRecord {
    /// The VM.
    pub id: VmId,
    /// What the user asked for, as admitted.
    pub spec: VmSpec,
    /// The kernel that `spec.kernel` named when the VM was created.
    pub kernel: Digest,
    /// The initial RAM disk that `spec.initrd` named when the VM was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<Digest>,
    /// The images that `spec.disks` named when the VM was created, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disk_images: Vec<Option<Digest>>,
    /// Whether the VM's own disks were made: from the first boot on.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disks_made: bool,
    /// The addresses of `spec.networks`, in their order; no other VM has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<MacAddress>,
    /// The context id of its vsock device; no other VM has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock_cid: Option<u32>,
    /// What the user last asked for.
    pub desired: DesiredState,
    /// What the host observed last.
    #[serde(flatten)]
    pub state: VmState,
    /// Number of boots so far; 0 before the first.
    pub incarnation: u64,
    /// Counts changes of this record; compare-and-set is on it.
    pub revision: u64,
    /// The process around the guest, while there is one or may be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerRecord>,
    /// When the vCPUs of the incarnation first ran, ms since the Unix epoch; absent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_since_ms: Option<u64>,
    /// Restarts by the recovery policy since a user's last boot, or since an incarnation ran for
    /// long enough that the trouble before it counts as over.
    #[serde(default)]
    pub recovery_attempts: u32,
    /// ms since the Unix epoch.
    pub created_at_ms: u64,
    /// ms since the Unix epoch.
    pub updated_at_ms: u64,
}

/// Which process is a VM's worker, provably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// The incarnation that it runs.
    pub incarnation: u64,
    /// A secret of this incarnation, 32 hexadecimal digits: whoever knows it is our worker or us.
    pub nonce: String,
    /// Process id; absent between the intent to start a worker and its outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Start time in clock ticks since boot: field 22 of `/proc/<pid>/stat`. With the pid it
    /// names a process for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ticks: Option<u64>,
}
