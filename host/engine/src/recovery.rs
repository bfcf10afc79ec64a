//! What happens when nobody asked for it: incidents, and what a policy decides about them.

use std::sync::Arc;

use roost_model::{
    DesiredState, Effect, EventKind, Failure, FailureKind, GuestExit, Incident, IncidentId,
    IncidentKind, OnEnd, OnReset, Operation, OperationState, Origin, RecoveryAction, Verb, VmState,
    WindowClose,
};
use roost_policy::RecoveryDecision;
use roost_store::{Change, CommitError};
use roost_worker::HandleEvent;

use crate::actor::{Actor, PendingRestart};
use crate::context::{Context, new_uuid};
use crate::facts;
use crate::journal::{self, Draft};
use crate::plugins::{About, Attempts, Settled};

impl Actor {
    pub(crate) async fn on_worker_event(&mut self, event: &HandleEvent) -> Result<(), CommitError> {
        match event {
            HandleEvent::GuestExited {
                sequence,
                exit,
                counters,
                ..
            } => self.on_guest_exit(*sequence, exit.clone(), *counters).await,
            HandleEvent::Gone { status } => {
                self.detach();
                let kind = IncidentKind::WorkerExit {
                    status: status.clone(),
                };
                let detail = format!("the worker ended by itself ({status})");
                self.on_worker_lost(kind, detail).await
            }
        }
    }

    async fn on_guest_exit(
        &mut self,
        sequence: u64,
        exit: GuestExit,
        counters: roost_model::Counters,
    ) -> Result<(), CommitError> {
        let context = Arc::clone(&self.context);
        let mut draft = self.draft();
        draft.event(&context, EventKind::GuestExited { exit: exit.clone() });
        draft.close_window(&context, WindowClose::Stop, Some(counters), false);
        let is_orderly = exit.is_orderly();
        let incident = if is_orderly {
            let reboots = exit == GuestExit::Reset && draft.record.spec.on_reset == OnReset::Reboot;
            if !reboots {
                draft.record.desired = DesiredState::Stopped;
            }
            draft.state(&context, VmState::Stopping);
            let asks = !reboots && draft.record.spec.on_end == OnEnd::Recover;
            asks.then(|| draft.incident(&context, IncidentKind::GuestEnded { exit }))
        } else {
            let failure = Failure {
                kind: FailureKind::Guest,
                detail: exit.to_string(),
            };
            draft.state(&context, VmState::Failed { failure });
            Some(draft.incident(&context, IncidentKind::GuestFailure { exit }))
        };
        self.commit(Effect::WriteGuestExit, draft).await?;
        if let Some(handle) = self.handle.clone()
            && let Err(error) = handle.acknowledge(sequence).await
        {
            tracing::warn!(vm = %self.record.id, %error, "an event could not be acknowledged");
        }
        self.finish_exit(is_orderly.then_some(VmState::Stopped))
            .await?;
        self.undecided = incident;
        Ok(())
    }

    /// The worker did not answer. After several times in a row it is killed: what can't be spoken
    /// to can't be stopped either, nor billed.
    pub(crate) async fn left_unanswered(&mut self) -> Result<(), CommitError> {
        self.unanswered = self.unanswered.saturating_add(1);
        let unanswered = self.unanswered;
        tracing::warn!(vm = %self.record.id, unanswered, "the worker does not answer");
        if unanswered < self.context.config.unanswered_limit {
            return Ok(());
        }
        self.unanswered = 0;
        self.detach();
        self.kill_worker().await?;
        let detail = format!("the worker did not answer {unanswered} times in a row");
        self.on_worker_lost(IncidentKind::WorkerHung { unanswered }, detail)
            .await
    }

    /// The worker is gone, whatever it was doing.
    pub(crate) async fn on_worker_lost(
        &mut self,
        kind: IncidentKind,
        detail: String,
    ) -> Result<(), CommitError> {
        let context = Arc::clone(&self.context);
        let mut draft = self.draft();
        draft.close_window(&context, WindowClose::Crash, None, false);
        draft.record.worker = None;
        let failure = Failure {
            kind: FailureKind::WorkerExit,
            detail,
        };
        draft.state(&context, VmState::Failed { failure });
        let incident = draft.incident(&context, kind);
        self.forget_sockets();
        self.commit(Effect::WriteWorkerLost, draft).await?;
        self.undecided = Some(incident);
        Ok(())
    }

    /// Asks the recovery policy about `incident` and does what it says.
    pub(crate) async fn recover(&mut self, mut incident: Incident) -> Result<(), CommitError> {
        let context = Arc::clone(&self.context);
        let history = context
            .store
            .incidents(Some(self.record.id), facts::MAX_HISTORY);
        let history = history.unwrap_or_else(|error| {
            tracing::error!(%error, "the history of incidents can't be read");
            Vec::new()
        });
        let mut attempts = Attempts::default();
        let (action, follows) = loop {
            let facts = facts::recovery(&context, &self.record, &incident, &history);
            let about = About::vm(&self.record);
            let decided = context.decide_recovery(facts, about, &attempts).await;
            let (mut draft, action) = self.decided(&context, &mut incident, decided);
            self.supersede_restart(&mut draft, "another incident took its place");
            let follows = self.follows(&action);
            if let Some(operation) = &follows {
                draft.operation(operation);
            }
            match self.commit(Effect::WriteRecovery, draft).await {
                Ok(()) => break (action, follows),
                Err(error) if attempts.again(&context, &error).await => {}
                Err(error) => return Err(error),
            }
        };
        self.restart = None;
        match (action, follows) {
            (RecoveryAction::Restart { .. }, Some(operation)) => {
                self.restart = Some(PendingRestart {
                    incident,
                    operation,
                });
            }
            (_, follows) => self.begun = follows,
        }
        Ok(())
    }
}

impl Actor {
    /// The operation that a decision leads to: a boot that waits, or a delete that begins.
    fn follows(&self, action: &RecoveryAction) -> Option<Operation> {
        let context = &self.context;
        match action {
            RecoveryAction::Restart { delay_ms } => {
                Some(self.restart_of(context.now_ms().saturating_add(*delay_ms)))
            }
            RecoveryAction::Destroy => {
                let id = self.record.id;
                let mut delete = journal::operation(context, id, Verb::Delete, Origin::Recovery);
                delete.state = OperationState::Running;
                Some(delete)
            }
            _ => None,
        }
    }

    /// A boot by recovery that is due at `due_at_ms`.
    pub(crate) fn restart_of(&self, due_at_ms: u64) -> Operation {
        let id = self.record.id;
        Operation {
            not_before_ms: Some(due_at_ms),
            ..journal::operation(&self.context, id, Verb::Boot, Origin::Recovery)
        }
    }

    /// What a recovery policy's decision about `incident` comes to.
    fn decided(
        &self,
        context: &Context,
        incident: &mut Incident,
        decided: Settled<RecoveryDecision>,
    ) -> (Draft, RecoveryAction) {
        let (mut action, reason) = facts::recovery_action(&decided.decision);
        if action == RecoveryAction::Adopt {
            // There is nothing left to adopt: an actor adopts before it opens an incident.
            action = RecoveryAction::MarkFailed;
        }
        incident.decision = Some(action.clone());
        incident.closed = !matches!(action, RecoveryAction::Restart { .. });

        let mut draft = self.draft();
        for change in decided.changes {
            draft.push(change);
        }
        draft.event(
            context,
            EventKind::RecoveryDecided {
                incident: incident.id,
                action: action.clone(),
                decided_by: decided.by,
                reason: reason.clone(),
            },
        );
        draft.push(Change::PutIncident(incident.clone()));
        match &action {
            RecoveryAction::LeaveStopped => {
                draft.record.desired = DesiredState::Stopped;
                draft.state(context, VmState::Stopped);
            }
            RecoveryAction::MarkFailed | RecoveryAction::Adopt => {
                let failure = Failure {
                    kind: FailureKind::Recovery,
                    detail: reason,
                };
                draft.state(context, VmState::Failed { failure });
            }
            // Also one whose guest ended by itself is to run from now on.
            RecoveryAction::Restart { .. } => draft.record.desired = DesiredState::Running,
            RecoveryAction::Destroy => {}
        }
        (draft, action)
    }
}

impl Draft {
    pub(crate) fn incident(&mut self, context: &Context, kind: IncidentKind) -> Incident {
        let settled_ms = context.config.settled_after.as_millis();
        let ran_ms = self
            .record
            .running_since_ms
            .map_or(0, |since| context.now_ms().saturating_sub(since));
        if u128::from(ran_ms) >= settled_ms {
            self.record.recovery_attempts = 0;
        }
        let incident = Incident {
            id: IncidentId::from_uuid(new_uuid()),
            vm: self.record.id,
            incarnation: self.record.incarnation,
            kind: kind.clone(),
            at_ms: context.now_ms(),
            decision: None,
            closed: false,
        };
        self.push(Change::PutIncident(incident.clone()));
        let opened = EventKind::IncidentOpened {
            incident: incident.id,
            incident_kind: kind,
        };
        self.event(context, opened);
        incident
    }
}
