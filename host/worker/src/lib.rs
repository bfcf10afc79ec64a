//! The process around one VM, and the protocol by which its host controls it.
//!
//! ```text
//!   host process                                worker process (one per VM)
//!   ────────────                                ──────────────────────────
//!   Backend::launch ── config, descriptors ──▶  run_worker: builds the VM, paused
//!   dyn VmHandle   ◀── control.sock, frames ──▶ one event loop around roost_vmm::Vm
//! ```
//!
//! The host sees a [`Backend`] that makes [`VmHandle`]s. [`WorkerBackend`] starts a process for
//! each VM and can adopt one that an earlier host process started; [`InProcessBackend`] runs
//! guests on threads of this process, for tests and for embedding where guests are trusted.
//!
//! Who owns what: the worker process owns the guest and what is known about it (its exit, its
//! counters, the tail of its output) until the host has acknowledged it and told the worker to
//! quit. The host owns nothing that it could not learn again by connecting: dropping a handle
//! leaves the worker as it is.
//!
//! This crate knows no database, no policy and no HTTP. The worker runs with standard threads
//! only; what the host needs runs on tokio.
//!
//! ```no_run
//! # async fn example(launch: roost_worker::Launch) -> Result<(), Box<dyn std::error::Error>> {
//! use roost_worker::{Backend, WorkerBackend};
//! let kvm = std::fs::File::options().read(true).write(true).open("/dev/kvm")?;
//! let backend = WorkerBackend::new("/proc/self/exe".into(), kvm);
//! let handle = backend.launch(launch).await?;
//! handle.resume().await?;
//! # Ok(()) }
//! ```
#![deny(unsafe_code)]

mod backend;
mod bootstrap;
mod child;
mod devices;
mod error;
mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod guest;
mod in_process;
mod limits;
mod probe;
mod process;
mod protocol;
mod readiness;
mod remote;
mod run_dir;
pub mod tap;

pub use backend::{Adoption, Backend, GuestState, HandleEvent, Launch, VmHandle};
pub use child::{WorkerError, run_worker};
pub use devices::{Devices, Disk, DiskBacking, Machine, Network, VSOCK_SOCKET, Vsock};
pub use error::{AdoptError, ControlError, KillError, LaunchError, failure_kind};
pub use in_process::InProcessBackend;
pub use probe::Probe;
pub use process::WorkerIdentity;
pub use remote::WorkerBackend;
pub use roost_vmm::{
    BaseName, ConsoleSize, DiskError, DiskFormat, InitrdError, KernelError, KernelInfo,
    SerialChunk, check_initrd, check_kvm, create_qcow2, disk_bytes, inspect_kernel,
};
pub use run_dir::{has_control_socket, has_sockets, listen_vsock, remove_sockets};
