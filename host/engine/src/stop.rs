//! Shutdown, reboot and delete: everything that ends a worker.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use roost_model::{
    CleanupTask, Control, DesiredState, Effect, EventKind, Grace, Operation, Origin, Resource,
    Step, StepState, Verb, VmState, WindowClose,
};
use roost_store::{Change, CommitError};
use roost_worker::{Backend as _, GuestState, HandleEvent, WorkerIdentity};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::actor::Actor;
use crate::error::EngineError;
use crate::journal::{intend, operation, outcome};

/// Most time that a guest is given to end by itself: requests to its VM wait meanwhile.
pub(crate) const MAX_GRACE: Duration = Duration::from_secs(600);

impl Actor {
    pub(crate) async fn shutdown(&mut self, operation: &mut Operation) -> Result<(), CommitError> {
        let desired = match (operation.origin, self.record.desired) {
            // The next host boots it again.
            (Origin::Host, DesiredState::Running) => DesiredState::Running,
            _ => DesiredState::Stopped,
        };
        let place = self.place_to_stop(operation).await;
        self.intend_stop(operation, desired, VmState::Stopping)
            .await?;
        let told = self.tell_to_end(operation.grace).await;
        drop(place);
        self.wait_for_end(told).await?;
        let place = self.place_to_stop(operation).await;
        self.end_worker(WindowClose::Stop).await?;
        drop(place);
        let context = self.context.clone();
        let mut draft = self.draft();
        outcome(&context, operation, StepState::Done);
        draft.record.worker = None;
        draft.state(&context, VmState::Stopped);
        draft.end(&context, operation, None);
        self.commit(Effect::WriteStopped, draft).await
    }

    pub(crate) async fn reboot(&mut self, operation: &mut Operation) -> Result<(), CommitError> {
        self.intend_stop(operation, DesiredState::Running, VmState::Stopping)
            .await?;
        self.give_grace(operation.grace).await?;
        self.end_worker(WindowClose::Stop).await?;
        let context = self.context.clone();
        outcome(&context, operation, StepState::Done);
        self.boot(operation, 0).await
    }

    pub(crate) async fn delete(&mut self, operation: &mut Operation) -> Result<(), CommitError> {
        self.intend_stop(operation, DesiredState::Deleted, VmState::Deleting)
            .await?;
        self.end_worker(WindowClose::Stop).await?;
        let context = self.context.clone();

        let mut draft = self.draft();
        outcome(&context, operation, StepState::Done);
        intend(&context, operation, Step::RemoveRunDirectory);
        draft.record.worker = None;
        draft.operation(operation);
        self.commit(Effect::WriteRemovingRunDirectory, draft)
            .await?;

        let removed = context.remove_run_dir(self.record.id).await;
        let disks_removed = if self.record.spec.disks.is_empty() {
            Ok(())
        } else {
            outcome(&context, operation, StepState::Done);
            intend(&context, operation, Step::RemoveDisks);
            let mut draft = self.draft();
            draft.operation(operation);
            self.commit(Effect::WriteRemovingDisks, draft).await?;
            context.remove_disks(self.record.id).await
        };
        // So that whoever sees the end sees the bill. Where its policy fails, the store keeps what
        // the bill needs, and nobody waits for it.
        context.bill_vm(&self.record).await?;

        outcome(&context, operation, StepState::Done);
        intend(&context, operation, Step::RemoveRecord);
        let id = self.record.id;
        let mut draft = self.draft();
        for (result, resource) in [
            (removed, Resource::RunDirectory),
            (disks_removed, Resource::Disks),
        ] {
            if let Err(error) = result {
                draft.push(Change::PutCleanup(self.task(resource, error.to_string())));
            }
        }
        draft.state(&context, VmState::Deleted);
        outcome(&context, operation, StepState::Done);
        draft.end(&context, operation, None);
        draft.push(Change::RemoveVm {
            id,
            revision: self.record.revision,
        });
        context.write(Effect::WriteDeleted, draft.changes).await?;
        context.cleanup_due.notify_one();
        // Whoever hears of the end must find nothing, so before it is announced.
        context.leases.free(&self.record);
        context.with_actors(|actors| actors.remove(&id));
        self.deleted = true;
        Ok(())
    }

    /// A turn to work on the end of a VM, where all VMs are ended at once.
    async fn place_to_stop(&self, operation: &Operation) -> Option<OwnedSemaphorePermit> {
        match operation.origin {
            Origin::Drain | Origin::Host => {
                // It is never closed.
                let stops = Arc::clone(&self.context.stops);
                stops.acquire_owned().await.ok()
            }
            _ => None,
        }
    }

    /// Writes down that the worker is to be ended.
    async fn intend_stop(
        &mut self,
        operation: &mut Operation,
        desired: DesiredState,
        through: VmState,
    ) -> Result<(), CommitError> {
        let context = self.context.clone();
        let mut draft = self.draft();
        draft.record.desired = desired;
        draft.state(&context, through);
        intend(&context, operation, Step::StopWorker);
        draft.operation(operation);
        self.commit(Effect::WriteStopping, draft).await
    }

    /// Presses the button that tells the guest to end by itself, and waits as long as it may take.
    /// Whatever comes of it, the guest can be stopped afterwards.
    async fn give_grace(&mut self, grace: Option<Grace>) -> Result<(), CommitError> {
        let told = self.tell_to_end(grace).await;
        self.wait_for_end(told).await
    }

    /// Presses the button that tells the guest to end by itself; returns how long it may take, if
    /// it could be told.
    async fn tell_to_end(&self, grace: Option<Grace>) -> Option<Duration> {
        let (grace, handle) = (grace?, self.handle.as_ref()?);
        // A guest that is paused hears nothing.
        if handle.state() != GuestState::Running {
            return None;
        }
        let button = grace.button;
        if let Err(error) = handle.control(Control::Press { button }).await {
            tracing::warn!(vm = %self.record.id, %error, "the guest could not be told to end");
            return None;
        }
        Some(Duration::from_millis(grace.deadline_ms).min(MAX_GRACE))
    }

    /// Waits for the end of a guest that was told to end.
    async fn wait_for_end(&mut self, told: Option<Duration>) -> Result<(), CommitError> {
        let (Some(patience), Some(handle)) = (told, self.handle.clone()) else {
            return Ok(());
        };
        let event = tokio::select! {
            biased;
            event = timeout(patience, handle.next_event()) => event.ok(),
            () = self.context.ending.time_is_up() => None,
        };
        let Some(HandleEvent::GuestExited { sequence, exit, .. }) = event else {
            tracing::info!(vm = %self.record.id, "the guest did not end in time: it is stopped");
            return Ok(());
        };
        let mut draft = self.draft();
        draft.event(&self.context, EventKind::GuestExited { exit });
        self.commit(Effect::WriteGraceExit, draft).await?;
        if let Err(error) = handle.acknowledge(sequence).await {
            tracing::warn!(vm = %self.record.id, %error, "an event could not be acknowledged");
        }
        Ok(())
    }

    /// Ends the guest and the worker process, if there are any; closes the usage window.
    /// Idempotent. Afterwards no worker of this VM runs, or a cleanup task says that one may.
    pub(crate) async fn end_worker(&mut self, close: WindowClose) -> Result<(), CommitError> {
        let context = self.context.clone();
        let mut counters = None;
        if let Some(handle) = self.handle.clone() {
            match handle.stop().await {
                Ok((_, last)) => counters = Some(last),
                Err(error) => {
                    tracing::warn!(vm = %self.record.id, %error, "the guest did not stop");
                }
            }
            context.keep_log(self.record.id, handle.as_ref()).await;
        }
        if self.window.is_some() {
            let mut draft = self.draft();
            draft.close_window(&context, close, counters, false);
            self.commit(Effect::WriteLastWindow, draft).await?;
        }
        if let Some(handle) = self.handle.clone()
            && let Err(error) = handle.quit().await
        {
            tracing::warn!(vm = %self.record.id, %error, "the worker did not quit");
        }
        self.detach();
        self.kill_worker().await
    }

    /// Makes sure that the recorded process is gone; hands it to cleanup if that fails.
    pub(crate) async fn kill_worker(&mut self) -> Result<(), CommitError> {
        let worker = self.record.worker.as_ref();
        let Some((pid, start_ticks)) = worker.and_then(|w| Some((w.pid?, w.start_ticks?))) else {
            self.forget_sockets();
            return Ok(());
        };
        let Err(error) = self
            .context
            .backend
            .kill(WorkerIdentity { pid, start_ticks })
            .await
        else {
            self.forget_sockets();
            return Ok(());
        };
        let task = self.task(Resource::Worker { pid, start_ticks }, error.to_string());
        let changes = vec![Change::PutCleanup(task)];
        self.context
            .write(Effect::WriteWorkerCleanup, changes)
            .await?;
        self.context.cleanup_due.notify_one();
        Ok(())
    }

    /// A cleanup task whose first attempt has just failed with `error`. It is due at once: the
    /// cleanup task asks the policy after its own first attempt.
    fn task(&self, resource: Resource, error: String) -> CleanupTask {
        CleanupTask {
            attempts: 1,
            last_error: Some(error),
            ..self.context.new_task(self.record.id, resource)
        }
    }

    /// The second half of a guest's own end: its exit is written down, its worker is not needed.
    /// A VM that is to run nevertheless is booted again.
    pub(crate) async fn finish_exit(&mut self, to: Option<VmState>) -> Result<(), CommitError> {
        self.end_worker(WindowClose::Stop).await?;
        let context = self.context.clone();
        let is_to_boot =
            to == Some(VmState::Stopped) && self.record.desired == DesiredState::Running;
        let held_back = context.ending.check().err();
        let boots = is_to_boot && held_back.is_none();
        let mut operation =
            boots.then(|| operation(&context, self.record.id, Verb::Boot, Origin::Guest));
        let mut draft = self.draft();
        draft.record.worker = None;
        if is_to_boot && matches!(held_back, Some(EngineError::Draining)) {
            draft.record.desired = DesiredState::Stopped;
        }
        if let Some(state) = to {
            draft.state(&context, state);
        }
        if let Some(operation) = &operation {
            draft.operation(operation);
        }
        self.commit(Effect::WriteExitFinished, draft).await?;
        let Some(operation) = &mut operation else {
            return Ok(());
        };
        let result = self.boot(operation, self.record.recovery_attempts).await;
        self.announce_end();
        result
    }

    /// Writes down that a worker from before this host process was taken over.
    pub(crate) async fn adopted(&mut self) -> Result<(), CommitError> {
        let context = self.context.clone();
        let Some(handle) = self.handle.clone() else {
            return Ok(());
        };
        let counters = handle.counters().await.ok();
        let mut draft = self.draft();
        if let Some(identity) = handle.identity() {
            if let Some(worker) = &mut draft.record.worker {
                worker.pid = Some(identity.pid);
                worker.start_ticks = Some(identity.start_ticks);
            }
            draft.event(&context, EventKind::WorkerAdopted { pid: identity.pid });
        }
        draft.close_window(&context, WindowClose::Adoption, counters, true);
        self.commit(Effect::WriteAdopted, draft).await
    }
}

impl crate::context::Context {
    /// Removes what a VM has in the file system. Nothing there: fine.
    pub(crate) async fn remove_run_dir(&self, vm: roost_model::VmId) -> io::Result<()> {
        let removing = tokio::fs::remove_dir_all(self.run_dir(vm));
        let faults = &self.config.faults;
        match faults.around(Effect::RemoveRunDirectory, removing).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
