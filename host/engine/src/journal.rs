//! Writing a VM's record and its operation's steps in one commit.

use std::sync::atomic::Ordering;

use roost_model::{
    Effect, EventKind, OpenWindow, Operation, OperationId, OperationState, Origin, Step,
    StepRecord, StepState, Verb, VmState,
};
use roost_store::{Change, CommitError, Expect};

use crate::actor::Actor;
use crate::context::{Context, new_uuid};

/// Changes that will be committed together, around the record as it will be.
pub(crate) struct Draft {
    pub(crate) record: roost_model::VmRecord,
    pub(crate) changes: Vec<Change>,
    pub(crate) window: Option<OpenWindow>,
    /// Whether this commit gives the billing task something to do.
    pub(crate) closed_window: bool,
}

impl Draft {
    pub(crate) fn push(&mut self, change: Change) {
        self.changes.push(change);
    }

    pub(crate) fn event(&mut self, context: &Context, kind: EventKind) {
        let event = context.vm_event(&self.record, kind);
        self.changes.push(Change::AppendEvent(event));
    }

    /// Sets the observed state and records the change as an event.
    pub(crate) fn state(&mut self, context: &Context, state: VmState) {
        let (from, to) = (self.record.state.name(), state.name());
        self.record.state = state;
        if from != to {
            let kind = EventKind::StateChanged {
                from: from.to_owned(),
                to: to.to_owned(),
            };
            self.event(context, kind);
        }
    }

    /// Journals `operation` as it stands now.
    pub(crate) fn operation(&mut self, operation: &Operation) {
        self.changes.push(Change::PutOperation(operation.clone()));
    }

    /// Ends `operation` and journals it.
    pub(crate) fn end(
        &mut self,
        context: &Context,
        operation: &mut Operation,
        error: Option<String>,
    ) {
        let kind = end(context, operation, error);
        self.operation(operation);
        self.event(context, kind);
    }

    /// Ends `operation` as called off and journals it.
    pub(crate) fn cancel(&mut self, context: &Context, operation: &mut Operation, reason: &str) {
        let kind = cancel(context, operation, reason);
        self.operation(operation);
        self.event(context, kind);
    }
}

/// Why most operations are called off.
pub(crate) const ON_REQUEST: &str = "it was cancelled on request";

/// Ends `operation`; returns the event.
pub(crate) fn end(
    context: &Context,
    operation: &mut Operation,
    error: Option<String>,
) -> EventKind {
    operation.updated_at_ms = context.now_ms();
    operation.state = match error.clone() {
        None => OperationState::Succeeded,
        Some(error) => OperationState::Failed { error },
    };
    EventKind::OperationEnded {
        operation: operation.id,
        verb: operation.verb,
        error,
        cancelled: None,
    }
}

/// Ends `operation` as called off; returns the event.
pub(crate) fn cancel(context: &Context, operation: &mut Operation, reason: &str) -> EventKind {
    operation.updated_at_ms = context.now_ms();
    operation.state = OperationState::Cancelled {
        reason: reason.to_owned(),
    };
    EventKind::OperationEnded {
        operation: operation.id,
        verb: operation.verb,
        error: None,
        cancelled: Some(reason.to_owned()),
    }
}

impl Actor {
    /// Starts a commit from the record as it is.
    pub(crate) fn draft(&self) -> Draft {
        Draft {
            record: self.record.clone(),
            changes: Vec::new(),
            window: self.window.clone(),
            closed_window: false,
        }
    }

    /// Commits; afterwards the actor's record is what the store holds.
    pub(crate) async fn commit(&mut self, effect: Effect, draft: Draft) -> Result<(), CommitError> {
        let Draft {
            mut record,
            mut changes,
            window,
            closed_window,
        } = draft;
        record.revision = self.record.revision + 1;
        record.updated_at_ms = self.context.now_ms();
        let expect = Expect::Revision(self.record.revision);
        changes.insert(
            0,
            Change::PutVm {
                record: record.clone(),
                expect,
            },
        );
        self.context.write(effect, changes).await?;
        self.has_worker
            .store(record.state.has_worker(), Ordering::Relaxed);
        self.record = record;
        self.window = window;
        if closed_window {
            self.context.windows_closed.notify_one();
        }
        Ok(())
    }
}

/// A new operation, which has not begun.
pub(crate) fn operation(
    context: &Context,
    vm: roost_model::VmId,
    verb: Verb,
    origin: Origin,
) -> Operation {
    let now = context.now_ms();
    Operation {
        id: OperationId::from_uuid(new_uuid()),
        vm,
        verb,
        origin,
        grace: None,
        not_before_ms: None,
        state: OperationState::Queued,
        steps: Vec::new(),
        created_at_ms: now,
        updated_at_ms: now,
    }
}

/// Adds `step` to the journal as intended.
pub(crate) fn intend(context: &Context, operation: &mut Operation, step: Step) {
    operation.updated_at_ms = context.now_ms();
    operation.steps.push(StepRecord {
        step,
        state: StepState::Intended,
        at_ms: operation.updated_at_ms,
    });
}

/// Marks the last step, if it is still only intended.
pub(crate) fn outcome(context: &Context, operation: &mut Operation, state: StepState) {
    operation.updated_at_ms = context.now_ms();
    let at_ms = operation.updated_at_ms;
    if let Some(last) = operation
        .steps
        .last_mut()
        .filter(|s| s.state == StepState::Intended)
    {
        last.state = state;
        last.at_ms = at_ms;
    }
}

/// The step that was intended when the journal was last written, if one was.
pub(crate) fn pending(operation: &Operation) -> Option<Step> {
    operation
        .steps
        .last()
        .filter(|s| s.state == StepState::Intended)
        .map(|s| s.step)
}
