//! Forgetting old revisions, and the components that nothing refers to.

use std::collections::BTreeSet;

use roost_model::{Digest, Name, Plugin, RevisionState};
use roost_store::Change;

use crate::context::Context;
use crate::error::EngineError;
use crate::images::blocking;
use crate::plugins::bundled::is_bundled;

/// Takes old revisions out of `plugin`: of those that nobody needs, the newest `keep` of each state
/// stay, and those that are pinned. Returns whether any went.
fn forget(plugin: &mut Plugin, keep: usize, is_pinned: impl Fn(&Digest) -> bool) -> bool {
    let needed = [plugin.active, plugin.previous, plugin.shadow];
    let mut kept = [0_usize; 3];
    let before = plugin.revisions.len();
    let mut newest_first = std::mem::take(&mut plugin.revisions);
    newest_first.reverse();
    newest_first.retain(|revision| {
        let class = match revision.state {
            RevisionState::Validated => 0,
            RevisionState::Retired => 1,
            RevisionState::Failed { .. } => 2,
            _ => return true,
        };
        if needed.contains(&Some(revision.revision)) || is_pinned(&revision.digest) {
            return true;
        }
        let Some(kept) = kept.get_mut(class) else {
            return true;
        };
        *kept += 1;
        *kept <= keep
    });
    newest_first.reverse();
    plugin.revisions = newest_first;
    plugin.revisions.len() < before
}

/// The components that a plugin needs. Of a refused one only the reason is kept.
fn components(plugin: &Plugin) -> impl Iterator<Item = Digest> + '_ {
    let kept = |state: &RevisionState| !matches!(state, RevisionState::Failed { .. });
    let revisions = plugin.revisions.iter().filter(move |r| kept(&r.state));
    revisions.map(|r| r.digest)
}

impl Context {
    /// Forgets what is not needed of plugin `name`. What can't be removed now is tried again at the
    /// plugin's next change.
    pub(crate) async fn collect(&self, name: &Name) {
        if let Err(error) = self.try_collect(name).await {
            tracing::warn!(plugin = %name, %error, "old revisions could not be removed");
        }
    }

    async fn try_collect(&self, name: &Name) -> Result<(), EngineError> {
        // Nobody takes a component into use while it is looked at and removed.
        let _claim = self.claims.lock().await;
        let _guard = self.plugins.lock().await;
        let mut plugin = self.plugin(name)?;
        let before: BTreeSet<Digest> = plugin.revisions.iter().map(|r| r.digest).collect();
        if forget(&mut plugin, self.config.kept_revisions, is_bundled) {
            let changes = vec![Change::PutPlugin(plugin.clone())];
            self.store.commit(changes).await?;
        }
        let mut unneeded = before;
        for plugin in self.store.plugins()? {
            for digest in components(&plugin) {
                unneeded.remove(&digest);
            }
        }
        for digest in unneeded {
            if self.store.image(&digest)?.is_none() {
                let blobs = self.blobs.clone();
                blocking(move || blobs.remove(&digest)).await??;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_model::PluginRevision;

    fn plugin(states: &[(u64, RevisionState)]) -> Plugin {
        let revision = |(number, state): &(u64, RevisionState)| PluginRevision {
            revision: *number,
            digest: Digest::new([0; 32]),
            size_bytes: 1,
            hooks: BTreeSet::new(),
            version: String::new(),
            settings: "{}".to_owned(),
            grants: BTreeSet::new(),
            state: state.clone(),
            pushed_at_ms: 1,
        };
        Plugin {
            revisions: states.iter().map(revision).collect(),
            ..Plugin::new("p".parse().unwrap())
        }
    }

    fn numbers(plugin: &Plugin) -> Vec<u64> {
        plugin.revisions.iter().map(|r| r.revision).collect()
    }

    #[test]
    fn the_newest_of_each_state_stay_and_what_is_in_use_always_does() {
        use RevisionState::{Active, Retired, Shadow, Validated};
        let failed = RevisionState::Failed {
            reason: "no".to_owned(),
        };
        let mut plugin = plugin(&[
            (1, Retired),
            (2, Retired),
            (3, failed.clone()),
            (4, Retired),
            (5, Retired),
            (6, Active),
            (7, Validated),
            (8, failed.clone()),
            (9, Shadow),
            (10, failed),
            (11, Validated),
        ]);
        (plugin.active, plugin.previous, plugin.shadow) = (Some(6), Some(1), Some(9));
        assert!(forget(&mut plugin, 2, |_| false));
        assert_eq!(numbers(&plugin), [1, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert!(!forget(&mut plugin, 2, |_| false));
        assert!(forget(&mut plugin, 0, |_| false));
        assert_eq!(numbers(&plugin), [1, 6, 9]);
    }
}
