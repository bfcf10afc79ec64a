//! Comparing what is written down with what is there.
//!
//! ```text
//!   every minute, and on request
//!     │
//!     ├─▶ each actor that is idle: record ⇄ worker, sockets, disks, TAPs, usage window
//!     │     an actor that is not has something under way and is not asked again: it counts as busy
//!     └─▶ here: everything that no record owns, and files that records name
//!           the node is looked at first, then the records: what is in neither twice is a finding
//! ```
//!
//! A finding goes the way of everything else: a resource to the cleanup queue, a lost worker to the
//! recovery policy, what a host can't put right to a person.

mod unowned;
mod vm;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use roost_model::{
    ActionId, ActionRequired, AuditReport, Divergence, DivergenceKind, Effect, EventKind, NewEvent,
    Repair, Resolution, VmId,
};
use roost_store::Change;
use roost_worker::WorkerIdentity;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use crate::context::{Context, new_uuid};
use crate::error::EngineError;

/// How long actors together may take to answer. An idle one looks at a dozen files.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an actor is asked.
pub(crate) struct Inspection {
    pub(crate) repair: bool,
    pub(crate) reply: oneshot::Sender<Inspected>,
}

/// What an idle actor answers.
#[derive(Debug)]
pub(crate) struct Inspected {
    /// The process that it holds.
    pub(crate) worker: Option<WorkerIdentity>,
    /// What it found, and what it did about it.
    pub(crate) found: Vec<Divergence>,
}

/// Audits until the engine is dropped; the first time at once, for what an earlier host left.
pub(crate) async fn run(context: Arc<Context>) {
    let Some(interval) = context.config.audit_interval else {
        return;
    };
    loop {
        if let Err(error) = context.audit(true).await {
            tracing::error!(%error, "the audit could not be made");
        }
        sleep(interval).await;
    }
}

impl Context {
    /// Compares records with the node, and repairs what does not agree if `repair` says so.
    pub(crate) async fn audit(&self, repair: bool) -> Result<AuditReport, EngineError> {
        let _turn = self.audits.lock().await;
        let (at_ms, begun) = (self.now_ms(), Instant::now());
        let seen = self.look_at_node().await?;
        let (inspected, busy) = self.inspect(repair).await;
        let mut divergences = Vec::new();
        for (kind, vm) in self.unowned(seen, &inspected, &busy).await? {
            divergences.push(Divergence {
                kind,
                vm,
                repair: Repair::None,
            });
        }
        for inspected in inspected.values() {
            divergences.extend(inspected.found.iter().cloned());
        }
        if repair {
            self.repair(&mut divergences).await?;
            self.forget_vanished(&divergences, &busy).await?;
        }
        let report = AuditReport {
            at_ms,
            elapsed_us: u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
            checked: inspected.len() as u64,
            busy: busy.len() as u64,
            divergences,
        };
        self.metrics.audited(&report);
        Ok(report)
    }

    /// Asks every actor that is idle.
    async fn inspect(&self, repair: bool) -> (HashMap<VmId, Inspected>, HashSet<VmId>) {
        let deadline = Instant::now() + PATIENCE;
        let actors = self.with_actors(|actors| actors.clone());
        let mut asked = Vec::with_capacity(actors.len());
        let mut busy = HashSet::new();
        for (vm, actor) in actors {
            let (reply, answer) = oneshot::channel();
            if actor.inspect(Inspection { repair, reply }) {
                asked.push((vm, answer));
            } else {
                busy.insert(vm);
            }
        }
        let mut inspected = HashMap::with_capacity(asked.len());
        for (vm, answer) in asked {
            match timeout_at(deadline, answer).await {
                Ok(Ok(answer)) => {
                    inspected.insert(vm, answer);
                }
                Ok(Err(_)) | Err(_) => {
                    busy.insert(vm);
                }
            }
        }
        // One that was deleted meanwhile is not busy any more.
        busy.retain(|vm| self.actor(*vm).is_some());
        (inspected, busy)
    }

    /// Does something about every finding about which nothing is done yet, and writes all down.
    async fn repair(&self, divergences: &mut [Divergence]) -> Result<(), EngineError> {
        let actions = self.store.actions_required()?;
        let mut changes = Vec::new();
        for found in divergences {
            if found.repair != Repair::None {
                continue;
            }
            let known = actions
                .iter()
                .find(|action| action.vm == found.vm && action.found.as_ref() == Some(&found.kind));
            if let Some(action) = known {
                found.repair = Repair::ActionRequired { action: action.id };
                continue;
            }
            let (repair, repairs) = match found.kind.what_to_do() {
                Some(what) => self.require_action(&found.kind, found.vm, what),
                None => self.repair_unowned(&found.kind, found.vm),
            };
            found.repair = repair;
            changes.extend(repairs);
            changes.push(Change::AppendEvent(self.diverged(found.clone())));
        }
        if !changes.is_empty() {
            self.write(Effect::WriteDivergence, changes).await?;
            self.cleanup_due.notify_one();
        }
        Ok(())
    }

    fn require_action(
        &self,
        kind: &DivergenceKind,
        vm: Option<VmId>,
        what: String,
    ) -> (Repair, Vec<Change>) {
        let action = ActionRequired {
            id: ActionId::from_uuid(new_uuid()),
            vm,
            task: None,
            found: Some(kind.clone()),
            what: what.clone(),
            at_ms: self.now_ms(),
        };
        let id = action.id;
        let event = NewEvent {
            vm,
            ..self.host_event(EventKind::ActionRequired { action: id, what })
        };
        let changes = vec![Change::PutAction(action), Change::AppendEvent(event)];
        (Repair::ActionRequired { action: id }, changes)
    }

    /// The event of a finding.
    pub(crate) fn diverged(&self, found: Divergence) -> NewEvent {
        NewEvent {
            vm: found.vm,
            ..self.host_event(EventKind::Diverged {
                found: found.kind,
                repair: found.repair,
            })
        }
    }

    /// Removes what was asked of a person about a finding that is no more.
    async fn forget_vanished(
        &self,
        divergences: &[Divergence],
        busy: &HashSet<VmId>,
    ) -> Result<(), EngineError> {
        let mut changes = Vec::new();
        for action in self.store.actions_required()? {
            let Some(kind) = &action.found else { continue };
            let still = divergences
                .iter()
                .any(|found| found.vm == action.vm && found.kind == *kind);
            let unknown = action.vm.is_some_and(|vm| busy.contains(&vm));
            if still || unknown {
                continue;
            }
            changes.extend(self.resolution(&action, Resolution::Vanished));
        }
        if !changes.is_empty() {
            self.write(Effect::WriteDivergence, changes).await?;
        }
        Ok(())
    }
}
