//! The backend and its handles as the engine uses them: every effect passes the fault points.
//!
//! A new method of either trait does not compile here until somebody has said which effect it has.

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use roost_model::{Control, Counters, DeviceReport, Effect, GuestExit, VmId};
use roost_worker::{
    AdoptError, Adoption, Backend, ConsoleSize, ControlError, GuestState, HandleEvent, KillError,
    Launch, LaunchError, SerialChunk, VmHandle, WorkerIdentity,
};

use crate::faults::Faults;

/// A backend whose effects are fault points.
pub(crate) struct Node {
    inner: Arc<dyn Backend>,
    faults: Faults,
}

impl Node {
    pub(crate) fn new(inner: Arc<dyn Backend>, faults: Faults) -> Self {
        Self { inner, faults }
    }

    fn guest(&self, inner: Arc<dyn VmHandle>) -> Arc<dyn VmHandle> {
        let faults = self.faults.clone();
        Arc::new(Guest { inner, faults })
    }
}

#[async_trait]
impl Backend for Node {
    /// Its effects are the worker backend's, which has the fault points.
    async fn launch(&self, launch: Launch) -> Result<Arc<dyn VmHandle>, LaunchError> {
        Ok(self.guest(self.inner.launch(launch).await?))
    }

    async fn adopt(&self, adoption: &Adoption) -> Result<Arc<dyn VmHandle>, AdoptError> {
        let adopting = async {
            let handle = self.inner.adopt(adoption).await?;
            if let Some(worker) = handle.identity() {
                self.faults.watch(worker.pid);
            }
            Ok(self.guest(handle))
        };
        self.faults.around(Effect::AdoptWorker, adopting).await
    }

    /// What it makes is gone again when it returns: no effect.
    fn check(&self) -> io::Result<()> {
        self.inner.check()
    }

    async fn kill(&self, worker: WorkerIdentity) -> Result<bool, KillError> {
        let killing = self.inner.kill(worker);
        self.faults.around(Effect::KillWorker, killing).await
    }

    fn is_running(&self, worker: WorkerIdentity) -> io::Result<bool> {
        self.inner.is_running(worker)
    }

    fn workers(&self, run_dirs: &Path) -> io::Result<Vec<(VmId, WorkerIdentity)>> {
        self.inner.workers(run_dirs)
    }
}

/// A handle whose effects are fault points.
struct Guest {
    inner: Arc<dyn VmHandle>,
    faults: Faults,
}

#[async_trait]
impl VmHandle for Guest {
    fn identity(&self) -> Option<WorkerIdentity> {
        self.inner.identity()
    }

    fn state(&self) -> GuestState {
        self.inner.state()
    }

    async fn resume(&self) -> Result<(), ControlError> {
        let resuming = self.inner.resume();
        self.faults.around(Effect::ResumeGuest, resuming).await
    }

    async fn pause(&self) -> Result<(), ControlError> {
        let pausing = self.inner.pause();
        self.faults.around(Effect::PauseGuest, pausing).await
    }

    async fn stop(&self) -> Result<(GuestExit, Counters), ControlError> {
        let stopping = self.inner.stop();
        self.faults.around(Effect::StopGuest, stopping).await
    }

    async fn quit(&self) -> Result<(), ControlError> {
        let quitting = self.inner.quit();
        self.faults.around(Effect::QuitWorker, quitting).await
    }

    async fn counters(&self) -> Result<Counters, ControlError> {
        self.inner.counters().await
    }

    async fn serial_read(&self, from: u64, max: usize) -> Result<SerialChunk, ControlError> {
        self.inner.serial_read(from, max).await
    }

    async fn serial_wait(&self, past: u64) -> Result<u64, ControlError> {
        self.inner.serial_wait(past).await
    }

    /// What a user types is not of the lifecycle.
    async fn serial_write(&self, bytes: &[u8]) -> Result<usize, ControlError> {
        self.inner.serial_write(bytes).await
    }

    async fn console_read(
        &self,
        port: &str,
        from: u64,
        max: usize,
    ) -> Result<SerialChunk, ControlError> {
        self.inner.console_read(port, from, max).await
    }

    async fn console_wait(&self, port: &str, past: u64) -> Result<u64, ControlError> {
        self.inner.console_wait(port, past).await
    }

    async fn console_write(&self, port: &str, bytes: &[u8]) -> Result<usize, ControlError> {
        self.inner.console_write(port, bytes).await
    }

    async fn console_resize(&self, port: &str, size: ConsoleSize) -> Result<(), ControlError> {
        self.inner.console_resize(port, size).await
    }

    /// Limits and the balloon's target are not of the lifecycle: they end with the incarnation.
    async fn control(&self, control: Control) -> Result<(), ControlError> {
        let is_button = matches!(control, Control::Press { .. });
        let controlling = self.inner.control(control);
        if is_button {
            return self.faults.around(Effect::PressButton, controlling).await;
        }
        controlling.await
    }

    async fn devices(&self) -> Result<DeviceReport, ControlError> {
        self.inner.devices().await
    }

    async fn next_event(&self) -> HandleEvent {
        self.inner.next_event().await
    }

    async fn acknowledge(&self, sequence: u64) -> Result<(), ControlError> {
        let acknowledging = self.inner.acknowledge(sequence);
        self.faults.around(Effect::Acknowledge, acknowledging).await
    }
}
