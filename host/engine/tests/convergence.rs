//! What goes wrong comes to an end by itself, or is told to a person.

mod host;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use host::Host;
use host::component::{GIVE_UP, cleanup};
use host::fake::Fake;
use roost_engine::EngineError;
use roost_model::{
    Button, Control, EventKind, GuestExit, Hook, IncidentKind, OperationState, Origin,
    RecoveryAction, Resolution, Resource, Verb, VmId,
};

async fn booted() -> (Host, Arc<Fake>, VmId) {
    let backend = Fake::new();
    let host = Host::start_with(backend.clone(), |config| config.audit_interval = None).await;
    let vm = host.create("vm", roost_guests::HELLO).await.id;
    host.succeed(vm, Verb::Boot).await;
    (host, backend, vm)
}

fn pid(host: &Host, vm: VmId) -> u32 {
    host.record(vm).worker.unwrap().pid.unwrap()
}

fn opened(wanted: impl Fn(&IncidentKind) -> bool) -> impl Fn(&EventKind) -> bool {
    move |kind| matches!(kind, EventKind::IncidentOpened { incident_kind, .. } if wanted(incident_kind))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_answer_is_killed_and_its_vm_recovered() {
    let (host, backend, vm) = booted().await;
    let hung = pid(&host, vm);
    backend.mute.store(true, Ordering::Relaxed);
    let limit = 3;
    host.event(
        0,
        opened(
            |kind| matches!(kind, IncidentKind::WorkerHung { unanswered } if *unanswered == limit),
        ),
    )
    .await;
    backend.mute.store(false, Ordering::Relaxed);
    assert!(!backend.is_alive(hung));
    host.state(vm, "running").await;
    assert!(host.record(vm).incarnation > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_boot_that_fails_is_an_incident_and_tried_again() {
    let (host, backend, vm) = booted().await;
    backend.failing_launches.store(2, Ordering::Relaxed);
    backend.vanish(pid(&host, vm));
    host.engine.audit(true).await.unwrap();
    host.state(vm, "running").await;
    assert_eq!(host.record(vm).incarnation, 4);
    assert_eq!(host.record(vm).recovery_attempts, 3);
    let incidents = host.engine.store().incidents(Some(vm), 100).unwrap();
    let failed = |kind: &IncidentKind| matches!(kind, IncidentKind::StartFailed { .. });
    assert_eq!(incidents.iter().filter(|i| failed(&i.kind)).count(), 2);
    assert!(incidents.iter().all(|incident| incident.closed));
    let operations = host.engine.store().operations(Some(vm), 100).unwrap();
    let by_recovery = operations.iter().filter(|o| o.origin == Origin::Recovery);
    assert_eq!(by_recovery.count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_boot_that_fails_is_told_and_not_tried_again() {
    let backend = Fake::new();
    let host = Host::start_with(backend.clone(), |config| config.audit_interval = None).await;
    let vm = host.create("vm", roost_guests::HELLO).await.id;
    backend.failing_launches.store(1, Ordering::Relaxed);
    let operation = host.engine.submit(vm, Verb::Boot, None).await.unwrap();
    let wait = Duration::from_secs(60);
    let operation = host.engine.wait(operation.id, wait).await.unwrap();
    assert!(matches!(operation.state, OperationState::Failed { .. }));
    assert_eq!(host.record(vm).state.name(), "failed");
    assert_eq!(host.engine.store().incidents(Some(vm), 100).unwrap(), []);
    host.succeed(vm, Verb::Boot).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_never_comes_up_again_is_given_up() {
    let (host, backend, vm) = booted().await;
    backend.failing_launches.store(u32::MAX, Ordering::Relaxed);
    backend.vanish(pid(&host, vm));
    host.engine.audit(true).await.unwrap();
    let given_up = |kind: &EventKind| {
        matches!(
            kind,
            EventKind::RecoveryDecided {
                action: RecoveryAction::MarkFailed,
                ..
            }
        )
    };
    host.event(0, given_up).await;
    host.state(vm, "failed").await;
    assert_eq!(host.record(vm).recovery_attempts, 5);
    assert_eq!(host.engine.store().open_incidents().unwrap(), []);
    // A user's boot begins anew.
    backend.failing_launches.store(0, Ordering::Relaxed);
    host.succeed(vm, Verb::Boot).await;
    assert_eq!(host.record(vm).recovery_attempts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_before_a_long_run_does_not_count() {
    let backend = Fake::new();
    let host = Host::start_with(backend.clone(), |config| {
        config.audit_interval = None;
        // Every run is long enough.
        config.settled_after = Duration::ZERO;
    })
    .await;
    let vm = host.create("vm", roost_guests::HELLO).await.id;
    host.succeed(vm, Verb::Boot).await;
    for incarnation in 2..9 {
        backend.vanish(pid(&host, vm));
        let report = host.engine.audit(true).await.unwrap();
        assert_eq!(report.divergences.len(), 1, "{report:?}");
        host.until("the next incarnation", || {
            let record = host.record(vm);
            record.incarnation == incarnation && record.state.name() == "running"
        })
        .await;
        assert_eq!(host.record(vm).recovery_attempts, 1);
    }
}

/// A worker that does not die, of a VM that is stopped.
async fn immortal() -> (Host, Arc<Fake>, u32) {
    let (host, backend, vm) = booted().await;
    let immortal = pid(&host, vm);
    backend.immortal.lock().unwrap().insert(immortal);
    host.succeed(vm, Verb::Shutdown).await;
    (host, backend, immortal)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_die_is_cleaned_up_later_whatever_its_vm_does() {
    let (host, backend, immortal) = immortal().await;
    let [task] = &host.engine.store().cleanup_tasks().unwrap()[..] else {
        panic!("one task");
    };
    assert!(matches!(task.resource, Resource::Worker { pid, .. } if pid == immortal));
    let report = host.engine.audit(true).await.unwrap();
    assert_eq!(report.divergences, [], "what is queued is known");
    host.succeed(task.vm, Verb::Delete).await;
    let retried = |kind: &EventKind| matches!(kind, EventKind::CleanupRetried { .. });
    host.event(0, retried).await;
    backend.immortal.lock().unwrap().clear();
    host.engine.retry_cleanup(task.id).await.unwrap();
    let store = host.engine.store();
    host.until("the task is done", || {
        store.cleanup_tasks().unwrap().is_empty()
    })
    .await;
    assert!(!backend.is_alive(immortal));
    let again = host.engine.retry_cleanup(task.id).await;
    assert!(
        matches!(again, Err(EngineError::CleanupNotFound(_))),
        "{again:?}"
    );
}

/// A cleanup that the policy gave up.
async fn given_up() -> (Host, Arc<Fake>, roost_model::ActionRequired) {
    let backend = Fake::new();
    let host = Host::start_with(backend.clone(), |config| config.audit_interval = None).await;
    host.install("gives-up", Hook::Cleanup, cleanup(GIVE_UP))
        .await;
    let vm = host.create("vm", roost_guests::HELLO).await.id;
    host.succeed(vm, Verb::Boot).await;
    backend.immortal.lock().unwrap().insert(pid(&host, vm));
    host.succeed(vm, Verb::Shutdown).await;
    let store = host.engine.store();
    host.until("a person is told", || {
        !store.actions_required().unwrap().is_empty()
    })
    .await;
    let action = store.actions_required().unwrap().remove(0);
    assert_eq!(action.what, "by hand");
    assert_eq!(store.cleanup_tasks().unwrap(), []);
    (host, backend, action)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleanup_that_was_given_up_can_be_tried_again() {
    let (host, backend, action) = given_up().await;
    let report = host.engine.audit(true).await.unwrap();
    assert_eq!(report.divergences, [], "what a person was told is known");
    backend.immortal.lock().unwrap().clear();
    let task = host.engine.retry_action(action.id).await.unwrap();
    assert_eq!(task.attempts, 0);
    let store = host.engine.store();
    host.until("it is done", || store.cleanup_tasks().unwrap().is_empty())
        .await;
    assert_eq!(store.actions_required().unwrap(), []);
    let again = host.engine.retry_action(action.id).await;
    assert!(
        matches!(again, Err(EngineError::ActionNotFound(_))),
        "{again:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_says_about_it_is_kept() {
    let (host, _backend, action) = given_up().await;
    for note in ["", "  ", &"x".repeat(5000)] {
        let refused = host.engine.resolve_action(action.id, note.to_owned()).await;
        assert!(
            matches!(refused, Err(EngineError::Note { .. })),
            "{refused:?}"
        );
    }
    let note = "killed by hand".to_owned();
    host.engine
        .resolve_action(action.id, note.clone())
        .await
        .unwrap();
    assert_eq!(host.engine.store().actions_required().unwrap(), []);
    let resolution = Resolution::Resolved { note };
    let resolved = EventKind::ActionResolved {
        action: action.id,
        resolution,
    };
    host.event(0, |kind| *kind == resolved).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_deadline_counts_the_time_in_which_the_guest_runs() {
    let backend = Fake::new();
    let host = Host::start_with(backend.clone(), |config| config.audit_interval = None).await;
    let more = serde_json::json!({ "boot_deadline_ms": 20 });
    let vm = host.create_with("vm", roost_guests::HELLO, more).await.id;
    host.succeed(vm, Verb::Boot).await;
    let stalled = |kind: &IncidentKind| matches!(kind, IncidentKind::BootStalled { .. });
    let closed = |sequence| move |kind: &EventKind| matches!(kind, EventKind::WindowClosed { window } if window.key.sequence == sequence);
    // Its vCPUs have not run yet, however long that takes.
    host.event(0, closed(3)).await;
    assert_eq!(host.engine.store().incidents(Some(vm), 100).unwrap(), []);
    // A pause holds the clock, and the next host process sees the same one.
    host.succeed(vm, Verb::Pause).await;
    backend.ran_ns.store(20_000_000, Ordering::Relaxed);
    let host = host.restart(backend.clone()).await;
    assert_eq!(host.record(vm).state.name(), "paused");
    host.succeed(vm, Verb::Resume).await;
    host.event(0, opened(stalled)).await;
    backend.printed.store(1, Ordering::Relaxed);
    host.state(vm, "running").await;
    let incidents = host.engine.store().incidents(Some(vm), 100).unwrap();
    assert_eq!(
        incidents.last().map(|incident| incident.incarnation),
        Some(1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_ends_while_it_is_asked_is_that_of_a_vm_that_does_not_run() {
    let (host, backend, vm) = booted().await;
    let engine = &host.engine;
    backend.gone.store(true, Ordering::Relaxed);
    let not_running = |error| matches!(error, EngineError::NotRunning { .. });
    assert!(not_running(engine.devices(vm).await.unwrap_err()));
    assert!(not_running(
        engine.serial_write(vm, b"x").await.unwrap_err()
    ));
    let control = Control::Press {
        button: Button::PowerButton,
    };
    assert!(not_running(engine.control(vm, control).await.unwrap_err()));
    // A reader gets what was kept; one that waits for more hears that there is none.
    let read = engine.serial_read(vm, 0, usize::MAX).await.unwrap();
    assert_eq!(read.bytes, b"");
    let minute = Duration::from_secs(60);
    assert_eq!(engine.serial_wait(vm, 7, minute).await.unwrap(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_ended_before_its_boot_was_written_down_has_run() {
    let backend = Fake::new();
    *backend.brief.lock().unwrap() = Some(GuestExit::Reset);
    let host = Host::start_with(backend.clone(), |config| config.audit_interval = None).await;
    let vm = host.create("vm", roost_guests::HELLO).await.id;
    host.succeed(vm, Verb::Boot).await;
    host.state(vm, "stopped").await;
    let windows = host.engine.store().windows(Some(vm), usize::MAX).unwrap();
    assert_eq!(windows.len(), 1, "its use is accounted for");
}
