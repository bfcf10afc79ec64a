//! States, verbs, and how a guest or a VM ends.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the user last asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum DesiredState {
    Running,
    Paused,
    Stopped,
    Deleted,
}

/// What the host observed last. JSON: `{"state": "running"}`; a failure adds `"failure"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum VmState {
    /// The record exists; what the VM owns is being made.
    Creating,
    /// No worker.
    Stopped,
    /// A worker is being started.
    Starting,
    /// The vCPUs run.
    Running,
    /// Between running and paused.
    Pausing,
    /// The vCPUs are stopped and the guest's memory is kept.
    Paused,
    /// Between paused and running.
    Resuming,
    /// The worker is being stopped.
    Stopping,
    /// The VM ended in a way that nobody asked for.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// What the VM owns is being removed.
    Deleting,
    /// Nothing is left; only in answers and events, never in the store.
    Deleted,
}

impl VmState {
    /// The state's name as it stands in JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Resuming => "resuming",
            Self::Stopping => "stopping",
            Self::Failed { .. } => "failed",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
        }
    }

    /// Whether a worker process belongs to this state.
    #[must_use]
    pub const fn has_worker(&self) -> bool {
        matches!(
            self,
            Self::Starting
                | Self::Running
                | Self::Pausing
                | Self::Paused
                | Self::Resuming
                | Self::Stopping
        )
    }
}

impl fmt::Display for VmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a VM is in [`VmState::Failed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The class of the failure.
    pub kind: FailureKind,
    /// One sentence for a person.
    pub detail: String,
}

/// Classes of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The worker could not be started or could not build the VM.
    Start,
    /// There was not as much memory as the VM needs.
    NoMemory,
    /// The host, or the worker, may not open as many files as the VM needs.
    NoDescriptors,
    /// The worker process ended without being asked to.
    WorkerExit,
    /// The guest ended in a way that no operating system chooses.
    Guest,
    /// The recovery policy gave the VM up.
    Recovery,
}

/// How a guest's execution ended, as its worker saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "exit", rename_all = "kebab-case")]
pub enum GuestExit {
    /// The guest reset the machine (i8042 pulse, or the reset control port 0xCF9).
    Reset,
    /// Every vCPU halted with interrupts off: nothing can wake it.
    Halt,
    /// `KVM_EXIT_SHUTDOWN`: on x86 a triple fault.
    TripleFault,
    /// `KVM_EXIT_INTERNAL_ERROR`: KVM could not go on.
    InternalError {
        /// `kvm_run.internal.suberror`.
        suberror: u32,
    },
    /// `KVM_EXIT_FAIL_ENTRY`: the CPU refused to enter the guest.
    FailedEntry {
        /// `hardware_entry_failure_reason`.
        reason: u64,
    },
    /// Anything else that a vCPU can't go on from, such as an error of `KVM_RUN`.
    Unexpected {
        /// What it was.
        detail: String,
    },
    /// The guest powered the machine off (ACPI sleep state S5).
    PowerOff,
    /// The guest's kernel gave up and said so (the pvpanic device).
    Panic {
        /// What it did about it.
        panic_kind: PanicKind,
    },
    /// The host asked for it.
    Stopped,
}

/// What a guest's kernel did when it panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PanicKind {
    /// It stopped there.
    Panicked,
    /// It started a crash kernel to save its memory; the guest ended when that was done.
    CrashLoaded,
}

impl GuestExit {
    /// Whether the guest or the host chose this end: no incident follows.
    #[must_use]
    pub const fn is_orderly(&self) -> bool {
        matches!(
            self,
            Self::Reset | Self::Halt | Self::PowerOff | Self::Stopped
        )
    }
}

impl fmt::Display for GuestExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset => f.write_str("the guest reset the machine"),
            Self::Halt => f.write_str("the guest halted for good"),
            Self::TripleFault => f.write_str("triple fault"),
            Self::InternalError { suberror } => write!(f, "KVM internal error {suberror}"),
            Self::FailedEntry { reason } => write!(f, "guest entry failed ({reason:#x})"),
            Self::Unexpected { detail } => f.write_str(detail),
            Self::PowerOff => f.write_str("the guest powered the machine off"),
            Self::Panic { panic_kind } => match panic_kind {
                PanicKind::Panicked => f.write_str("the guest's kernel panicked"),
                PanicKind::CrashLoaded => {
                    f.write_str("the guest's kernel panicked and ran its crash kernel")
                }
            },
            Self::Stopped => f.write_str("stopped by the host"),
        }
    }
}

/// What can be asked of a VM that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Verb {
    Create,
    Boot,
    Shutdown,
    Pause,
    Resume,
    Reboot,
    Delete,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 7] = [
        Self::Create,
        Self::Boot,
        Self::Shutdown,
        Self::Pause,
        Self::Resume,
        Self::Reboot,
        Self::Delete,
    ];

    /// The verb as it stands in JSON and in URLs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Boot => "boot",
            Self::Shutdown => "shutdown",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Reboot => "reboot",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EventKind, IncidentKind};

    #[test]
    fn a_power_off_is_the_guests_own_end_and_a_panic_is_an_incident() {
        assert!(GuestExit::PowerOff.is_orderly());
        for panic_kind in [PanicKind::Panicked, PanicKind::CrashLoaded] {
            assert!(!GuestExit::Panic { panic_kind }.is_orderly());
        }
    }

    #[test]
    fn a_panic_keeps_its_kind_inside_of_events_and_incidents() {
        let panic_kind = PanicKind::CrashLoaded;
        let exit = GuestExit::Panic { panic_kind };
        let event = EventKind::GuestExited { exit: exit.clone() };
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(
            (&json["exit"], &json["panic_kind"]),
            (&"panic".into(), &"crash-loaded".into())
        );
        assert_eq!(serde_json::from_value::<EventKind>(json).unwrap(), event);
        let incident = IncidentKind::GuestFailure { exit };
        let json = serde_json::to_value(&incident).unwrap();
        assert_eq!(json["incident_kind"], "guest-failure");
        assert_eq!(
            serde_json::from_value::<IncidentKind>(json).unwrap(),
            incident
        );
    }
}
