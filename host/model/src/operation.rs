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
    /// When it may begin, ms since the Unix epoch: a recovery policy's delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before_ms: Option<u64>,
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
        !matches!(self.state, OperationState::Queued | OperationState::Running)
    }

    /// What it is doing now, unless it is done.
    #[must_use]
    pub fn doing(&self) -> Option<Doing> {
        let (what, since_ms) = match &self.state {
            OperationState::Queued if self.not_before_ms.is_some() => {
                ("waiting until it is due", self.created_at_ms)
            }
            OperationState::Queued => ("waiting for its turn", self.created_at_ms),
            OperationState::Running => match self.steps.last() {
                Some(last) => (last.step.doing(), last.at_ms),
                None => ("beginning", self.updated_at_ms),
            },
            _ => return None,
        };
        Some(Doing { what, since_ms })
    }
}

/// What an operation is doing, for a person who waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doing {
    /// In words.
    pub what: &'static str,
    /// Since when, ms since the Unix epoch.
    pub since_ms: u64,
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
    /// It is accepted and waits for its turn.
    Queued,
    /// Steps are being taken.
    Running,
    /// The VM reached what the verb leads to.
    Succeeded,
    /// The verb failed and what it had done is undone or handed to cleanup.
    Failed {
        /// One sentence for a person.
        error: String,
    },
    /// It was called off, and what it had done is undone.
    Cancelled {
        /// One sentence for a person.
        reason: String,
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
    /// Tell the guest to end by itself, and give it time.
    WaitForGuest,
    /// Stop the guest and its worker, take the last counters.
    StopWorker,
    /// Remove the run directory.
    RemoveRunDirectory,
    /// Remove the VM's own disks.
    RemoveDisks,
    /// Remove the record.
    RemoveRecord,
}

impl Step {
    /// What is being done, in words.
    #[must_use]
    pub const fn doing(self) -> &'static str {
        match self {
            Self::Admit => "asking the admission policy",
            Self::StartWorker => "starting the worker",
            Self::RunVcpus => "letting the vCPUs run",
            Self::PauseVcpus => "holding the vCPUs",
            Self::WaitForGuest => "waiting for the guest to end by itself",
            Self::StopWorker => "stopping the guest and its worker",
            Self::RemoveRunDirectory => "removing the run directory",
            Self::RemoveDisks => "removing the disks",
            Self::RemoveRecord => "removing the record",
        }
    }
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum StepState {
    Intended,
    Done,
    Failed,
    Undone,
}
