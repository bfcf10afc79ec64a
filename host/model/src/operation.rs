//! Operations: one verb on one VM, as a journal of steps.

use serde::{Deserialize, Serialize};

use crate::{Grace, OperationId, Verb, VmId};

/// A verb under way or done. It is journaled: each step's intent is durable before its effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The operation.
    pub id: OperationId,
    /// The VM that it is about.
    pub vm: VmId,
    /// What is being done.
    pub verb: Verb,
    /// Who wants it.
    #[serde(default, skip_serializing_if = "Origin::is_user")]
    pub origin: Origin,
    /// How the guest is given time to end by itself, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Grace>,
    /// How far it is.
    #[serde(flatten)]
    pub state: OperationState,
    /// The steps so far, in order.
    pub steps: Vec<StepRecord>,
    /// ms since the Unix epoch.
    pub created_at_ms: u64,
    /// ms since the Unix epoch.
    pub updated_at_ms: u64,
}

impl Operation {
    /// Whether nothing more will happen.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        !matches!(self.state, OperationState::Running)
    }
}

/// Who wants an operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A user: if it fails, the user is told, and it is not tried again.
    #[default]
    User,
    /// A recovery policy: if it fails, that is an incident.
    Recovery,
    /// The guest, which reset itself and is booted again: if it fails, that is an incident.
    Guest,
    /// The node, which drains: the VM stays stopped afterwards.
    Drain,
    /// The host, which ends with its VMs and boots them again when it starts: if a boot fails, that
    /// is an incident.
    Host,
}

impl Origin {
    /// Whether a user wants it.
    #[must_use]
    pub const fn is_user(&self) -> bool {
        matches!(self, Self::User)
    }
}

/// How far an operation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum OperationState {
    /// Steps are being taken.
    Running,
    /// The VM reached what the verb leads to.
    Succeeded,
    /// The verb failed and what it had done is undone or handed to cleanup.
    Failed {
        /// One sentence for a person.
        error: String,
    },
}

/// One step in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// What is done.
    pub step: Step,
    /// How far it is.
    pub state: StepState,
    /// When this state was written, ms since the Unix epoch.
    pub at_ms: u64,
}

/// The steps that operations are made of. Each is idempotent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Ask the admission policy.
    Admit,
    /// Make the run directory, start the worker, have it build the VM.
    StartWorker,
    /// Let the vCPUs run.
    RunVcpus,
    /// Stop the vCPUs and keep the guest.
    PauseVcpus,
    /// Stop the guest and its worker, take the last counters.
    StopWorker,
    /// Remove the run directory.
    RemoveRunDirectory,
    /// Remove the VM's own disks.
    RemoveDisks,
    /// Remove the record.
    RemoveRecord,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum StepState {
    Intended,
    Done,
    Failed,
}
