//! Every effect of the engine, and faults that tests inject before and after each.
//!
//! An [`Effect`] is either a commit to the store or something that changes the node outside of it.
//! The engine takes each through one function, which stops there when a fault is armed; so this
//! enumeration is the list of the points at which a host can die with a difference.
//! `cargo xtask crash-matrix` lets it die at every one of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! effects {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// Something that the engine does and that outlives its process.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Effect {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl Effect {
            /// Every effect.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name in faults and traces.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

effects! {
    // Commits.
    /// A host process has begun.
    WriteHostStarted = "write-host-started";
    /// The node drains, or does not any more.
    WriteDrain = "write-drain";
    /// What an audit found, and what is done about it.
    WriteDivergence = "write-divergence";
    /// A VM's record, made.
    WriteCreated = "write-created";
    /// An admission policy's denial.
    WriteDenied = "write-denied";
    /// An operation begins that was asked for.
    WriteRequested = "write-requested";
    /// An operation that was asked for waits for its turn.
    WriteQueued = "write-queued";
    /// An operation whose turn came can't begin.
    WriteRefused = "write-refused";
    /// An operation that waited is called off.
    WriteCancelled = "write-cancelled";
    /// An operation begins that recovery asked for, or a host's start.
    WriteRestart = "write-restart";
    /// The intent to start a worker.
    WriteStarting = "write-starting";
    /// The worker's identity, and the intent to let its vCPUs run.
    WriteStarted = "write-started";
    /// The vCPUs run: the end of boot, resume and reboot.
    WriteRunning = "write-running";
    /// A boot that failed and is undone.
    WriteBootFailed = "write-boot-failed";
    /// A boot that was called off and is undone.
    WriteBootCancelled = "write-boot-cancelled";
    /// The intent to pause.
    WritePausing = "write-pausing";
    /// The end of a pause.
    WritePaused = "write-paused";
    /// The intent to resume.
    WriteResuming = "write-resuming";
    /// The intent to stop the worker.
    WriteStopping = "write-stopping";
    /// A guest ended in the time that it was given, or the time is over.
    WriteGraceOver = "write-grace-over";
    /// A shutdown or reboot was called off in that time: the guest runs on.
    WriteStopCancelled = "write-stop-cancelled";
    /// The last usage window of an incarnation.
    WriteLastWindow = "write-last-window";
    /// The end of a shutdown.
    WriteStopped = "write-stopped";
    /// The intent to remove the run directory.
    WriteRemovingRunDirectory = "write-removing-run-directory";
    /// The intent to remove the disks.
    WriteRemovingDisks = "write-removing-disks";
    /// The record's removal, with everything that it leased.
    WriteDeleted = "write-deleted";
    /// A worker that does not die becomes a cleanup task.
    WriteWorkerCleanup = "write-worker-cleanup";
    /// A guest's own end.
    WriteGuestExit = "write-guest-exit";
    /// A guest printed nothing in the time that it was given: an incident.
    WriteStalled = "write-stalled";
    /// The worker of a guest that ended by itself is gone.
    WriteExitFinished = "write-exit-finished";
    /// A worker is lost: an incident.
    WriteWorkerLost = "write-worker-lost";
    /// What a recovery policy decided.
    WriteRecovery = "write-recovery";
    /// A worker was taken over.
    WriteAdopted = "write-adopted";
    /// An operation that can't be finished is ended as failed.
    WriteInterrupted = "write-interrupted";
    /// Counters of an open window.
    WriteCounters = "write-counters";
    /// A window that the grid closed.
    WriteWindow = "write-window";
    /// Charges, and windows leaving the outbox.
    WriteCharges = "write-charges";
    /// A cleanup task is done.
    WriteCleaned = "write-cleaned";
    /// When a cleanup is tried again, or that a person must act.
    WriteCleanupVerdict = "write-cleanup-verdict";

    /// What a person decided about a cleanup.
    WriteRepair = "write-repair";

    // Effects on the node.
    /// The file of a disk is made.
    MakeDisk = "make-disk";
    /// A TAP is made and connected.
    MakeTap = "make-tap";
    /// The socket of the vsock device is made, and the run directory if need be.
    MakeVsock = "make-vsock";
    /// A worker that still listens in the run directory is killed.
    EvictWorker = "evict-worker";
    /// The run directory and the control socket are made.
    MakeRunDirectory = "make-run-directory";
    /// The worker process is started.
    SpawnWorker = "spawn-worker";
    /// The worker is given its configuration and descriptors.
    HandOver = "hand-over";
    /// The worker builds the VM and says so.
    BuildVm = "build-vm";
    /// A worker of an earlier host process is taken over.
    AdoptWorker = "adopt-worker";
    /// The vCPUs are let run.
    ResumeGuest = "resume-guest";
    /// The vCPUs are held.
    PauseGuest = "pause-guest";
    /// A button of the guest is pressed.
    PressButton = "press-button";
    /// The guest is stopped.
    StopGuest = "stop-guest";
    /// An event of the worker is acknowledged.
    Acknowledge = "acknowledge";
    /// The worker is told to end.
    QuitWorker = "quit-worker";
    /// The worker is killed.
    KillWorker = "kill-worker";
    /// Serial output is kept.
    KeepLog = "keep-log";
    /// Serial output of an earlier incarnation is removed.
    ForgetLog = "forget-log";
    /// Sockets of a worker that is gone are removed.
    RemoveSockets = "remove-sockets";
    /// A TAP of a VM that does not run is removed.
    RemoveTap = "remove-tap";
    /// The run directory is removed.
    RemoveRunDirectory = "remove-run-directory";
    /// The disks are removed.
    RemoveDisks = "remove-disks";
}

impl Effect {
    /// Whether it is a commit to the store.
    #[must_use]
    pub fn is_commit(self) -> bool {
        self.name().starts_with("write-")
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which side of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Moment {
    Before,
    After,
}

impl Moment {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Before, Self::After];

    /// Its name in faults and traces.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
        }
    }
}

/// A place in the engine's work: `<effect>:<before|after>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FaultPoint {
    /// The effect.
    pub effect: Effect,
    /// Which side of it.
    pub moment: Moment,
}

impl FaultPoint {
    /// Every point.
    pub fn all() -> impl Iterator<Item = Self> {
        Effect::ALL.iter().flat_map(|effect| {
            Moment::ALL.map(|moment| Self {
                effect: *effect,
                moment,
            })
        })
    }
}

impl fmt::Display for FaultPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.effect.name(), self.moment.name())
    }
}

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Victim {
    /// The host process.
    Host,
    /// Every worker that this host process has started or taken over.
    Worker,
    /// The workers, then the host process.
    Both,
}

impl Victim {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Host, Self::Worker, Self::Both];

    /// Its name in faults.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Worker => "worker",
            Self::Both => "both",
        }
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A fault to be injected: `<effect>:<before|after>[:<n>]=<host|worker|both>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub point: FaultPoint,
    /// The how manieth time that the host process comes there, from 1.
    pub time: u32,
    /// Who dies.
    pub victim: Victim,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            point,
            time,
            victim,
        } = self;
        write!(f, "{point}:{time}={victim}")
    }
}

/// Text that is no fault or no point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no fault: expected <effect>:<before|after>[:<n>]=<host|worker|both>")]
pub struct InvalidFault(String);

impl FromStr for FaultPoint {
    type Err = InvalidFault;

    fn from_str(text: &str) -> Result<Self, InvalidFault> {
        let invalid = || InvalidFault(text.to_owned());
        let (effect, moment) = text.split_once(':').ok_or_else(invalid)?;
        let effect = Effect::ALL.iter().find(|known| known.name() == effect);
        let moment = Moment::ALL.into_iter().find(|known| known.name() == moment);
        Ok(Self {
            effect: *effect.ok_or_else(invalid)?,
            moment: moment.ok_or_else(invalid)?,
        })
    }
}

impl FromStr for Fault {
    type Err = InvalidFault;

    fn from_str(text: &str) -> Result<Self, InvalidFault> {
        let invalid = || InvalidFault(text.to_owned());
        let (at, victim) = text.split_once('=').ok_or_else(invalid)?;
        let (point, time) = match at.rsplit_once(':') {
            Some((point, time)) if point.contains(':') => {
                (point, time.parse().map_err(|_| invalid())?)
            }
            _ => (at, 1),
        };
        let victim = Victim::ALL.into_iter().find(|known| known.name() == victim);
        Ok(Self {
            point: point.parse().map_err(|_| invalid())?,
            time: Some(time).filter(|time| *time > 0).ok_or_else(invalid)?,
            victim: victim.ok_or_else(invalid)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_back_as_it_was_written() {
        for point in FaultPoint::all() {
            for victim in Victim::ALL {
                let fault = Fault {
                    point,
                    time: 3,
                    victim,
                };
                assert_eq!(fault.to_string().parse(), Ok(fault));
            }
        }
        let first: Fault = "spawn-worker:after=host".parse().unwrap();
        assert_eq!(first.time, 1);
    }

    #[test]
    fn names_of_effects_differ() {
        let mut names: Vec<_> = Effect::ALL.iter().map(|effect| effect.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Effect::ALL.len());
    }

    #[test]
    fn what_is_no_fault_is_refused() {
        for text in [
            "",
            "spawn-worker",
            "spawn-worker=host",
            "spawn-worker:after:0=host",
            "spawn-worker:after:x=host",
            "spawn-worker:during=host",
            "spawn-worker:after=nobody",
            "no-effect:after=host",
        ] {
            assert!(text.parse::<Fault>().is_err(), "{text:?}");
        }
    }
}
