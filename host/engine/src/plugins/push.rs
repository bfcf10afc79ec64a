//! Pushing a component: stored first, then compiled, then asked about itself and its settings.
//!
//! Each step is written down, so that a revision that was being checked when the host was killed is
//! checked by the next one, and one that was refused says why.

use std::collections::BTreeSet;
use std::sync::Arc;

use roost_model::{Digest, EventKind, Grant, Name, Plugin, PluginRevision, RevisionState};
use roost_policy::{LoadedPlugin, SettingsError};
use roost_store::Change;

use crate::context::Context;
use crate::error::EngineError;
use crate::images::blocking;
use crate::plugins::bundled::is_bundled;

/// Largest component, bytes: a Python or JavaScript one has up to 20 MB.
const MAX_COMPONENT_BYTES: u64 = 64 << 20;
/// Longest settings, bytes: longer ones are refused by the policy host too.
const MAX_SETTINGS_BYTES: usize = 64 << 10;
/// Settings of a plugin that was given none.
const NO_SETTINGS: &str = "{}";

/// A component to be pushed.
#[derive(Debug, Clone)]
pub struct Push {
    /// The plugin; made if there is none.
    pub name: Name,
    /// The component.
    pub component: Vec<u8>,
    /// Its settings as JSON; empty: `{}`.
    pub settings: String,
    /// What it may import; none given: the log.
    pub grants: Option<BTreeSet<Grant>>,
}

impl Context {
    /// Stores a component as the next revision of a plugin and checks it.
    pub(crate) async fn push_plugin(&self, push: Push) -> Result<PluginRevision, EngineError> {
        let Push {
            name,
            component,
            settings,
            grants,
        } = push;
        let settings = if settings.is_empty() {
            NO_SETTINGS.to_owned()
        } else {
            settings
        };
        let grants = grants.unwrap_or_else(|| BTreeSet::from([Grant::Log]));
        let component: Arc<[u8]> = component.into();
        let claim = self.claims.lock().await;
        let (digest, size_bytes) = self.keep_component(Arc::clone(&component)).await?;

        let guard = self.plugins.lock().await;
        let found = self.store.plugin(&name)?;
        let mut plugin = found.unwrap_or_else(|| Plugin::new(name.clone()));
        let same = |r: &&PluginRevision| {
            r.digest == digest
                && r.settings == settings
                && r.grants == grants
                && r.state.is_usable()
        };
        if let Some(last) = plugin.revisions.last().filter(same) {
            return Ok(last.clone());
        }
        let revision = PluginRevision {
            revision: plugin.revisions.last().map_or(1, |r| r.revision + 1),
            digest,
            size_bytes,
            hooks: BTreeSet::new(),
            version: String::new(),
            settings,
            grants,
            state: RevisionState::Uploaded,
            pushed_at_ms: self.now_ms(),
        };
        plugin.revisions.push(revision.clone());
        self.store.commit(vec![Change::PutPlugin(plugin)]).await?;
        drop(claim);
        drop(guard);
        self.check(&name, revision, component).await
    }

    async fn keep_component(&self, component: Arc<[u8]>) -> Result<(Digest, u64), EngineError> {
        let mut upload = self.blobs.create(MAX_COMPONENT_BYTES)?;
        Ok(blocking(move || {
            upload.write(&component)?;
            upload.finish()
        })
        .await??)
    }

    /// Takes an uploaded revision through its checks.
    pub(crate) async fn check(
        &self,
        name: &Name,
        mut revision: PluginRevision,
        component: Arc<[u8]>,
    ) -> Result<PluginRevision, EngineError> {
        let result = async {
            // Before it is compiled: settings that no plugin takes are no reason to.
            if revision.settings.len() > MAX_SETTINGS_BYTES {
                return Err(SettingsError::TooLong {
                    bytes: revision.settings.len(),
                    limit: MAX_SETTINGS_BYTES,
                }
                .into());
            }
            let loaded = self.compile(component, revision.grants.clone()).await?;
            revision.hooks.clone_from(loaded.hooks());
            revision.version.clone_from(&loaded.description().version);
            revision.state = RevisionState::Compiled;
            self.write_revision(name, &revision, None).await?;
            let settings = revision.settings.clone();
            blocking(move || loaded.validate_settings(&settings)).await??;
            Ok::<_, EngineError>(())
        }
        .await;
        match result {
            Ok(()) => {
                revision.state = RevisionState::Validated;
                let pushed = EventKind::PluginPushed {
                    plugin: name.to_string(),
                    revision: revision.revision,
                };
                self.write_revision(name, &revision, Some(pushed)).await?;
                self.collect(name).await;
                Ok(revision)
            }
            Err(error @ (EngineError::Component(_) | EngineError::Settings(_))) => {
                Err(self.refuse(name, revision, error).await?)
            }
            // It is the host that failed; the revision is checked again when it starts.
            Err(error) => Err(error),
        }
    }

    async fn refuse(
        &self,
        name: &Name,
        mut revision: PluginRevision,
        error: EngineError,
    ) -> Result<EngineError, EngineError> {
        let reason = error.to_string();
        revision.state = RevisionState::Failed {
            reason: reason.clone(),
        };
        if matches!(error, EngineError::Settings(SettingsError::TooLong { .. })) {
            revision.settings = NO_SETTINGS.to_owned();
        }
        let number = revision.revision;
        let refused = EventKind::PluginRefused {
            plugin: name.to_string(),
            revision: number,
            reason,
        };
        self.write_revision(name, &revision, Some(refused)).await?;
        self.collect(name).await;
        Ok(EngineError::Refused {
            revision: number,
            source: Box::new(error),
        })
    }

    /// Compiles a component and has it describe itself.
    pub(crate) async fn compile(
        &self,
        component: Arc<[u8]>,
        grants: BTreeSet<Grant>,
    ) -> Result<LoadedPlugin, EngineError> {
        let runtime = self.policies.runtime().clone();
        Ok(blocking(move || {
            // What came with the binary may be compiled in this process.
            if is_bundled(&Digest::new(roost_policy::digest(&component))) {
                runtime.load_trusted(&component)
            } else {
                runtime.load_with(&component, &grants)
            }
        })
        .await??)
    }

    /// Writes a revision over the one of its number.
    async fn write_revision(
        &self,
        name: &Name,
        revision: &PluginRevision,
        event: Option<EventKind>,
    ) -> Result<(), EngineError> {
        let _guard = self.plugins.lock().await;
        let mut plugin = self.plugin(name)?;
        let found = plugin
            .revisions
            .iter_mut()
            .find(|r| r.revision == revision.revision);
        *found.ok_or_else(|| EngineError::RevisionNotFound {
            plugin: name.clone(),
            revision: revision.revision,
        })? = revision.clone();
        let event = event.map(|kind| Change::AppendEvent(self.host_event(kind)));
        let changes = [Change::PutPlugin(plugin)].into_iter().chain(event);
        self.store.commit(changes.collect()).await?;
        Ok(())
    }

    /// Checks the revisions that an earlier host process left unchecked.
    pub(crate) async fn finish_checks(&self) -> Result<(), EngineError> {
        for plugin in self.store.plugins()? {
            let unchecked = |r: &PluginRevision| {
                matches!(r.state, RevisionState::Uploaded | RevisionState::Compiled)
            };
            for revision in plugin.revisions.into_iter().filter(unchecked) {
                let component = self.read_component(&revision.digest).await?;
                if let Err(error) = self.check(&plugin.name, revision, component.into()).await {
                    tracing::warn!(plugin = %plugin.name, %error, "a pushed component was refused");
                }
            }
        }
        Ok(())
    }
}
