//! What can go wrong on the host's side.

use std::io;
use std::path::PathBuf;

use roost_model::FailureKind;
use rustix::io::Errno;

/// A VM could not be launched. Nothing was left behind.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The run directory can't be made or opened.
    #[error("the run directory {}: {source}", path.display())]
    RunDirectory {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The control socket can't be made.
    #[error("the control socket: {0}")]
    ControlSocket(#[source] io::Error),
    /// The worker process can't be started.
    #[error("starting {}: {source}", executable.display())]
    Spawn {
        /// What was to be started.
        executable: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The worker could not be given its configuration and descriptors.
    #[error("handing the configuration to the worker: {0}")]
    Handover(#[source] io::Error),
    /// The worker could not build the VM.
    #[error("the VM could not be built: {0}")]
    Build(String),
    /// There is not as much memory as the VM needs.
    #[error("there is no memory for the VM: {0}")]
    NoMemory(String),
    /// The worker may not open as many files as the VM needs.
    #[error("there are no descriptors for the VM: {0}")]
    NoDescriptors(String),
    /// The worker ended before it had built the VM.
    #[error("the worker ended ({status}) before it had built the VM{log}")]
    WorkerEnded {
        /// How it ended, such as "signal 9".
        status: String,
        /// What it wrote to its log, after a colon; empty if nothing.
        log: String,
    },
    /// The worker said something that it should not.
    #[error("the worker broke the protocol: {0}")]
    Protocol(String),
    /// The worker took too long.
    #[error("the worker did not build the VM within {0} ms")]
    Timeout(u128),
    /// The host process is shutting down.
    #[error("the host is shutting down")]
    ShuttingDown,
}

impl LaunchError {
    /// A VM that could not be built.
    pub(crate) const fn build(error: String, kind: FailureKind) -> Self {
        match kind {
            FailureKind::NoMemory => Self::NoMemory(error),
            FailureKind::NoDescriptors => Self::NoDescriptors(error),
            _ => Self::Build(error),
        }
    }

    /// What class of failure it is.
    #[must_use]
    pub fn failure_kind(&self) -> FailureKind {
        match self {
            Self::NoMemory(_) => FailureKind::NoMemory,
            Self::NoDescriptors(_) => FailureKind::NoDescriptors,
            Self::RunDirectory { source, .. }
            | Self::ControlSocket(source)
            | Self::Spawn { source, .. }
            | Self::Handover(source) => failure_kind(source),
            _ => FailureKind::Start,
        }
    }
}

/// What class of failure it is that the kernel refused something.
#[must_use]
pub fn failure_kind(error: &io::Error) -> FailureKind {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOMEM) => FailureKind::NoMemory,
        Some(Errno::MFILE | Errno::NFILE) => FailureKind::NoDescriptors,
        _ => FailureKind::Start,
    }
}

/// A worker could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Nothing listens in the run directory, or the process is gone.
    #[error("there is no worker")]
    NoWorker,
    /// What answers is not the worker that was recorded.
    #[error("another process answers: expected {expected}, found {found}")]
    WrongIdentity {
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The worker said something that it should not, or nothing for too long.
    #[error("the worker broke the protocol: {0}")]
    Protocol(String),
    /// The socket or `/proc` could not be read.
    #[error("reaching the worker: {0}")]
    Io(#[from] io::Error),
}

/// A worker process could not be killed.
#[derive(Debug, thiserror::Error)]
pub enum KillError {
    /// The process could not be looked at.
    #[error("looking at process {pid}: {source}")]
    Inspect {
        /// The process.
        pid: u32,
        /// Why not.
        source: io::Error,
    },
    /// The signal could not be sent.
    #[error("killing process {pid}: {source}")]
    Signal {
        /// The process.
        pid: u32,
        /// Why not.
        source: io::Error,
    },
    /// The process is still there.
    #[error("process {pid} did not end within {after_ms} ms of being killed")]
    StillThere {
        /// The process.
        pid: u32,
        /// How long was waited, ms.
        after_ms: u128,
    },
}

/// A VM did not do what it was told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The guest's execution has ended.
    #[error("the guest has ended")]
    GuestEnded,
    /// The VMM refused.
    #[error("{0}")]
    Vm(String),
    /// No answer within the request's deadline.
    #[error("no answer to {request} within {after_ms} ms")]
    Timeout {
        /// What was asked.
        request: &'static str,
        /// How long was waited, ms.
        after_ms: u128,
    },
    /// Too many requests wait for an answer.
    #[error("{0} requests already wait for the worker's answer")]
    Busy(usize),
    /// The connection to the worker was lost, or a newer host process has taken it over.
    #[error("the connection to the worker was lost")]
    Disconnected,
    /// The worker process is gone.
    #[error("the worker is gone")]
    Gone,
    /// The worker does not know the request: it was started by an older host.
    #[error(
        "an older host started it, and it does not know {request}; it will when the VM is rebooted"
    )]
    Unsupported {
        /// What was asked.
        request: &'static str,
    },
    /// The VM has no such console port.
    #[error("{}", no_port(.port, .ports))]
    NoPort {
        /// What was asked for.
        port: String,
        /// What there is. Empty: the VM has no console.
        ports: Vec<String>,
    },
    /// The console port is a stream of bytes, which has no size.
    #[error("console port {0:?} is not a terminal and has no size")]
    NotATerminal(String),
    /// The worker's answer does not belong to the request.
    #[error("the worker broke the protocol: {0}")]
    Protocol(String),
}

impl ControlError {
    /// Whether there is nobody who could answer: the guest or its worker ended, or ends.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        matches!(self, Self::GuestEnded | Self::Disconnected | Self::Gone)
    }
}

fn no_port(port: &str, ports: &[String]) -> String {
    if ports.is_empty() {
        return "the VM has no console; it has a serial port".to_owned();
    }
    format!(
        "there is no console port {port:?}; there are {}",
        ports.join(", ")
    )
}
