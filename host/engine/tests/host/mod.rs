//! A host in a temporary directory, and waiting for what it writes down.
#![allow(dead_code, reason = "each test uses some of it")]

pub(crate) mod component;
pub(crate) mod fake;
pub(crate) mod policy;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use roost_engine::{
    Blobs, Config, Engine, OpenError, PolicyHost, PolicyRuntime, RuntimeConfig, Store,
    StoreServices,
};
use roost_model::{
    Event, EventKind, Operation, OperationId, OperationState, Verb, VmId, VmRecord, VmSpec,
};
use roost_worker::{Backend, InProcessBackend};

/// Longest that anything here may take; a promise that is kept is kept in a fraction of it.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) engine: Engine,
    tune: Tune,
}

type Tune = Arc<dyn Fn(&mut Config) + Send + Sync>;

pub(crate) fn kvm() -> File {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .expect("these tests run guests: they need /dev/kvm, readable and writable")
}

pub(crate) fn in_process() -> Arc<dyn Backend> {
    Arc::new(InProcessBackend::new(kvm()))
}

impl Host {
    pub(crate) async fn start(backend: Arc<dyn Backend>) -> Self {
        Self::start_with(backend, |_| ()).await
    }

    /// [`Self::start`], with a configuration of its own; a restart keeps it.
    pub(crate) async fn start_with(
        backend: Arc<dyn Backend>,
        tune: impl Fn(&mut Config) + Send + Sync + 'static,
    ) -> Self {
        let tune: Tune = Arc::new(tune);
        let dir = tempfile::tempdir().unwrap();
        let engine = start(dir.path().to_owned(), backend, &tune).await;
        Self { dir, engine, tune }
    }

    /// Ends the engine and starts another on the same directory.
    pub(crate) async fn restart(self, backend: Arc<dyn Backend>) -> Self {
        self.restart_after(backend, async |_| ()).await
    }

    /// [`Self::restart`], with `meanwhile` writing to the store in between.
    pub(crate) async fn restart_after(
        self,
        backend: Arc<dyn Backend>,
        meanwhile: impl AsyncFnOnce(&Store),
    ) -> Self {
        self.engine.shutdown().await;
        drop(self.engine);
        let store = open_store(&self.dir.path().join("store")).await;
        meanwhile(&store).await;
        drop(store);
        let engine = start(self.dir.path().to_owned(), backend, &self.tune).await;
        Self {
            dir: self.dir,
            engine,
            tune: self.tune,
        }
    }

    /// A VM of `kernel`, created and not booted.
    pub(crate) async fn create(&self, name: &str, kernel: &[u8]) -> VmRecord {
        self.create_with(name, kernel, serde_json::json!({})).await
    }

    /// [`Self::create`], with more in its spec.
    pub(crate) async fn create_with(
        &self,
        name: &str,
        kernel: &[u8],
        more: serde_json::Value,
    ) -> VmRecord {
        let mut upload = self.engine.blobs().create(kernel.len() as u64).unwrap();
        upload.write(kernel).unwrap();
        let image = self.engine.add_image(upload, None).await.unwrap();
        let mut spec =
            serde_json::json!({ "name": name, "kernel": image.digest, "memory_mib": 64 });
        if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
            spec.extend(more.clone());
        }
        self.engine
            .create(serde_json::from_value::<VmSpec>(spec).unwrap())
            .await
            .unwrap()
    }

    /// Takes a verb to its end, which must be a success.
    pub(crate) async fn succeed(&self, vm: VmId, verb: Verb) -> Operation {
        let operation = self.engine.submit(vm, verb, None).await.unwrap();
        let operation = self.engine.wait(operation.id, PATIENCE).await.unwrap();
        assert_eq!(operation.state, OperationState::Succeeded, "{operation:?}");
        operation
    }

    /// An operation when it is done, whatever came of it.
    pub(crate) async fn done(&self, operation: OperationId) -> Operation {
        let operation = self.engine.wait(operation, PATIENCE).await.unwrap();
        assert!(operation.is_done(), "{operation:?}");
        operation
    }

    pub(crate) fn record(&self, vm: VmId) -> VmRecord {
        self.engine
            .store()
            .vm(vm)
            .unwrap()
            .expect("the VM has a record")
    }

    /// Waits for serial output that holds `text`; returns all output so far.
    pub(crate) async fn output(&self, vm: VmId, text: &str) -> String {
        let wait = async {
            loop {
                let chunk = self.engine.serial_read(vm, 0, usize::MAX).await.unwrap();
                let output = String::from_utf8_lossy(&chunk.bytes).into_owned();
                if output.contains(text) {
                    return output;
                }
                let end = chunk.offset + chunk.bytes.len() as u64;
                self.engine.serial_wait(vm, end, PATIENCE).await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("no {text:?}"))
    }

    /// Waits until `wanted` says yes to an event after number `after`.
    pub(crate) async fn event(&self, after: u64, wanted: impl Fn(&EventKind) -> bool) -> Event {
        let store = self.engine.store();
        let mut numbers = store.watch_events();
        let wait = async {
            loop {
                numbers.borrow_and_update();
                let events = store.events(after, usize::MAX).unwrap();
                if let Some(event) = events.into_iter().find(|event| wanted(&event.event.kind)) {
                    return event;
                }
                numbers.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("the event comes")
    }

    /// Waits until the VM's observed state is `state`.
    pub(crate) async fn state(&self, vm: VmId, state: &str) -> VmRecord {
        let mut numbers = self.engine.store().watch_events();
        let wait = async {
            loop {
                numbers.borrow_and_update();
                let record = self.record(vm);
                if record.state.name() == state {
                    return record;
                }
                numbers.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("the state is reached")
    }

    /// How often a plugin was asked.
    pub(crate) fn calls(&self, plugin: &str) -> u64 {
        let shown = self.engine.show_plugin(&plugin.parse().unwrap()).unwrap();
        shown.statistics.iter().map(|of_hook| of_hook.calls).sum()
    }

    /// Waits until `holds` does, which nothing announces.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let wait = async {
            while !holds() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("{what}"));
    }

    pub(crate) fn run_dirs(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("run"))
            .unwrap()
            .count()
    }
}

/// The store of an engine that has just ended is let go of by its last task, soon.
async fn open_store(dir: &Path) -> Store {
    let wait = async {
        loop {
            match Store::open(dir) {
                Err(OpenError::Locked(_)) => tokio::task::yield_now().await,
                opened => return opened.unwrap(),
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("the store is let go of")
}

async fn start(dir: PathBuf, backend: Arc<dyn Backend>, tune: &Tune) -> Engine {
    let store = open_store(&dir.join("store")).await;
    let blobs = Blobs::open(&dir.join("blobs")).unwrap();
    let mut config = Config {
        counter_interval: Duration::from_millis(20),
        usage_window: Duration::from_millis(100),
        ..Config::new(dir.join("run"))
    };
    tune(&mut config);
    let services = StoreServices::new(store.clone(), config.kv_quota);
    let runtime = PolicyRuntime::with(RuntimeConfig {
        services: Some(Arc::new(services)),
        ..RuntimeConfig::default()
    });
    let policies = PolicyHost::new(runtime.unwrap());
    Engine::start(config, store, blobs, policies, backend)
        .await
        .unwrap()
}
