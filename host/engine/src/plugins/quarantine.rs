//! Revisions that failed too often: who they are is known to the policy host, and written down here
//! so that the next host process knows too.
//!
//! A change is written by a task of its own, in the order in which changes came about: a decision
//! does not wait for it, and one that is made again does not lose it.

use std::sync::Arc;
use std::time::Duration;

use roost_model::{EventKind, Name, Plugin, Quarantine, RevisionState};
use roost_policy::QuarantineChange;
use roost_store::{Change, CommitError};
use tokio::time::sleep;

use crate::context::Context;
use crate::error::EngineError;

/// How long to wait before a write that the store refused is tried again.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// A change that is to be written down.
pub(crate) struct Noted {
    change: QuarantineChange,
    by: By,
}

/// Who changed a quarantine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// A call, or the time that passed.
    Call,
    /// An operator who readmitted it.
    Operator,
    /// An operator who changed which revision is asked. That is an event of its own.
    Swap,
}

/// Writes changes down as they come, until the engine is dropped.
pub(crate) async fn run(context: Arc<Context>) {
    loop {
        let noted = context.with_noted(std::mem::take);
        if noted.is_empty() {
            context.quarantine_noted.notified().await;
            continue;
        }
        for noted in noted {
            while let Err(error) = context.write_quarantine(&noted).await {
                tracing::error!(%error, "a quarantine waits for the store");
                sleep(STORE_RETRY).await;
            }
        }
    }
}

impl Context {
    /// Takes note of changes; they are written down soon.
    pub(crate) fn note_quarantines(&self, changes: Vec<QuarantineChange>) {
        if changes.is_empty() {
            return;
        }
        for change in &changes {
            if change.now.is_some() {
                self.metrics.quarantined(&change.plugin);
                tracing::warn!(
                    plugin = change.plugin,
                    revision = change.revision,
                    "a revision is in quarantine"
                );
            }
        }
        let noted = changes.into_iter().map(|change| Noted {
            change,
            by: By::Call,
        });
        self.with_noted(|list| list.extend(noted));
        self.quarantine_noted.notify_one();
    }

    async fn write_quarantine(&self, noted: &Noted) -> Result<(), CommitError> {
        let QuarantineChange {
            plugin,
            revision,
            now,
        } = &noted.change;
        let revision = *revision;
        // Every plugin that is asked came out of the store by its name.
        let Ok(name) = plugin.parse::<Name>() else {
            return Ok(());
        };
        let (change, kind) = match now {
            Some(now) => (
                Change::PutQuarantine(Quarantine {
                    plugin: name,
                    revision,
                    reason: now.reason.clone(),
                    since_ms: self.now_ms(),
                    until_ms: now.until_ms,
                    round: now.round,
                }),
                EventKind::PluginQuarantined {
                    plugin: plugin.clone(),
                    revision,
                    reason: now.reason.clone(),
                    until_ms: Some(now.until_ms),
                },
            ),
            None => (
                Change::RemoveQuarantine {
                    plugin: name,
                    revision,
                },
                EventKind::PluginReadmitted {
                    plugin: plugin.clone(),
                    revision,
                    by_operator: noted.by == By::Operator,
                },
            ),
        };
        let mut changes = vec![change];
        if noted.by != By::Swap {
            changes.push(Change::AppendEvent(self.host_event(kind)));
        }
        self.store.commit(changes).await?;
        Ok(())
    }

    /// Has the policy host know of the quarantines that were written down.
    pub(crate) fn restore_quarantines(&self) -> Result<(), EngineError> {
        let quarantines = self.store.quarantines()?.into_iter().map(|quarantine| {
            let Quarantine {
                plugin,
                revision,
                reason,
                until_ms,
                round,
                ..
            } = quarantine;
            let now = roost_policy::Quarantine {
                until_ms,
                round,
                reason,
            };
            (plugin.to_string(), revision, now)
        });
        self.policies.restore_quarantine(quarantines);
        Ok(())
    }

    /// Ends the quarantines of the active revision and of the one in its shadow.
    pub(crate) fn readmit_plugin(&self, name: &Name) -> Result<Plugin, EngineError> {
        let mut plugin = self.plugin(name)?;
        for revision in [plugin.active, plugin.shadow].into_iter().flatten() {
            self.readmit(name, revision, By::Operator);
        }
        self.show_quarantines(&mut plugin);
        Ok(plugin)
    }

    /// Trusts a revision anew that begins to be asked, and forgets one that is not asked any more.
    pub(crate) fn readmit_changed(&self, before: &Plugin, after: &Plugin) {
        let asked =
            |plugin: &Plugin, revision| [plugin.active, plugin.shadow].contains(&Some(revision));
        for revision in after.revisions.iter().map(|r| r.revision) {
            if !asked(before, revision) || !asked(after, revision) {
                self.readmit(&after.name, revision, By::Swap);
            }
        }
    }

    fn readmit(&self, name: &Name, revision: u64, by: By) {
        if self.policies.quarantine(name.as_str(), revision).is_none() {
            return;
        }
        self.policies.readmit(name.as_str(), revision);
        let change = QuarantineChange {
            plugin: name.to_string(),
            revision,
            now: None,
        };
        self.with_noted(|list| list.push(Noted { change, by }));
        self.quarantine_noted.notify_one();
    }

    /// Puts the state *quarantined* on revisions that are: it comes and goes with calls, so it is
    /// not in their record.
    pub(crate) fn show_quarantines(&self, plugin: &mut Plugin) {
        for revision in &mut plugin.revisions {
            if !matches!(
                revision.state,
                RevisionState::Active | RevisionState::Shadow
            ) {
                continue;
            }
            let name = plugin.name.as_str();
            if let Some(quarantine) = self.policies.quarantine(name, revision.revision) {
                revision.state = RevisionState::Quarantined {
                    reason: quarantine.reason,
                    until_ms: quarantine.until_ms,
                };
            }
        }
    }
}
