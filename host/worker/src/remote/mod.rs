//! The host's side of workers: starts them, adopts them, speaks to them.
//!
//! Each handle has one task that owns the connection. It forwards requests, hands responses to
//! whoever waits for them, and events to the handle's one consumer. When the connection ends, the
//! process tells what that means: gone, taken over by another host, or a worker that dropped a
//! connection and gets another.

mod adopt;
mod conversation;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod greeting;
mod handle;
mod launch;
mod link;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use roost_model::VmId;

use crate::backend::{Adoption, Backend, Launch, VmHandle};
use crate::error::{AdoptError, KillError, LaunchError};
use crate::probe::Probe;
use crate::process::{self, WorkerIdentity};

#[cfg(any(test, fuzzing))]
pub(crate) use fuzz::Worker;

/// One worker process for each VM.
#[derive(Debug)]
pub struct WorkerBackend {
    executable: PathBuf,
    kvm: Arc<File>,
    probe: Arc<dyn Probe>,
}

impl WorkerBackend {
    /// A backend that starts `executable vm-worker`, which must call [`run_worker`] first thing,
    /// and gives it `kvm`, an open `/dev/kvm`. `/proc/self/exe` is this very program, even after
    /// its file was replaced.
    ///
    /// [`run_worker`]: crate::run_worker
    #[must_use]
    pub fn new(executable: PathBuf, kvm: File) -> Self {
        Self {
            executable,
            kvm: Arc::new(kvm),
            probe: Arc::new(()),
        }
    }

    /// The same backend, telling `probe` of what a launch does to the node.
    #[must_use]
    pub fn probed(self, probe: Arc<dyn Probe>) -> Self {
        Self { probe, ..self }
    }
}

#[async_trait]
impl Backend for WorkerBackend {
    async fn launch(&self, launch: Launch) -> Result<Arc<dyn VmHandle>, LaunchError> {
        let starter = launch::Starter {
            executable: self.executable.clone(),
            kvm: Arc::clone(&self.kvm),
            probe: Arc::clone(&self.probe),
        };
        starter.launch(launch).await
    }

    async fn adopt(&self, adoption: &Adoption) -> Result<Arc<dyn VmHandle>, AdoptError> {
        adopt::adopt(adoption).await
    }

    fn check(&self) -> io::Result<()> {
        roost_vmm::check_kvm(&self.kvm).map_err(io::Error::other)
    }

    async fn kill(&self, worker: WorkerIdentity) -> Result<bool, KillError> {
        process::kill(worker).await
    }
    fn is_running(&self, worker: WorkerIdentity) -> io::Result<bool> {
        process::is_running(worker)
    }

    fn workers(&self, run_dirs: &Path) -> io::Result<Vec<(VmId, WorkerIdentity)>> {
        process::workers(run_dirs)
    }
}
