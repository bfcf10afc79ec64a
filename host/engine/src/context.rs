//! What every part of the engine shares.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use roost_model::{Effect, EventKind, NewEvent, VmId, VmRecord};
use roost_policy::PolicyHost;
use roost_store::{Blobs, Change, CommitError, Committed, Store};
use roost_worker::Backend;
use tokio::sync::{Notify, Semaphore, watch};

use crate::actor::ActorRef;
use crate::config::Config;
use crate::descriptors;
use crate::emptying::MAX_STOPS;
use crate::ending::Ending;
use crate::error::EngineError;
use crate::leases::Leases;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::plugins::{InUse, Noted, PluginLogs};

pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) blobs: Blobs,
    pub(crate) policies: PolicyHost,
    pub(crate) backend: Node,
    /// One entry per VM, made and removed together with its record.
    actors: Mutex<HashMap<VmId, ActorRef>>,
    pub(crate) leases: Leases,
    /// Serializes changes of plugins and bindings, so that the active set follows the store.
    pub(crate) plugins: tokio::sync::Mutex<()>,
    /// Held while a file of `blobs` has no record yet, and while files without one are removed.
    /// Taken before `plugins`.
    pub(crate) claims: tokio::sync::Mutex<()>,
    /// One audit at a time.
    pub(crate) audits: tokio::sync::Mutex<()>,
    /// Decisions whose plugin's values changed under them take turns.
    pub(crate) kv_turn: tokio::sync::Mutex<()>,
    /// One replay at a time: it takes a core for as long as it runs.
    pub(crate) replays: Arc<Semaphore>,
    /// Bounds recovery boots.
    pub(crate) recoveries: Arc<Semaphore>,
    /// What holds back boots.
    pub(crate) ending: Ending,
    /// Drains begin and end one after another.
    pub(crate) drains: tokio::sync::Mutex<()>,
    /// Drains whose VMs have not all answered yet.
    pub(crate) emptying: watch::Sender<u32>,
    /// Bounds how many VMs are told to end, or ended, at once when the node is emptied.
    pub(crate) stops: Arc<Semaphore>,
    pub(crate) plugin_logs: PluginLogs,
    pub(crate) metrics: Metrics,
    in_use: Mutex<InUse>,
    noted: Mutex<Vec<Noted>>,
    pub(crate) quarantine_noted: Notify,
    pub(crate) cleanup_due: Notify,
    pub(crate) windows_closed: Notify,
}

/// One line of the readiness report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyCheck {
    /// What was looked at.
    pub name: &'static str,
    /// Whether it is fine.
    pub ok: bool,
    /// One sentence for a person.
    pub detail: String,
}

impl Context {
    pub(crate) fn new(
        config: Config,
        store: Store,
        blobs: Blobs,
        policies: PolicyHost,
        backend: Arc<dyn Backend>,
    ) -> Result<Self, EngineError> {
        let metrics = Metrics::new().map_err(|error| EngineError::Metrics(error.to_string()))?;
        metrics.show_divergences();
        let recoveries = Arc::new(Semaphore::new(config.max_recoveries.max(1)));
        let backend = Node::new(backend, config.faults.clone());
        Ok(Self {
            config,
            store,
            blobs,
            policies,
            backend,
            actors: Mutex::default(),
            leases: Leases::default(),
            plugins: tokio::sync::Mutex::default(),
            claims: tokio::sync::Mutex::default(),
            audits: tokio::sync::Mutex::default(),
            kv_turn: tokio::sync::Mutex::default(),
            recoveries,
            ending: Ending::new(),
            drains: tokio::sync::Mutex::default(),
            emptying: watch::Sender::default(),
            stops: Arc::new(Semaphore::new(MAX_STOPS)),
            replays: Arc::new(Semaphore::new(1)),
            plugin_logs: PluginLogs::default(),
            metrics,
            in_use: Mutex::default(),
            noted: Mutex::default(),
            quarantine_noted: Notify::new(),
            cleanup_due: Notify::new(),
            windows_closed: Notify::new(),
        })
    }

    /// Runs `with` on what is known of the set that decides.
    pub(crate) fn with_in_use<T>(&self, with: impl FnOnce(&mut InUse) -> T) -> T {
        with(&mut self.in_use.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs `with` on the changes of quarantines that are not written down yet.
    pub(crate) fn with_noted<T>(&self, with: impl FnOnce(&mut Vec<Noted>) -> T) -> T {
        with(&mut self.noted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Commits `changes`, which is `effect`.
    pub(crate) async fn write(
        &self,
        effect: Effect,
        changes: Vec<Change>,
    ) -> Result<Committed, CommitError> {
        let committing = self.store.commit(changes);
        self.config.faults.around(effect, committing).await
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.config.clock.now_ms()
    }

    /// The VM's own directory: control socket and kept serial output.
    pub(crate) fn run_dir(&self, vm: VmId) -> PathBuf {
        self.config.run_dir.join(vm.to_string())
    }

    pub(crate) fn actor(&self, vm: VmId) -> Option<ActorRef> {
        self.actors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&vm)
            .cloned()
    }

    /// Runs `change` on the map of actors.
    pub(crate) fn with_actors<T>(
        &self,
        change: impl FnOnce(&mut HashMap<VmId, ActorRef>) -> T,
    ) -> T {
        change(&mut self.actors.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An event about `record`'s VM in its current incarnation.
    pub(crate) fn vm_event(&self, record: &VmRecord, kind: EventKind) -> NewEvent {
        NewEvent {
            at_ms: self.now_ms(),
            vm: Some(record.id),
            tenant: Some(record.spec.tenant.clone()),
            incarnation: (record.incarnation > 0).then_some(record.incarnation),
            kind,
        }
    }

    /// Whether this host can do its work: the store takes writes, policies are loaded, and nothing
    /// holds back boots.
    pub(crate) fn ready(&self) -> Vec<ReadyCheck> {
        let store = match self.store.read_only() {
            None => ReadyCheck {
                name: "store",
                ok: true,
                detail: "takes writes".to_owned(),
            },
            Some(reason) => ReadyCheck {
                name: "store",
                ok: false,
                detail: reason,
            },
        };
        let active = self.policies.active();
        let policies = ReadyCheck {
            name: "policies",
            ok: active > 0,
            detail: format!("{active} plugins are active"),
        };
        let boots = match self.ending.check() {
            Ok(()) => ReadyCheck {
                name: "boots",
                ok: true,
                detail: "VMs are taken and booted".to_owned(),
            },
            Err(error) => ReadyCheck {
                name: "boots",
                ok: false,
                detail: error.to_string(),
            },
        };
        vec![store, policies, boots]
    }

    /// What of the node a boot needs: it is looked at by using it, which may block.
    pub(crate) fn node_ready(&self) -> [ReadyCheck; 2] {
        let kvm = self.backend.check();
        let files = descriptors::check(descriptors::PER_BOOT);
        [
            ReadyCheck {
                name: "kvm",
                ok: kvm.is_ok(),
                detail: kvm.map_or_else(|error| error.to_string(), |()| "makes VMs".to_owned()),
            },
            ReadyCheck {
                name: "descriptors",
                ok: files.is_ok(),
                detail: files.map_or_else(
                    |error| error.to_string(),
                    |()| "there are enough for a boot".to_owned(),
                ),
            },
        ]
    }

    /// An event about no VM.
    pub(crate) fn host_event(&self, kind: EventKind) -> NewEvent {
        NewEvent {
            at_ms: self.now_ms(),
            vm: None,
            tenant: None,
            incarnation: None,
            kind,
        }
    }
}

/// A fresh UUID of version 7.
pub(crate) fn new_uuid() -> uuid::Uuid {
    uuid::Uuid::now_v7()
}

/// A seed for one policy call: random, so that jitter spreads.
pub(crate) fn new_seed() -> u64 {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    high ^ low
}
