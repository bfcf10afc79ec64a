//! The one thread that writes: group commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use redb::{Database, Durability};
use tokio::sync::{mpsc, oneshot, watch};

use crate::change::{Change, Committed};
use crate::error::{CommitError, ReadError};
use crate::open::Limits;
use crate::plan::{Numbers, Plan, Refused};
use crate::retention::{forget_decisions, forget_operations};
use crate::state::State;

/// Commits that may wait. Each holds a few records; a crowd beyond it waits in its callers.
pub(crate) const MAX_WAITING: usize = 1024;
/// Commits in one transaction: bounds how long the first of them waits for the last.
pub(crate) const MAX_BATCH: usize = 256;

type Reply = Result<Committed, CommitError>;

pub(crate) struct Request {
    pub(crate) changes: Vec<Change>,
    pub(crate) reply: oneshot::Sender<Reply>,
}

/// Starts the thread; it ends when the last sender is gone and all that waited is written.
pub(crate) fn start(
    state: Arc<State>,
    last_event: watch::Sender<u64>,
) -> std::io::Result<(mpsc::Sender<Request>, JoinHandle<()>)> {
    let (sender, mut receiver) = mpsc::channel::<Request>(MAX_WAITING);
    let thread = thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || {
            while let Some(first) = receiver.blocking_recv() {
                let mut batch = vec![first];
                while batch.len() < MAX_BATCH
                    && let Ok(next) = receiver.try_recv()
                {
                    batch.push(next);
                }
                write(&state, &last_event, batch);
            }
        })?;
    Ok((sender, thread))
}

fn write(state: &State, last_event: &watch::Sender<u64>, batch: Vec<Request>) {
    // Who has nothing to write asks whether this thread still answers.
    let (asking, batch): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .partition(|request| request.changes.is_empty());
    for Request { reply, .. } in asking {
        let _ = reply.send(Ok(Committed::default()));
    }
    if batch.is_empty() {
        return;
    }
    let (changes, callers): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .map(|request| (request.changes, request.reply))
        .unzip();
    let results = results(state, changes, callers.len());
    let newest = results
        .iter()
        .flatten()
        .filter_map(|committed| committed.events.last())
        .map(|event| event.number)
        .max();
    // Before the callers, so that whoever has an answer also sees its events.
    if let Some(number) = newest {
        last_event.send_replace(number);
    }
    for (caller, result) in callers.into_iter().zip(results) {
        // A caller that went away does not want the answer.
        let _ = caller.send(result);
    }
}

/// One answer for each of `callers`, whatever happens.
pub(crate) fn results(state: &State, changes: Vec<Vec<Change>>, callers: usize) -> Vec<Reply> {
    let refused = |reason| vec![Err(CommitError::ReadOnly { reason }); callers];
    if let Some(reason) = state.failure() {
        return refused(reason);
    }
    // redb can panic on a page that was damaged after it was opened. Nobody writes after that.
    let committed = catch_unwind(AssertUnwindSafe(|| {
        commit(&state.database(), changes, state.limits)
    }));
    let has_panicked = committed.is_err();
    let reason = match committed {
        Ok(Ok(results)) => {
            state.transactions.fetch_add(1, Ordering::Relaxed);
            return results;
        }
        Ok(Err(ReadError::Database(error))) => format!("a write failed: {error}"),
        Ok(Err(error @ ReadError::Value { .. })) => error.to_string(),
        Err(_) => "the database library panicked during a write".to_owned(),
    };
    state.fail(&reason, has_panicked);
    refused(reason)
}

/// One transaction of many commits, on disk when this returns. An error is of the transaction.
pub(crate) fn commit(
    database: &Database,
    batch: Vec<Vec<Change>>,
    limits: Limits,
) -> Result<Vec<Reply>, ReadError> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    let mut numbers = Numbers::read(&transaction)?;
    let mut results = Vec::with_capacity(batch.len());
    let mut operations = false;
    let mut decision_bytes: u64 = 0;
    for changes in batch {
        let has_operation = changes.iter().any(|c| matches!(c, Change::PutOperation(_)));
        results.push(match Plan::new(&transaction, numbers, changes) {
            Ok(plan) => {
                let written = plan.write()?;
                numbers = written.numbers;
                operations |= has_operation;
                decision_bytes = decision_bytes.saturating_add(written.decision_bytes);
                Ok(Committed {
                    events: written.events,
                })
            }
            Err(Refused::Conflict(conflict)) => Err(conflict.into()),
            Err(Refused::Unreadable(ReadError::Value { table, reason })) => {
                Err(CommitError::Damaged { table, reason })
            }
            Err(Refused::Unreadable(error)) => return Err(error),
        });
    }
    if operations {
        forget_operations(&transaction, limits.keep_operations)?;
    }
    if decision_bytes > 0 {
        forget_decisions(&transaction, limits.retention, decision_bytes)?;
    }
    transaction.commit()?;
    Ok(results)
}
