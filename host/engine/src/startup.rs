//! What a host does first: take over what an earlier one left.
//!
//! For each record: find its worker by the run directory and prove that it is the one by the
//! nonce; then finish the operation that was under way, from the step that was only intended;
//! then carry on with incidents whose decision is not carried out yet, and with what waits.

use std::sync::Arc;

use roost_model::{
    Effect, IncidentKind, Operation, OperationState, Origin, RecoveryAction, RequestQueue, Step,
    Verb, VmState, WindowClose,
};
use roost_store::CommitError;
use roost_worker::{AdoptError, Adoption, Backend as _};

use crate::actor::{Actor, PendingRestart};
use crate::desk::Desk;
use crate::journal;

impl Actor {
    /// Brings the VM to where its journal says that it was going. What waited for its turn waits
    /// again.
    pub(crate) async fn take_over(
        &mut self,
        desk: &mut Desk,
        unfinished: Vec<Operation>,
    ) -> Result<(), CommitError> {
        match self.context.store.open_window(self.record.id) {
            Ok(window) => self.window = window,
            Err(error) => tracing::error!(%error, "an open usage window can't be read"),
        }
        let (waiting, running): (Vec<_>, Vec<_>) = unfinished
            .into_iter()
            .partition(|operation| operation.state == OperationState::Queued);
        let (requests, mut restarts): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|operation| operation.origin.is_user());
        desk.queue = RequestQueue::of(requests);
        if self.record.worker.is_some() {
            self.adopt().await;
            if self.handle.is_none() {
                self.kill_worker().await?;
            }
        }
        if self.handle.is_some() && self.window.is_some() {
            self.adopted().await?;
        }
        if running.is_empty() {
            self.take_over_idle().await?;
        }
        for operation in running {
            self.carry_out(desk, operation).await?;
            if self.deleted {
                return Ok(());
            }
        }
        self.carry_on(desk).await?;
        self.listen();
        self.take_over_incidents(&mut restarts).await?;
        // What is left belongs to no incident that is open.
        for mut restart in restarts {
            let mut draft = self.draft();
            draft.cancel(&self.context, &mut restart, "its incident is closed");
            self.commit(Effect::WriteCancelled, draft).await?;
        }
        self.boot_as_before(desk).await
    }

    async fn adopt(&mut self) {
        let Some(worker) = self.record.worker.clone() else {
            return;
        };
        let adoption = Adoption {
            vm: self.record.id,
            incarnation: worker.incarnation,
            nonce: worker.nonce,
            run_dir: self.context.run_dir(self.record.id),
            pid: worker.pid,
            start_ticks: worker.start_ticks,
        };
        match self.context.backend.adopt(&adoption).await {
            Ok(handle) => self.attach(handle),
            Err(AdoptError::NoWorker) => {}
            Err(error) => tracing::warn!(vm = %self.record.id, %error, "not adopted"),
        }
    }

    /// No operation was under way.
    async fn take_over_idle(&mut self) -> Result<(), CommitError> {
        match (&self.record.state, self.handle.is_some()) {
            // A guest's own end was being carried out.
            (VmState::Stopping, _) => self.finish_exit(Some(VmState::Stopped)).await,
            (state, false) if state.has_worker() => {
                let detail = "the worker was gone, and nothing told of its end".to_owned();
                self.on_worker_lost(IncidentKind::WorkerMissing, detail)
                    .await
            }
            (state, is_there)
                if !state.has_worker() && (is_there || self.record.worker.is_some()) =>
            {
                self.finish_exit(None).await
            }
            _ => Ok(()),
        }
    }

    /// Takes all steps of `operation` that are left, or undoes it.
    pub(crate) async fn finish(&mut self, operation: &mut Operation) -> Result<(), CommitError> {
        let step = journal::pending(operation);
        if operation.verb == Verb::Boot {
            self.signals.open();
        }
        match (operation.verb, step, self.handle.is_some()) {
            // Creating is one commit, made before there is an actor.
            (Verb::Create, ..) => Ok(()),
            (Verb::Delete, ..) => self.delete(operation).await,
            (Verb::Shutdown, ..) => self.shutdown(operation).await,
            (Verb::Reboot, None | Some(Step::WaitForGuest | Step::StopWorker), _) => {
                self.reboot(operation).await
            }
            (Verb::Boot, None, _) => {
                let attempts = match operation.origin {
                    Origin::User | Origin::Host | Origin::Drain => 0,
                    Origin::Guest => self.record.recovery_attempts,
                    Origin::Recovery => self.record.recovery_attempts.saturating_add(1),
                };
                self.boot(operation, attempts).await
            }
            (Verb::Pause, None, _) => self.pause(operation).await,
            (Verb::Resume, None, _) => self.resume(operation).await,
            (_, Some(Step::StartWorker), true) => self.worker_started(operation).await,
            (_, Some(Step::StartWorker), false) => self.start_worker(operation).await,
            (_, Some(Step::RunVcpus), true) => self.run_vcpus(operation).await,
            (_, Some(Step::PauseVcpus), true) => self.pause_vcpus(operation).await,
            (_, Some(_), _) => {
                let error = "the worker was gone, and nothing told of its end".to_owned();
                let context = Arc::clone(&self.context);
                let mut draft = self.draft();
                journal::outcome(&context, operation, roost_model::StepState::Failed);
                draft.end(&context, operation, Some(error.clone()));
                draft.close_window(&context, WindowClose::Crash, None, false);
                self.commit(Effect::WriteInterrupted, draft).await?;
                self.on_worker_lost(IncidentKind::WorkerMissing, error)
                    .await
            }
        }
    }

    async fn take_over_incidents(
        &mut self,
        restarts: &mut Vec<Operation>,
    ) -> Result<(), CommitError> {
        let incidents = match self.context.store.open_incidents() {
            Ok(incidents) => incidents,
            Err(error) => {
                tracing::error!(%error, "the open incidents can't be read");
                return Ok(());
            }
        };
        // A newer incident supersedes what was decided about an older one.
        let Some(incident) = incidents.into_iter().rfind(|i| i.vm == self.record.id) else {
            return Ok(());
        };
        let is_over = match self.record.state {
            VmState::Failed { .. } => true,
            VmState::Stopped => matches!(incident.kind, IncidentKind::GuestEnded { .. }),
            _ => false,
        };
        if self.restart.is_some() || !is_over {
            return Ok(());
        }
        match incident.decision {
            None => self.recover(incident).await,
            Some(RecoveryAction::Restart { delay_ms }) => {
                let operation = match restarts.pop() {
                    Some(operation) => operation,
                    // An older host wrote down none before it was due.
                    None => self.restart_of(incident.at_ms.saturating_add(delay_ms)),
                };
                self.restart = Some(PendingRestart {
                    incident,
                    operation,
                });
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }
}
