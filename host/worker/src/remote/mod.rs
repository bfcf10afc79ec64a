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
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use crate::backend::{Adoption, Backend, Launch, VmHandle};
use crate::error::{AdoptError, KillError, LaunchError};
use crate::process::{self, WorkerIdentity};

#[cfg(any(test, fuzzing))]
pub(crate) use fuzz::Worker;

/// One worker process for each VM.
#[derive(Debug)]
pub struct WorkerBackend {
    executable: PathBuf,
    kvm: Arc<File>,
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
        }
    }
}

#[async_trait]
impl Backend for WorkerBackend {
    async fn launch(&self, launch: Launch) -> Result<Arc<dyn VmHandle>, LaunchError> {
        launch::launch(self.executable.clone(), Arc::clone(&self.kvm), launch).await
    }

    async fn adopt(&self, adoption: &Adoption) -> Result<Arc<dyn VmHandle>, AdoptError> {
        adopt::adopt(adoption).await
    }

    async fn kill(&self, worker: WorkerIdentity) -> Result<bool, KillError> {
        process::kill(worker).await
    }
}
