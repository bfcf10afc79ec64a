//! Every kind of divergence is injected, found, and repaired or told to a person.

mod host;

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use host::Host;
use host::fake::{Fake, SOCKET};
use roost_model::{
    AuditReport, Divergence, DivergenceKind, EventKind, Incident, IncidentId, IncidentKind,
    OpenWindow, Operation, OperationId, OperationState, Origin, Repair, Verb, VmId, VmRecord,
    VmState, WindowClose, WindowKey,
};
use roost_store::{Change, Expect};
use serde_json::json;

/// A VM that was booted, and the backend that it "runs" on.
struct Scene {
    host: Host,
    backend: Arc<Fake>,
    vm: VmId,
}

impl Scene {
    /// A host with a VM of which nothing diverges.
    async fn new() -> Self {
        let backend = Fake::new();
        let host = Host::start_with(backend.clone(), |config| {
            // Only the test audits, and no counters that are read write a window again.
            config.audit_interval = None;
            config.counter_interval = Duration::from_secs(3600);
        })
        .await;
        let vm = stranger();
        let scene = Self { host, backend, vm }.with_vm("vm", json!({})).await;
        assert_eq!(scene.look().await.divergences, []);
        scene
    }

    /// The same host, with another VM, booted.
    async fn with_vm(mut self, name: &str, more: serde_json::Value) -> Self {
        let vm = self.host.create_with(name, roost_guests::HELLO, more).await;
        self.vm = vm.id;
        self.host.succeed(self.vm, Verb::Boot).await;
        self
    }

    /// An audit in which nobody was busy.
    async fn audit(&self, repair: bool) -> AuditReport {
        loop {
            let report = self.host.engine.audit(repair).await.unwrap();
            if report.busy == 0 {
                return report;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn look(&self) -> AuditReport {
        self.audit(false).await
    }

    fn record(&self) -> VmRecord {
        self.host.record(self.vm)
    }

    fn pid(&self) -> u32 {
        self.record().worker.unwrap().pid.unwrap()
    }

    fn run_dir(&self, vm: VmId) -> std::path::PathBuf {
        self.host.dir.path().join("run").join(vm.to_string())
    }

    async fn write(&self, changes: Vec<Change>) {
        self.host.engine.store().commit(changes).await.unwrap();
    }

    fn tap(&self) -> String {
        let id = self.vm.to_string();
        format!("rt{}-0", &id[id.len() - 11..])
    }
}

/// What a repair leads to.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// The next audit finds nothing.
    Gone,
    /// A person is told, until it is put right.
    Told,
}

/// A VM that there is no record of.
fn stranger() -> VmId {
    VmId::from_uuid(uuid::Uuid::from_u128(
        0x0189_0000_0000_7000_8000_0000_0000_0001,
    ))
}

fn may_make_taps() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
        && fs::exists("/dev/net/tun").unwrap()
}

/// Injects the kind of this name; returns how it ends.
async fn inject(scene: Scene, name: &str) -> (Scene, Outcome) {
    let more = match name {
        "disk-missing" | "disks-unrecorded" => {
            json!({ "disks": [{ "name": "data", "size_mib": 1 }] })
        }
        "tap-missing" | "tap-left" => json!({ "networks": [{ "name": "net" }] }),
        _ => json!({}),
    };
    let scene = scene.with_vm(name, more).await;
    let mut outcome = Outcome::Gone;
    match name {
        "worker-missing" => scene.backend.vanish(scene.pid()),
        "worker-unrecorded" => drop(scene.backend.stray(scene.vm)),
        "control-socket-missing" => {
            fs::remove_file(scene.run_dir(scene.vm).join(SOCKET)).unwrap();
            outcome = Outcome::Told;
        }
        "sockets-left" => {
            scene.host.succeed(scene.vm, Verb::Shutdown).await;
            fs::create_dir_all(scene.run_dir(scene.vm)).unwrap();
            fs::write(scene.run_dir(scene.vm).join(SOCKET), "").unwrap();
        }
        "run-directory-unrecorded" => fs::create_dir(scene.run_dir(stranger())).unwrap(),
        "disks-unrecorded" => {
            let dir = scene.host.dir.path().join("disks");
            let dir = dir.join(stranger().to_string());
            fs::DirBuilder::new().mode(0o700).create(dir).unwrap();
        }
        "disk-missing" => {
            let dir = scene.host.dir.path().join("disks");
            fs::remove_file(dir.join(scene.vm.to_string()).join("data.raw")).unwrap();
            outcome = Outcome::Told;
        }
        "tap-missing" => {
            roost_worker::tap::delete(&scene.tap()).unwrap();
            outcome = Outcome::Told;
        }
        "tap-left" => {
            scene.host.succeed(scene.vm, Verb::Shutdown).await;
            roost_worker::tap::create(&scene.tap(), true).unwrap();
        }
        "window-missing" => {
            scene.write(vec![Change::RemoveOpenWindow(scene.vm)]).await;
        }
        "window-left" => {
            scene.host.succeed(scene.vm, Verb::Shutdown).await;
            let key = WindowKey {
                vm: scene.vm,
                incarnation: 1,
                sequence: 1000,
            };
            scene.write(vec![Change::PutOpenWindow(window(key))]).await;
        }
        "state-stuck" => {
            let Scene { host, backend, vm } = scene;
            let host = host
                .restart_after(backend.clone(), async |store| {
                    let before = store.vm(vm).unwrap().unwrap();
                    let expect = Expect::Revision(before.revision);
                    let record = VmRecord {
                        revision: before.revision + 1,
                        state: VmState::Pausing,
                        ..before
                    };
                    let changes = vec![Change::PutVm { record, expect }];
                    store.commit(changes).await.unwrap();
                })
                .await;
            return (Scene { host, backend, vm }, Outcome::Told);
        }
        "operation-unowned" => {
            let operation = Operation {
                id: OperationId::from_uuid(uuid::Uuid::now_v7()),
                vm: stranger(),
                verb: Verb::Boot,
                origin: Origin::User,
                grace: None,
                not_before_ms: None,
                state: OperationState::Running,
                steps: Vec::new(),
                created_at_ms: 1,
                updated_at_ms: 1,
            };
            scene.write(vec![Change::PutOperation(operation)]).await;
        }
        "incident-unowned" => {
            let incident = Incident {
                id: IncidentId::from_uuid(uuid::Uuid::now_v7()),
                vm: stranger(),
                incarnation: 1,
                kind: IncidentKind::WorkerMissing,
                at_ms: 1,
                decision: None,
                closed: false,
            };
            scene.write(vec![Change::PutIncident(incident)]).await;
        }
        "image-missing" => {
            let kernel = scene.record().kernel.hex();
            fs::remove_file(scene.host.dir.path().join("blobs").join(kernel)).unwrap();
            outcome = Outcome::Told;
        }
        "policy-missing" => {
            let plugins = scene.host.engine.store().plugins().unwrap();
            let active = plugins[0].active_revision().unwrap();
            let blobs = scene.host.dir.path().join("blobs");
            fs::remove_file(blobs.join(active.digest.hex())).unwrap();
            outcome = Outcome::Told;
        }
        other => panic!("nobody says how {other} comes about"),
    }
    (scene, outcome)
}

fn window(key: WindowKey) -> OpenWindow {
    OpenWindow {
        key,
        start_ms: 1,
        start_counters: roost_model::Counters::default(),
        counters_at_ms: 1,
        counters: roost_model::Counters::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_divergence_is_found_and_repaired_or_told_to_a_person() {
    let mut scene = Scene::new().await;
    for name in DivergenceKind::NAMES {
        if name.starts_with("tap-") && !may_make_taps() {
            println!("{name}: this user may make no TAPs");
            continue;
        }
        let outcome;
        (scene, outcome) = inject(scene, name).await;
        let is_it = |found: &&Divergence| found.kind.name() == name;
        let looked = scene.look().await;
        let found = looked.divergences.iter().find(is_it);
        let found = found.unwrap_or_else(|| panic!("{name} is not found: {looked:?}"));
        assert_eq!(
            found.repair,
            Repair::None,
            "{name}: looking changes nothing"
        );

        let report = scene.audit(true).await;
        let found = report.divergences.iter().find(is_it).unwrap().clone();
        let store = scene.host.engine.store();
        let event = |kind: &EventKind| matches!(kind, EventKind::Diverged { found: told, .. } if *told == found.kind);
        scene.host.event(0, event).await;
        let metrics = scene.host.engine.metrics().await.unwrap();
        let line = format!("roost_divergences_total{{kind=\"{name}\"}} ");
        let count = metrics.lines().find_map(|text| text.strip_prefix(&line));
        assert_ne!(count, Some("0"), "{name} is not counted");
        assert!(count.is_some(), "{name} is not shown");
        match outcome {
            Outcome::Gone => {
                assert_ne!(found.repair, Repair::None, "{name}");
                let gone = async {
                    while scene.look().await.divergences.iter().any(|f| is_it(&f)) {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::time::timeout(Duration::from_secs(60), gone)
                    .await
                    .unwrap_or_else(|_| panic!("{name} is found again and again"));
                let actions = store.actions_required().unwrap();
                let told = actions
                    .iter()
                    .any(|a| a.found.as_ref() == Some(&found.kind));
                assert!(!told, "{name} is nobody's to put right");
            }
            Outcome::Told => {
                let actions = store.actions_required().unwrap();
                let told = actions
                    .iter()
                    .find(|a| a.found.as_ref() == Some(&found.kind));
                let told = told.unwrap_or_else(|| panic!("{name}: nobody is told"));
                let id = told.id;
                assert_eq!(
                    found.repair,
                    Repair::ActionRequired { action: id },
                    "{name}"
                );
                let again = scene.audit(true).await;
                let again = again.divergences.iter().find(is_it).unwrap();
                assert_eq!(again.repair, found.repair, "{name}: a person is told once");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_was_told_is_forgotten_when_it_is_put_right() {
    let (scene, _) = inject(Scene::new().await, "control-socket-missing").await;
    scene.audit(true).await;
    let [action] = &scene.host.engine.store().actions_required().unwrap()[..] else {
        panic!("one thing to do");
    };
    fs::write(scene.run_dir(scene.vm).join(SOCKET), "").unwrap();
    assert_eq!(scene.audit(true).await.divergences, []);
    assert_eq!(scene.host.engine.store().actions_required().unwrap(), []);
    let resolved = |kind: &EventKind| matches!(kind, EventKind::ActionResolved { action: id, .. } if *id == action.id);
    scene.host.event(0, resolved).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_worker_that_an_audit_finds_is_recovered_by_policy() {
    let (scene, _) = inject(Scene::new().await, "worker-missing").await;
    let gone = scene.pid();
    scene.audit(true).await;
    scene.host.state(scene.vm, "running").await;
    assert_eq!(scene.record().incarnation, 2);
    assert_ne!(scene.pid(), gone);
    let windows = scene
        .host
        .engine
        .store()
        .windows(Some(scene.vm), 100)
        .unwrap();
    let last = windows.iter().rfind(|window| window.key.incarnation == 1);
    assert_eq!(last.unwrap().close, WindowClose::Crash);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stray_worker_is_killed_and_the_recorded_one_is_not() {
    let (scene, _) = inject(Scene::new().await, "worker-unrecorded").await;
    let own = scene.pid();
    let stray = scene.backend.workers.lock().unwrap().keys().copied().max();
    scene.audit(true).await;
    scene
        .host
        .until("the stray worker ends", || {
            !scene.backend.is_alive(stray.unwrap())
        })
        .await;
    assert!(scene.backend.is_alive(own));
    assert_eq!(scene.record().incarnation, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_that_went_with_a_worker_that_is_just_ending_is_no_finding() {
    if !may_make_taps() {
        println!("this user may make no TAPs");
        return;
    }
    let scene = Scene::new().await;
    let more = json!({ "networks": [{ "name": "net" }] });
    let scene = scene.with_vm("net", more).await;
    roost_worker::tap::delete(&scene.tap()).unwrap();
    scene.backend.gone.store(true, Ordering::Relaxed);
    let report = scene.audit(true).await;
    assert_eq!(report.divergences, []);
}
