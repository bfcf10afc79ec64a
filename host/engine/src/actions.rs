//! What a person asks about cleanups, and about what is left for a person.

use roost_model::{
    ActionId, ActionRequired, CleanupId, CleanupTask, Effect, EventKind, Incident, IncidentId,
    NewEvent, Resolution,
};
use roost_store::Change;

use crate::context::Context;
use crate::engine::Engine;
use crate::error::EngineError;

/// Longest note that is kept, bytes.
const MAX_NOTE_BYTES: usize = 4096;

impl Engine {
    /// An action-required record.
    ///
    /// # Errors
    /// There is none, or none any more.
    pub fn action(&self, id: ActionId) -> Result<ActionRequired, EngineError> {
        let found = self.context.store.action(id)?;
        found.ok_or(EngineError::ActionNotFound(id))
    }

    /// A cleanup task.
    ///
    /// # Errors
    /// There is none, or none any more.
    pub fn cleanup_task(&self, id: CleanupId) -> Result<CleanupTask, EngineError> {
        let found = self.context.store.cleanup_task(id)?;
        found.ok_or(EngineError::CleanupNotFound(id))
    }

    /// An incident.
    ///
    /// # Errors
    /// There is none.
    pub fn incident(&self, id: IncidentId) -> Result<Incident, EngineError> {
        let found = self.context.store.incident(id)?;
        found.ok_or(EngineError::IncidentNotFound(id))
    }

    /// Has a cleanup tried at once, rather than when its policy said.
    ///
    /// # Errors
    /// There is none, or the store could not be written.
    pub async fn retry_cleanup(&self, id: CleanupId) -> Result<CleanupTask, EngineError> {
        let task = CleanupTask {
            due_at_ms: self.context.now_ms(),
            ..self.cleanup_task(id)?
        };
        let changes = vec![Change::PutCleanup(task.clone())];
        self.context.write(Effect::WriteRepair, changes).await?;
        self.context.cleanup_due.notify_one();
        Ok(task)
    }

    /// Puts a cleanup that was given up into the queue again, with its attempts counted anew.
    ///
    /// # Errors
    /// There is no such record, it is not about a cleanup, or the store could not be written.
    pub async fn retry_action(&self, id: ActionId) -> Result<CleanupTask, EngineError> {
        let action = self.action(id)?;
        let task = action.task.clone().ok_or(EngineError::NotACleanup(id))?;
        let task = CleanupTask {
            attempts: 0,
            due_at_ms: self.context.now_ms(),
            ..task
        };
        let resolution = Resolution::Retried { task: task.id };
        let mut changes = self.context.resolution(&action, resolution);
        changes.push(Change::PutCleanup(task.clone()));
        self.context.write(Effect::WriteRepair, changes).await?;
        self.context.cleanup_due.notify_one();
        Ok(task)
    }

    /// Ends an action-required record with a person's words. What it was about is found again by
    /// the next audit if it is still so.
    ///
    /// # Errors
    /// There is no such record, the note is empty or too long, or the store could not be written.
    pub async fn resolve_action(
        &self,
        id: ActionId,
        note: String,
    ) -> Result<ActionRequired, EngineError> {
        if note.trim().is_empty() || note.len() > MAX_NOTE_BYTES {
            return Err(EngineError::Note {
                bytes: note.len(),
                limit: MAX_NOTE_BYTES,
            });
        }
        let action = self.action(id)?;
        let changes = self
            .context
            .resolution(&action, Resolution::Resolved { note });
        self.context.write(Effect::WriteRepair, changes).await?;
        Ok(action)
    }
}

impl Context {
    /// Removes an action-required record and says why.
    pub(crate) fn resolution(
        &self,
        action: &ActionRequired,
        resolution: Resolution,
    ) -> Vec<Change> {
        let resolved = EventKind::ActionResolved {
            action: action.id,
            resolution,
        };
        let event = NewEvent {
            vm: action.vm,
            ..self.host_event(resolved)
        };
        vec![Change::RemoveAction(action.id), Change::AppendEvent(event)]
    }
}
