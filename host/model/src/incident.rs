//! What goes wrong, and what is left to do about it.

use serde::{Deserialize, Serialize};

use crate::{ActionId, CleanupId, DivergenceKind, GuestExit, IncidentId, VmId};

/// Something that happened to a VM and that nobody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// The incident.
    pub id: IncidentId,
    /// The VM.
    pub vm: VmId,
    /// The incarnation that it happened to.
    pub incarnation: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: IncidentKind,
    /// When it was noticed, ms since the Unix epoch.
    pub at_ms: u64,
    /// What the recovery policy said, once it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<RecoveryAction>,
    /// Whether the decision has been carried out.
    #[serde(default)]
    pub closed: bool,
}

/// Kinds of incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "incident_kind", rename_all = "kebab-case")]
pub enum IncidentKind {
    /// The worker process is gone.
    WorkerExit {
        /// How it ended, such as `signal 9` or `exit status 3`; `unknown` for an adopted one.
        status: String,
    },
    /// The guest ended in a way that no operating system chooses.
    GuestFailure {
        /// How.
        #[serde(flatten)]
        exit: GuestExit,
    },
    /// The guest ended by itself in an orderly way, and its spec says that this is an incident
    /// ([`OnEnd::Recover`](crate::OnEnd)). The VM is stopped and wanted so, unless the decision is
    /// another.
    GuestEnded {
        /// How.
        #[serde(flatten)]
        exit: GuestExit,
    },
    /// A boot that no user asked for has failed.
    StartFailed {
        /// Why.
        error: String,
    },
    /// A worker did not answer for so long that it was killed.
    WorkerHung {
        /// Requests in a row that it did not answer.
        unanswered: u32,
    },
    /// A guest printed nothing in the time that its spec gives it.
    BootStalled {
        /// How long it was given, ms.
        deadline_ms: u64,
    },
    /// A worker is not there, and nothing has told of its end: a host found it so when it
    /// started, or an audit.
    WorkerMissing,
}

/// What is done about an incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum RecoveryAction {
    /// Boot a new incarnation after `delay_ms`.
    Restart {
        /// Delay, ms.
        delay_ms: u64,
    },
    /// Take over what runs.
    Adopt,
    /// The VM stays stopped.
    LeaveStopped,
    /// The VM is marked failed.
    MarkFailed,
    /// The VM is deleted.
    Destroy,
}

/// A resource that must go away.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "resource", rename_all = "kebab-case")]
pub enum Resource {
    /// The process of a worker.
    Worker {
        /// Process id.
        pid: u32,
        /// Start time, clock ticks since boot.
        start_ticks: u64,
    },
    /// A VM's run directory.
    RunDirectory,
    /// A VM's own disks.
    Disks,
}

impl Resource {
    /// Its name, as it stands in JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Worker { .. } => "worker",
            Self::RunDirectory => "run-directory",
            Self::Disks => "disks",
        }
    }
}

/// A durable promise that a resource goes away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanupTask {
    /// The task.
    pub id: CleanupId,
    /// Whose resource.
    pub vm: VmId,
    /// Which.
    #[serde(flatten)]
    pub resource: Resource,
    /// Failed attempts so far.
    pub attempts: u32,
    /// When to try next, ms since the Unix epoch.
    pub due_at_ms: u64,
    /// When the task was made, ms since the Unix epoch.
    pub created_at_ms: u64,
    /// The last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// What a person must do: a cleanup that the policy gave up, or a divergence that the host can't
/// repair by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionRequired {
    /// The record.
    pub id: ActionId,
    /// The VM, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmId>,
    /// The task that was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<CleanupTask>,
    /// The divergence that was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<DivergenceKind>,
    /// What to do, in the policy's words or the host's.
    pub what: String,
    /// ms since the Unix epoch.
    pub at_ms: u64,
}

/// How an action-required record ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "resolution", rename_all = "kebab-case")]
pub enum Resolution {
    /// A person says that it is done, or that nothing is to be done.
    Resolved {
        /// In that person's words.
        note: String,
    },
    /// The task is in the cleanup queue again.
    Retried {
        /// The task.
        task: CleanupId,
    },
    /// An audit no longer finds what it was about.
    Vanished,
}
