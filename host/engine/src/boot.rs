//! Boot, pause and resume: everything that lets vCPUs run or holds them.

use roost_model::{
    DesiredState, Effect, EventKind, Failure, FailureKind, IncidentKind, Operation, Origin, Step,
    StepState, VmState, WindowClose, WorkerRecord,
};
use roost_store::CommitError;
use roost_worker::{Backend as _, ControlError, Launch, Machine};
use uuid::Uuid;

use crate::actor::Actor;
use crate::error::EngineError;
use crate::journal::{ON_REQUEST, intend, outcome};

impl Actor {
    /// Boots a new incarnation. `attempts` is how often recovery has done so since a user did.
    pub(crate) async fn boot(
        &mut self,
        operation: &mut Operation,
        attempts: u32,
    ) -> Result<(), CommitError> {
        let context = self.context.clone();
        let mut draft = self.draft();
        draft.record.incarnation += 1;
        draft.record.running_since_ms = None;
        draft.record.desired = DesiredState::Running;
        draft.record.recovery_attempts = attempts;
        draft.record.worker = Some(WorkerRecord {
            incarnation: draft.record.incarnation,
            nonce: Uuid::new_v4().simple().to_string(),
            pid: None,
            start_ticks: None,
        });
        draft.state(&context, VmState::Starting);
        intend(&context, operation, Step::StartWorker);
        draft.operation(operation);
        self.commit(Effect::WriteStarting, draft).await?;
        self.start_worker(operation).await
    }

    /// The step *start worker*, its intent being durable.
    pub(crate) async fn start_worker(
        &mut self,
        operation: &mut Operation,
    ) -> Result<(), CommitError> {
        if self.signals.is_cancelled() {
            return self.boot_cancelled(operation).await;
        }
        let launch = match self.launch().await {
            Ok(launch) => launch,
            Err(error) => {
                let kind = error.failure_kind();
                return self.boot_failed(operation, kind, error.to_string()).await;
            }
        };
        self.context.forget_log(self.record.id).await;
        match self.context.backend.launch(launch).await {
            Ok(handle) => {
                self.attach(handle);
                self.worker_started(operation).await
            }
            Err(error) => {
                let kind = error.failure_kind();
                self.boot_failed(operation, kind, error.to_string()).await
            }
        }
    }

    async fn launch(&self) -> Result<Launch, EngineError> {
        let record = &self.record;
        let nonce = record
            .worker
            .as_ref()
            .map(|w| w.nonce.clone())
            .unwrap_or_default();
        let blobs = &self.context.blobs;
        Ok(Launch {
            vm: record.id,
            incarnation: record.incarnation,
            nonce,
            run_dir: self.context.run_dir(record.id),
            vcpus: record.spec.vcpus,
            memory_bytes: record.spec.memory_bytes(),
            cmdline: record.spec.cmdline.clone(),
            kernel: blobs.get(&record.kernel)?,
            initrd: record
                .initrd
                .as_ref()
                .map(|digest| blobs.get(digest))
                .transpose()?,
            devices: self.context.open_devices(record).await?,
            machine: Machine {
                cpu_template: record.spec.cpu_template,
                memory_backing: record.spec.memory_backing,
                serial_limit: record.spec.serial_limit,
            },
        })
    }

    /// Writes down which process the worker is, then lets the guest run.
    pub(crate) async fn worker_started(
        &mut self,
        operation: &mut Operation,
    ) -> Result<(), CommitError> {
        let context = self.context.clone();
        let identity = self.handle.as_ref().and_then(|handle| handle.identity());
        let mut draft = self.draft();
        draft.record.disks_made = !draft.record.spec.disks.is_empty();
        if let (Some(worker), Some(identity)) = (&mut draft.record.worker, identity) {
            worker.pid = Some(identity.pid);
            worker.start_ticks = Some(identity.start_ticks);
        }
        outcome(&context, operation, StepState::Done);
        intend(&context, operation, Step::RunVcpus);
        draft.operation(operation);
        if let Some(identity) = identity {
            draft.event(&context, EventKind::WorkerStarted { pid: identity.pid });
        }
        self.commit(Effect::WriteStarted, draft).await?;
        // A guest that runs is no longer undone, but shut down.
        if self.signals.close() {
            return self.boot_cancelled(operation).await;
        }
        self.run_vcpus(operation).await
    }

    /// The step *run vCPUs*, its intent being durable: the end of boot, resume and reboot.
    pub(crate) async fn run_vcpus(&mut self, operation: &mut Operation) -> Result<(), CommitError> {
        let context = self.context.clone();
        let result = match self.handle.clone() {
            // A guest that has ended has run: an earlier host process let it, and died before that
            // was written down. Its end is the worker's next event.
            Some(handle) => match handle.resume().await {
                Ok(()) | Err(ControlError::GuestEnded) => Ok(()),
                Err(error) => Err(error.to_string()),
            },
            None => Err("there is no worker".to_owned()),
        };
        if let Err(error) = result {
            return self.boot_failed(operation, FailureKind::Start, error).await;
        }
        let intended_at_ms = operation
            .steps
            .last()
            .map_or(operation.updated_at_ms, |s| s.at_ms);
        let mut draft = self.draft();
        outcome(&context, operation, StepState::Done);
        draft.record.desired = DesiredState::Running;
        draft.record.running_since_ms.get_or_insert(intended_at_ms);
        draft.state(&context, VmState::Running);
        self.open_window(&mut draft, intended_at_ms);
        draft.end(&context, operation, None);
        self.commit(Effect::WriteRunning, draft).await?;
        self.listen();
        Ok(())
    }

    /// Undoes a boot or a resume that can't go on.
    pub(crate) async fn boot_failed(
        &mut self,
        operation: &mut Operation,
        kind: FailureKind,
        error: String,
    ) -> Result<(), CommitError> {
        let context = self.context.clone();
        self.end_worker(WindowClose::Stop).await?;
        let mut draft = self.draft();
        outcome(&context, operation, StepState::Failed);
        draft.record.worker = None;
        let failure = Failure {
            kind,
            detail: error.clone(),
        };
        draft.state(&context, VmState::Failed { failure });
        draft.end(&context, operation, Some(error.clone()));
        // A user is told; what nobody waits for must come to an end by itself.
        let incident = (operation.origin != Origin::User)
            .then(|| draft.incident(&context, IncidentKind::StartFailed { error }));
        self.commit(Effect::WriteBootFailed, draft).await?;
        self.undecided = incident;
        Ok(())
    }

    /// Undoes a boot that was called off before its guest ran.
    async fn boot_cancelled(&mut self, operation: &mut Operation) -> Result<(), CommitError> {
        let context = self.context.clone();
        self.end_worker(WindowClose::Stop).await?;
        let mut draft = self.draft();
        outcome(&context, operation, StepState::Undone);
        draft.record.worker = None;
        draft.record.desired = DesiredState::Stopped;
        draft.state(&context, VmState::Stopped);
        draft.cancel(&context, operation, ON_REQUEST);
        self.commit(Effect::WriteBootCancelled, draft).await
    }

    pub(crate) async fn pause(&mut self, operation: &mut Operation) -> Result<(), CommitError> {
        let context = self.context.clone();
        let mut draft = self.draft();
        draft.record.desired = DesiredState::Paused;
        draft.state(&context, VmState::Pausing);
        intend(&context, operation, Step::PauseVcpus);
        draft.operation(operation);
        self.commit(Effect::WritePausing, draft).await?;
        self.pause_vcpus(operation).await
    }

    /// The step *pause vCPUs*, its intent being durable.
    pub(crate) async fn pause_vcpus(
        &mut self,
        operation: &mut Operation,
    ) -> Result<(), CommitError> {
        let context = self.context.clone();
        let paused = match self.handle.clone() {
            Some(handle) => match handle.pause().await {
                Ok(()) => handle.counters().await,
                Err(error) => Err(error),
            }
            .map_err(|error| error.to_string()),
            None => Err("there is no worker".to_owned()),
        };
        let mut draft = self.draft();
        match paused {
            Ok(counters) => {
                outcome(&context, operation, StepState::Done);
                draft.state(&context, VmState::Paused);
                draft.close_window(&context, WindowClose::Pause, Some(counters), true);
                draft.end(&context, operation, None);
            }
            Err(error) => {
                // The guest may be running or may have ended: the worker's next event tells.
                outcome(&context, operation, StepState::Failed);
                draft.record.desired = DesiredState::Running;
                draft.state(&context, VmState::Running);
                draft.end(&context, operation, Some(error));
            }
        }
        self.commit(Effect::WritePaused, draft).await
    }

    pub(crate) async fn resume(&mut self, operation: &mut Operation) -> Result<(), CommitError> {
        let context = self.context.clone();
        let mut draft = self.draft();
        draft.record.desired = DesiredState::Running;
        draft.state(&context, VmState::Resuming);
        intend(&context, operation, Step::RunVcpus);
        draft.operation(operation);
        self.commit(Effect::WriteResuming, draft).await?;
        self.run_vcpus(operation).await
    }
}
