//! What a host does first: take over what an earlier one left.
//!
//! For each record: find its worker by the run directory and prove that it is the one by the
//! nonce; then finish the operation that was under way, from the step that was only intended;
//! then carry on with incidents whose decision is not carried out yet.

use std::sync::Arc;

use roost_model::{
    Effect, IncidentKind, Operation, Origin, RecoveryAction, Step, Verb, VmState, WindowClose,
};
use roost_store::CommitError;
use roost_worker::{AdoptError, Adoption, Backend as _};

use crate::actor::{Actor, PendingRestart};
use crate::journal;

impl Actor {
    /// Brings the VM to where its journal says that it was going.
    pub(crate) async fn take_over(
        &mut self,
        unfinished: Vec<Operation>,
    ) -> Result<(), CommitError> {
        match self.context.store.open_window(self.record.id) {
            Ok(window) => self.window = window,
            Err(error) => tracing::error!(%error, "an open usage window can't be read"),
        }
        if self.record.worker.is_some() {
            self.adopt().await;
            if self.handle.is_none() {
                self.kill_worker().await?;
            }
        }
        if self.handle.is_some() && self.window.is_some() {
            self.adopted().await?;
        }
        if unfinished.is_empty() {
            self.take_over_idle().await?;
        }
        for mut operation in unfinished {
            self.finish(&mut operation).await?;
            self.announce_end();
            if self.deleted {
                return Ok(());
            }
        }
        self.take_over_incidents().await
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
            // A guest's failure was: its worker may be gone already.
            (state, _) if !state.has_worker() && self.record.worker.is_some() => {
                self.finish_exit(None).await
            }
            _ => Ok(()),
        }
    }

    /// Finishes or undoes `operation`.
    async fn finish(&mut self, operation: &mut Operation) -> Result<(), CommitError> {
        let step = journal::pending(operation);
        match (operation.verb, step, self.handle.is_some()) {
            (Verb::Create, ..) => Ok(()),
            (Verb::Delete, ..) => self.delete(operation).await,
            (Verb::Shutdown, ..) => self.shutdown(operation).await,
            (Verb::Reboot, None | Some(Step::StopWorker), _) => self.reboot(operation).await,
            (Verb::Boot, None, _) => {
                let restarts = u32::from(operation.origin == Origin::Recovery);
                let attempts = self.record.recovery_attempts.saturating_add(restarts);
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

    async fn take_over_incidents(&mut self) -> Result<(), CommitError> {
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
        if self.restart.is_some() || !matches!(self.record.state, VmState::Failed { .. }) {
            return Ok(());
        }
        match incident.decision {
            None => self.recover(incident).await,
            Some(RecoveryAction::Restart { delay_ms }) => {
                let due_at_ms = incident.at_ms.saturating_add(delay_ms);
                self.restart = Some(PendingRestart {
                    incident,
                    due_at_ms,
                });
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }
}
