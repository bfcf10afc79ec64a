//! Shutdown, reboot and delete: everything that ends a worker.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use roost_model::{
    CleanupTask, Control, DesiredState, Effect, EventKind, GuestExit, Operation, OperationState,
    Origin, Resource, Step, StepState, Verb, VmState, WindowClose,
};
use roost_store::{Change, CommitError};
use roost_worker::{Backend as _, GuestState, HandleEvent, WorkerIdentity};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use crate::actor::Actor;
use crate::error::EngineError;
use crate::journal::{ON_REQUEST, intend, operation, outcome, pending};
use crate::signals::Interruption;

/// Most time that a guest is given to end by itself: requests to its VM wait meanwhile.
pub(crate) const MAX_GRACE: Duration = Duration::from_secs(600);

/// What came of a wait for a guest.
enum Waited {
    /// It has ended by itself.
    Exited { sequence: u64, exit: GuestExit },
    /// It is waited for no longer.
    Over,
    /// This host process ends.
    Left,
}

impl Actor {
    pub(crate) async fn shutdown(&mut self, operation: &mut Operation) -> Result<(), CommitError> {
        let desired = match (operation.origin, self.record.desired) {
            // The next host boots it again.
            (Origin::Host, DesiredState::Running) => DesiredState::Running,
            _ => DesiredState::Stopped,
        };
        if !self.stop(operation, desired).await? {
            return Ok(());
        }
        let context = self.context.clone();
        let mut draft = self.draft();
        outcome(&context, operation, StepState::Done);
        draft.record.worker = None;
        draft.state(&context, VmState::Stopped);
        draft.end(&context, operation, None);
        self.commit(Effect::WriteStopped, draft).await
    }

    pub(crate) async fn reboot(&mut self, operation: &mut Operation) -> Result<(), CommitError> {
        if !self.stop(operation, DesiredState::Running).await? {
            return Ok(());
        }
        let context = self.context.clone();
        outcome(&context, operation, StepState::Done);
        self.boot(operation, 0).await
    }

    /// Gives the guest its time, then ends it and its worker. Returns false where it goes on: the
    /// operation was called off, or is the next host process's.
    async fn stop(
        &mut self,
        operation: &mut Operation,
        desired: DesiredState,
    ) -> Result<bool, CommitError> {
        let mut place = self.place_to_stop(operation).await;
        if pending(operation).is_none() {
            let step = if operation.grace.is_some() && self.hears() {
                // From here on, so that nobody who asks is too early.
                self.open_to_cancel(operation);
                Step::WaitForGuest
            } else {
                Step::StopWorker
            };
            self.intend_stop(operation, step, desired, VmState::Stopping)
                .await?;
        }
        if pending(operation) == Some(Step::WaitForGuest) {
            if !self.give_grace(operation, place).await? {
                return Ok(false);
            }
            place = self.place_to_stop(operation).await;
        }
        self.end_worker(WindowClose::Stop).await?;
        drop(place);
        Ok(true)
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

    /// From here on what a user asked for can be called off. What empties the node can't.
    fn open_to_cancel(&self, operation: &Operation) {
        if operation.origin.is_user() {
            self.signals.open();
        }
    }

    /// Whether there is a guest that could end by itself: one that is paused hears nothing.
    fn hears(&self) -> bool {
        let handle = self.handle.as_ref();
        handle.is_some_and(|handle| handle.state() == GuestState::Running)
    }

    pub(crate) async fn delete(&mut self, operation: &mut Operation) -> Result<(), CommitError> {
        let (step, desired) = (Step::StopWorker, DesiredState::Deleted);
        self.intend_stop(operation, step, desired, VmState::Deleting)
            .await?;
        self.overtaken.clear();
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

    /// Writes down that the worker is to be ended, and with a delete that nothing waits any more.
    async fn intend_stop(
        &mut self,
        operation: &mut Operation,
        step: Step,
        desired: DesiredState,
        through: VmState,
    ) -> Result<(), CommitError> {
        let context = self.context.clone();
        let mut draft = self.draft();
        draft.record.desired = desired;
        draft.state(&context, through);
        for mut waiting in self.overtaken.iter().cloned() {
            draft.cancel(&context, &mut waiting, "the VM was deleted");
        }
        intend(&context, operation, step);
        draft.operation(operation);
        self.commit(Effect::WriteStopping, draft).await
    }

    /// The step *wait for the guest*, its intent being durable: presses the button that tells it to
    /// end by itself, and waits as long as it may take. Returns whether it is to be stopped now,
    /// which it can be, whatever came of that.
    async fn give_grace(
        &mut self,
        operation: &mut Operation,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<bool, CommitError> {
        let context = self.context.clone();
        self.open_to_cancel(operation);
        let waited = self.wait_for_guest(operation, place).await;
        let is_cancelled = self.signals.close();
        let mut draft = self.draft();
        let exit = match waited {
            Waited::Exited { sequence, exit } => {
                draft.event(&context, EventKind::GuestExited { exit });
                Some(sequence)
            }
            _ if is_cancelled => {
                outcome(&context, operation, StepState::Undone);
                draft.record.desired = DesiredState::Running;
                draft.state(&context, VmState::Running);
                draft.cancel(&context, operation, ON_REQUEST);
                self.commit(Effect::WriteStopCancelled, draft).await?;
                self.listen();
                return Ok(false);
            }
            Waited::Left => return Ok(false),
            Waited::Over => None,
        };
        outcome(&context, operation, StepState::Done);
        intend(&context, operation, Step::StopWorker);
        draft.operation(operation);
        self.commit(Effect::WriteGraceOver, draft).await?;
        if let (Some(sequence), Some(handle)) = (exit, self.handle.clone())
            && let Err(error) = handle.acknowledge(sequence).await
        {
            tracing::warn!(vm = %self.record.id, %error, "an event could not be acknowledged");
        }
        Ok(true)
    }

    async fn wait_for_guest(
        &self,
        operation: &Operation,
        place: Option<OwnedSemaphorePermit>,
    ) -> Waited {
        let (Some(grace), Some(handle)) = (operation.grace, self.handle.clone()) else {
            return Waited::Over;
        };
        if !self.hears() || self.signals.is_cancelled() {
            return Waited::Over;
        }
        let button = grace.button;
        if let Err(error) = handle.control(Control::Press { button }).await {
            tracing::warn!(vm = %self.record.id, %error, "the guest could not be told to end");
            return Waited::Over;
        }
        // One that is only waited for leaves its place to others.
        drop(place);
        // An earlier host process may have waited a part of it.
        let begun_ms = operation.steps.last().map_or(0, |step| step.at_ms);
        let waited = Duration::from_millis(self.context.now_ms().saturating_sub(begun_ms));
        let patience = Duration::from_millis(grace.deadline_ms).min(MAX_GRACE);
        tokio::select! {
            biased;
            event = handle.next_event() => match event {
                HandleEvent::GuestExited { sequence, exit, .. } => {
                    Waited::Exited { sequence, exit }
                }
                HandleEvent::Gone { .. } => Waited::Over,
            },
            interruption = self.signals.interrupted() => match interruption {
                Interruption::Leaving => Waited::Left,
                Interruption::Cancelled | Interruption::Hurried => Waited::Over,
            },
            () = self.context.ending.time_is_up() => Waited::Over,
            () = sleep(patience.saturating_sub(waited)) => {
                tracing::info!(vm = %self.record.id, "the guest did not end in time: it is stopped");
                Waited::Over
            }
        }
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
    /// A VM that is to run nevertheless is booted again, next.
    pub(crate) async fn finish_exit(&mut self, to: Option<VmState>) -> Result<(), CommitError> {
        self.end_worker(WindowClose::Stop).await?;
        let context = self.context.clone();
        let is_to_boot =
            to == Some(VmState::Stopped) && self.record.desired == DesiredState::Running;
        let held_back = context.ending.check().err();
        let boots = is_to_boot && held_back.is_none();
        let boot = boots.then(|| Operation {
            state: OperationState::Running,
            ..operation(&context, self.record.id, Verb::Boot, Origin::Guest)
        });
        let mut draft = self.draft();
        draft.record.worker = None;
        if is_to_boot && matches!(held_back, Some(EngineError::Draining)) {
            draft.record.desired = DesiredState::Stopped;
        }
        if let Some(state) = to {
            draft.state(&context, state);
        }
        if let Some(boot) = &boot {
            draft.operation(boot);
        }
        self.commit(Effect::WriteExitFinished, draft).await?;
        self.begun = boot;
        Ok(())
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
