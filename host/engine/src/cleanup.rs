//! The cleanup queue: resources that must go away and did not at the first attempt.
//!
//! It runs outside any request and survives restarts, because each task is in the store. The
//! cleanup policy says when to try again; when it gives up, an action-required record is left.

use std::sync::Arc;
use std::time::Duration;

use roost_model::{ActionId, ActionRequired, CleanupTask, Effect, EventKind, NewEvent, Resource};
use roost_policy::CleanupDecision;
use roost_store::{Change, CommitError};
use roost_worker::{Backend as _, WorkerIdentity};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::context::{Context, new_uuid};
use crate::facts::{self, CleanupVerdict};
use crate::plugins::{Attempts, Settled};

/// How long the task sleeps at most: a change of the wall clock can't hold a task longer.
const MAX_SLEEP: Duration = Duration::from_secs(30);

/// Works on the queue until the engine is dropped.
pub(crate) async fn run(context: Arc<Context>) {
    loop {
        let next_due_ms = match context.clean_due().await {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(%error, "the cleanup queue waits for the store");
                None
            }
        };
        let wait = next_due_ms.map_or(MAX_SLEEP, |due| {
            Duration::from_millis(due.saturating_sub(context.now_ms())).min(MAX_SLEEP)
        });
        tokio::select! {
            () = sleep(wait) => {}
            () = context.cleanup_due.notified() => {}
        }
    }
}

impl Context {
    /// Tries every task that is due; returns when the next one is.
    async fn clean_due(self: &Arc<Self>) -> Result<Option<u64>, CommitError> {
        let tasks = match self.store.cleanup_tasks() {
            Ok(tasks) => tasks,
            Err(error) => {
                tracing::error!(%error, "the cleanup queue can't be read");
                return Ok(None);
            }
        };
        let (due, later): (Vec<_>, Vec<_>) = tasks
            .into_iter()
            .partition(|task| task.due_at_ms <= self.now_ms());
        let mut next = later.iter().map(|task| task.due_at_ms).min();
        let places = Arc::new(Semaphore::new(self.config.max_cleanups.max(1)));
        let mut attempts = JoinSet::new();
        for task in due {
            let (context, places) = (Arc::clone(self), Arc::clone(&places));
            attempts.spawn(async move {
                // It is never closed.
                let _place = places.acquire().await;
                context.clean(task).await
            });
        }
        let mut failed = None;
        while let Some(attempt) = attempts.join_next().await {
            match attempt {
                Ok(Ok(again)) => next = [next, again].into_iter().flatten().min(),
                Ok(Err(error)) => failed = Some(error),
                Err(error) => tracing::error!(%error, "a cleanup broke off"),
            }
        }
        failed.map_or(Ok(next), Err)
    }

    /// Tries one task; returns when to try again, if so.
    async fn clean(&self, mut task: CleanupTask) -> Result<Option<u64>, CommitError> {
        let result = match &task.resource {
            Resource::Worker { pid, start_ticks } => self
                .backend
                .kill(WorkerIdentity {
                    pid: *pid,
                    start_ticks: *start_ticks,
                })
                .await
                .map(|_| ())
                .map_err(|error| error.to_string()),
            Resource::RunDirectory => self
                .remove_run_dir(task.vm)
                .await
                .map_err(|error| error.to_string()),
            Resource::Disks => self
                .remove_disks(task.vm)
                .await
                .map_err(|error| error.to_string()),
        };
        let Err(error) = result else {
            let changes = vec![Change::RemoveCleanup(task.id)];
            self.write(Effect::WriteCleaned, changes).await?;
            return Ok(None);
        };
        task.attempts = task.attempts.saturating_add(1);
        task.last_error = Some(error.clone());
        let record = self.store.vm(task.vm).ok().flatten();
        let mut attempts = Attempts::default();
        loop {
            let settled = self.decide_cleanup(&task, record.as_ref(), &attempts).await;
            let (changes, next) = self.carry_out(task.clone(), error.clone(), settled);
            match self.write(Effect::WriteCleanupVerdict, changes).await {
                Ok(_) => return Ok(next),
                Err(error) if attempts.again(self, &error).await => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What a cleanup policy's decision about a failed attempt comes to; returns also when to try
    /// again, if so.
    fn carry_out(
        &self,
        mut task: CleanupTask,
        error: String,
        settled: Settled<CleanupDecision>,
    ) -> (Vec<Change>, Option<u64>) {
        let mut changes = settled.changes;
        let next = match facts::cleanup_verdict(&settled.decision) {
            CleanupVerdict::RetryAfter(delay_ms) => {
                task.due_at_ms = self.now_ms().saturating_add(delay_ms);
                let kind = EventKind::CleanupRetried {
                    task: task.id,
                    attempts: task.attempts,
                    delay_ms,
                    error,
                    decided_by: settled.by,
                };
                changes.push(Change::AppendEvent(self.task_event(&task, kind)));
                let due = task.due_at_ms;
                changes.push(Change::PutCleanup(task));
                Some(due)
            }
            CleanupVerdict::GiveUp(what) => {
                let id = ActionId::from_uuid(new_uuid());
                let kind = EventKind::ActionRequired {
                    action: id,
                    what: what.clone(),
                };
                changes.push(Change::AppendEvent(self.task_event(&task, kind)));
                changes.push(Change::RemoveCleanup(task.id));
                let action = ActionRequired {
                    id,
                    vm: Some(task.vm),
                    task: Some(task),
                    found: None,
                    what,
                    at_ms: self.now_ms(),
                };
                changes.push(Change::PutAction(action));
                None
            }
        };
        (changes, next)
    }

    fn task_event(&self, task: &CleanupTask, kind: EventKind) -> NewEvent {
        NewEvent {
            vm: Some(task.vm),
            ..self.host_event(kind)
        }
    }
}
