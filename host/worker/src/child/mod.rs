//! The worker process: one guest, and one event loop that serves whoever may control it.
//!
//! ```text
//!   start: own session, no new privileges, stray descriptors closed
//!     │ configuration and descriptors over standard input
//!     ▼
//!   build the VM ──fails──▶ tell the next host why, end
//!     │ paused
//!     ▼
//!   serve ◀──── connections of the host; a newer one replaces the older
//!     │ guest ends: its end is kept and told until acknowledged; the VM is torn down
//!     │ quit
//!     ▼
//!   end
//! ```

mod connection;
mod console;
mod detach;
mod event_loop;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod worker;

use std::io;

use roost_model::FailureKind;
use roost_vmm::{BuildError, Vm, VmConfig};

use crate::bootstrap::{self, BootstrapError, Descriptors};
use crate::error::failure_kind;
use crate::guest::Guest;
use event_loop::EventLoop;
#[cfg(any(test, fuzzing))]
pub(crate) use fuzz::Peers;
use worker::{Subject, Worker};

/// Why a worker ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The process could not be set up.
    #[error("setting the worker process up: {0}")]
    Setup(#[source] io::Error),
    /// The configuration did not arrive.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The VM could not be built; the host was told, or did not ask for a minute.
    #[error("the VM could not be built: {0}")]
    Build(#[from] BuildError),
    /// The control socket or the event loop broke.
    #[error("the control socket: {0}")]
    Control(#[source] io::Error),
}

/// Runs a worker in this process until it is told to quit. It must be the first thing that the
/// process does, and is all that it does: every descriptor beyond the standard ones is closed.
///
/// # Errors
/// [`WorkerError`] says why it ended without being told to.
pub fn run_worker() -> Result<(), WorkerError> {
    detach::detach().map_err(WorkerError::Setup)?;
    let (config, descriptors) = bootstrap::receive(std::io::stdin())?;
    detach::release_stdin().map_err(WorkerError::Setup)?;
    let Descriptors {
        control,
        kvm,
        kernel,
        initrd,
        devices,
    } = descriptors;
    // Listening again makes this process the one that the socket's peers see as its owner.
    rustix::net::listen(&control, LISTEN_BACKLOG)
        .map_err(|error| WorkerError::Setup(error.into()))?;
    let built = Vm::build(
        kvm,
        VmConfig {
            vcpus: config.vcpus,
            memory_bytes: config.memory_bytes,
            cmdline: config.cmdline,
            kernel,
            initrd,
            devices: devices.into(),
            machine: config.machine.options(),
        },
    );
    let (subject, failure) = match built {
        Ok(vm) => {
            config.machine.apply(&vm);
            (Subject::Guest(Guest::new(vm)), None)
        }
        Err(error) => {
            let kind = error.io_error().map_or(FailureKind::Start, failure_kind);
            (Subject::BuildFailed(error.to_string(), kind), Some(error))
        }
    };
    let worker = Worker::new(config.vm, config.incarnation, config.nonce, subject);
    EventLoop::new(control, worker)
        .and_then(EventLoop::run)
        .map_err(WorkerError::Control)?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}

/// Connections that may wait to be accepted; more are refused by the kernel.
const LISTEN_BACKLOG: i32 = 16;
