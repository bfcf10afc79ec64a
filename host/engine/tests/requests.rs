//! Requests to a VM that does something else already, and calling them off.

mod host;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use host::Host;
use host::component::{DESTROY, RESTART_LATER, recovery};
use host::fake::Fake;
use roost_engine::EngineError;
use roost_model::{
    Button, DesiredState, EventKind, Grace, GuestExit, Hook, IncidentKind, MAX_WAITING,
    NotCancellable, Operation, OperationState, Origin, RecoveryAction, Refusal, Step, StepState,
    Verb, VmId,
};

/// Longer than any test: who waits for a guest of these waits for somebody else.
const GRACE: Grace = Grace {
    button: Button::PowerButton,
    deadline_ms: 600_000,
};
const PATIENCE: Duration = Duration::from_secs(60);

async fn booted() -> (Host, Arc<Fake>, VmId) {
    let backend = Fake::new();
    let host = Host::start_with(backend.clone(), |config| config.audit_interval = None).await;
    let vm = host.create("vm", roost_guests::HELLO).await.id;
    host.succeed(vm, Verb::Boot).await;
    (host, backend, vm)
}

async fn ask(host: &Host, vm: VmId, verb: Verb) -> Operation {
    host.engine.submit(vm, verb, None).await.unwrap()
}

/// A shutdown that has begun to wait for its guest.
async fn shutting_down(host: &Host, vm: VmId) -> Operation {
    let operation = host.engine.submit(vm, Verb::Shutdown, Some(GRACE)).await;
    let operation = operation.unwrap();
    let store = host.engine.store();
    let doing = || store.operation(operation.id).unwrap().unwrap().doing();
    host.until("it waits for the guest", || {
        doing().unwrap().what == Step::WaitForGuest.doing()
    })
    .await;
    operation
}

async fn cancel(host: &Host, operation: &Operation) -> Result<Operation, EngineError> {
    host.engine.cancel(operation.id, PATIENCE).await
}

/// The boot that a recovery policy asked for and that is not due yet, once there is one.
async fn pending_restart(host: &Host) -> Operation {
    let store = host.engine.store();
    let find = || {
        let all = store.unfinished_operations().unwrap();
        all.into_iter().find(|o| o.origin == Origin::Recovery)
    };
    host.until("a restart is pending", || find().is_some())
        .await;
    find().unwrap()
}

fn is_cancelled(operation: &Operation) -> bool {
    matches!(operation.state, OperationState::Cancelled { .. })
}

fn error(operation: &Operation) -> &str {
    match &operation.state {
        OperationState::Failed { error } => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_meanwhile_waits_and_is_done_in_its_order() {
    let (host, backend, vm) = booted().await;
    let closed = backend.gate.write().await;
    let shutdown = ask(&host, vm, Verb::Shutdown).await;
    let boot = ask(&host, vm, Verb::Boot).await;
    let pause = ask(&host, vm, Verb::Pause).await;
    for waiting in [&boot, &pause] {
        assert_eq!(waiting.state, OperationState::Queued);
        let stored = host.engine.store().operation(waiting.id).unwrap();
        assert_eq!(stored.as_ref(), Some(waiting), "it is written down");
        assert_eq!(waiting.doing().unwrap().what, "waiting for its turn");
    }
    // What will not be legal is refused at once.
    match host.engine.submit(vm, Verb::Boot, None).await {
        Err(EngineError::Refusal(Refusal::Illegal { illegal, after })) => {
            assert_eq!(
                (illegal.state.as_str(), after),
                ("paused", Some(Verb::Pause))
            );
        }
        other => panic!("{other:?}"),
    }
    drop(closed);
    for operation in [shutdown, boot, pause] {
        let done = host.done(operation.id).await;
        assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
    }
    assert_eq!(host.record(vm).state.name(), "paused");
    assert_eq!(host.record(vm).incarnation, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_wait_than_may_and_a_delete_always_finds_a_place() {
    let (host, backend, vm) = booted().await;
    let closed = backend.gate.write().await;
    for _ in 0..=MAX_WAITING {
        ask(&host, vm, Verb::Reboot).await;
    }
    let full = host.engine.submit(vm, Verb::Reboot, None).await;
    assert!(
        matches!(
            full,
            Err(EngineError::Refusal(Refusal::Full {
                waiting: MAX_WAITING
            }))
        ),
        "{full:?}"
    );
    let delete = ask(&host, vm, Verb::Delete).await;
    let again = ask(&host, vm, Verb::Delete).await;
    assert_eq!(again.id, delete.id, "a VM is deleted once");
    match host.engine.submit(vm, Verb::Reboot, None).await {
        Err(EngineError::Refusal(Refusal::Deleting { operation })) => {
            assert_eq!(operation, delete.id);
        }
        other => panic!("{other:?}"),
    }
    drop(closed);
    let done = host.done(delete.id).await;
    assert_eq!(done.state, OperationState::Succeeded);
    let operations = host.engine.store().operations(Some(vm), 100).unwrap();
    let succeeded = |o: &&Operation| o.state == OperationState::Succeeded;
    // Create and boot, the reboots, the delete.
    assert_eq!(
        operations.iter().filter(succeeded).count(),
        2 + MAX_WAITING + 1 + 1
    );
    assert_eq!(host.engine.store().unfinished_operations().unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_that_waits_for_its_guest_can_be_cancelled_and_the_vm_runs_on() {
    let (host, backend, vm) = booted().await;
    let worker = host.record(vm).worker;
    let shutdown = shutting_down(&host, vm).await;
    assert_eq!(host.record(vm).state.name(), "stopping");
    let boot = ask(&host, vm, Verb::Boot).await;
    let pause = ask(&host, vm, Verb::Pause).await;

    let cancelled = cancel(&host, &shutdown).await.unwrap();
    assert!(is_cancelled(&cancelled), "{cancelled:?}");
    assert_eq!(cancelled.steps.last().unwrap().state, StepState::Undone);
    assert_eq!(
        cancel(&host, &shutdown).await.unwrap(),
        cancelled,
        "once more"
    );

    // What waited has its turn, legal or not.
    let boot = host.done(boot.id).await;
    assert!(error(&boot).starts_with("boot is not legal while the VM is running"));
    let pause = host.done(pause.id).await;
    assert_eq!(pause.state, OperationState::Succeeded);
    assert_eq!(host.record(vm).worker, worker);
    assert!(backend.is_alive(worker.unwrap().pid.unwrap()));
    host.succeed(vm, Verb::Resume).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_can_be_cancelled_and_the_others_keep_their_places() {
    let (host, backend, vm) = booted().await;
    let closed = backend.gate.write().await;
    let first = ask(&host, vm, Verb::Reboot).await;
    let second = ask(&host, vm, Verb::Reboot).await;
    let third = ask(&host, vm, Verb::Pause).await;
    let cancelled = cancel(&host, &second).await.unwrap();
    assert!(is_cancelled(&cancelled), "{cancelled:?}");
    assert_eq!(cancelled.steps, []);
    drop(closed);
    for operation in [first, third] {
        let done = host.done(operation.id).await;
        assert_eq!(done.state, OperationState::Succeeded);
    }
    assert_eq!(host.record(vm).incarnation, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_that_is_cancelled_before_its_guest_runs_is_undone() {
    let backend = Fake::new();
    let host = Host::start_with(backend.clone(), |config| config.audit_interval = None).await;
    let vm = host.create("vm", roost_guests::HELLO).await.id;
    let closed = backend.gate.write().await;
    let boot = ask(&host, vm, Verb::Boot).await;
    // It is accepted, and the worker can't be started yet; it may not have been tried yet, either.
    let asked = host.engine.cancel(boot.id, Duration::ZERO).await.unwrap();
    let is_known = asked.state == OperationState::Running || is_cancelled(&asked);
    assert!(is_known, "{asked:?}");
    drop(closed);
    let boot = host.done(boot.id).await;
    assert!(is_cancelled(&boot), "{boot:?}");
    let record = host.record(vm);
    assert_eq!(record.state.name(), "stopped");
    assert_eq!(record.worker, None);
    assert!(backend.workers.lock().unwrap().is_empty());
    host.succeed(vm, Verb::Boot).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sees_an_operation_end_can_ask_at_once_for_what_is_legal_then() {
    let (host, backend, vm) = booted().await;
    host.succeed(vm, Verb::Shutdown).await;
    for _ in 0..50 {
        backend.failing_launches.store(1, Ordering::Relaxed);
        let failing = ask(&host, vm, Verb::Boot).await;
        // The store tells it before the actor does.
        let found = || host.engine.store().operation(failing.id).unwrap().unwrap();
        host.until("it fails", || found().is_done()).await;
        assert!(error(&found()).contains("told to fail"), "{:?}", found());
        ask(&host, vm, Verb::Boot).await;
        let shutdown = ask(&host, vm, Verb::Shutdown).await;
        host.done(shutdown.id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_come_too_far_is_not_cancelled_and_says_why() {
    let (host, backend, vm) = booted().await;
    let operations = host.engine.store().operations(Some(vm), 100).unwrap();
    let boot = operations.iter().find(|o| o.verb == Verb::Boot).unwrap();
    let over = cancel(&host, boot).await.unwrap_err();
    assert!(
        matches!(
            over,
            EngineError::NotCancellable(NotCancellable::Over("succeeded"))
        ),
        "{over:?}"
    );
    let closed = backend.gate.write().await;
    let reboot = ask(&host, vm, Verb::Reboot).await;
    let refused = cancel(&host, &reboot).await.unwrap_err();
    assert!(
        matches!(
            refused,
            EngineError::NotCancellable(NotCancellable::TooFar(Verb::Reboot))
        ),
        "{refused:?}"
    );
    drop(closed);
    assert_eq!(host.done(reboot.id).await.state, OperationState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_recovery_delays_is_an_operation_and_can_be_cancelled() {
    let (host, backend, vm) = booted().await;
    host.install("later", Hook::Recovery, recovery(RESTART_LATER))
        .await;
    backend.vanish(host.record(vm).worker.unwrap().pid.unwrap());
    host.engine.audit(true).await.unwrap();
    let restart = pending_restart(&host).await;
    assert_eq!(restart.state, OperationState::Queued);
    assert_eq!(restart.doing().unwrap().what, "waiting until it is due");

    // It is the same for the next host process.
    let host = host.restart(backend.clone()).await;
    assert_eq!(pending_restart(&host).await, restart);
    let cancelled = cancel(&host, &restart).await.unwrap();
    assert!(is_cancelled(&cancelled), "{cancelled:?}");
    assert_eq!(host.record(vm).state.name(), "failed");
    assert_eq!(host.engine.store().open_incidents().unwrap(), []);

    // A user's boot takes the place of one.
    host.succeed(vm, Verb::Boot).await;
    backend.vanish(host.record(vm).worker.unwrap().pid.unwrap());
    host.engine.audit(true).await.unwrap();
    let restart = pending_restart(&host).await;
    host.succeed(vm, Verb::Boot).await;
    let restart = host.done(restart.id).await;
    assert!(is_cancelled(&restart), "{restart:?}");
    assert_eq!(host.engine.store().open_incidents().unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_whose_guest_ended_by_itself_stays_stopped_unless_a_policy_restarts_it() {
    let backend = Fake::new();
    let host = Host::start_with(backend.clone(), |config| config.audit_interval = None).await;
    let asks = serde_json::json!({ "on_end": "recover" });
    let vm = host.create_with("vm", roost_guests::HELLO, asks).await.id;
    host.succeed(vm, Verb::Boot).await;
    let decided = |kind: &EventKind| matches!(kind, EventKind::RecoveryDecided { .. });
    let now = |host: &Host| {
        let record = host.record(vm);
        (record.state.name(), record.desired, record.incarnation)
    };
    let power_off = |host: &Host| {
        let pid = host.record(vm).worker.unwrap().pid.unwrap();
        backend.exit(pid, GuestExit::PowerOff);
    };
    power_off(&host);
    host.event(0, decided).await;
    assert_eq!(now(&host), ("stopped", DesiredState::Stopped, 1));
    let incidents = host.engine.store().incidents(Some(vm), 10).unwrap();
    let [incident] = incidents.as_slice() else {
        panic!("{incidents:?}");
    };
    let exit = GuestExit::PowerOff;
    assert_eq!(incident.kind, IncidentKind::GuestEnded { exit });
    assert_eq!(incident.decision, Some(RecoveryAction::LeaveStopped));
    assert!(incident.closed);

    host.install("later", Hook::Recovery, recovery(RESTART_LATER))
        .await;
    host.succeed(vm, Verb::Boot).await;
    power_off(&host);
    let restart = pending_restart(&host).await;
    assert_eq!(now(&host), ("stopped", DesiredState::Running, 2));
    // The next host does not boot it before its time, though it is to run.
    let host = host.restart(backend.clone()).await;
    assert_eq!(pending_restart(&host).await, restart);
    let cancelled = cancel(&host, &restart).await.unwrap();
    assert!(is_cancelled(&cancelled), "{cancelled:?}");
    assert_eq!(now(&host), ("stopped", DesiredState::Stopped, 2));
    assert_eq!(host.engine.store().open_incidents().unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_outlives_the_host_and_a_delete_hurries_a_shutdown() {
    let (host, backend, vm) = booted().await;
    let shutdown = shutting_down(&host, vm).await;
    let boot = ask(&host, vm, Verb::Boot).await;
    // The host does not wait for the guest before it ends.
    let host = host.restart(backend.clone()).await;
    let unfinished = host.engine.store().unfinished_operations().unwrap();
    let ids: Vec<_> = unfinished.iter().map(|o| (o.id, o.state.clone())).collect();
    assert_eq!(
        ids,
        [
            (shutdown.id, OperationState::Running),
            (boot.id, OperationState::Queued)
        ]
    );
    let cancelled = cancel(&host, &boot).await.unwrap();
    assert!(is_cancelled(&cancelled), "{cancelled:?}");

    let delete = ask(&host, vm, Verb::Delete).await;
    for operation in [shutdown, delete] {
        let done = host.done(operation.id).await;
        assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
    }
    assert_eq!(host.engine.store().vms().unwrap(), []);
    assert!(backend.workers.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_vm_that_recovery_destroys_ends_as_its_delete_begins() {
    let (host, backend, vm) = booted().await;
    host.install("destroy", Hook::Recovery, recovery(DESTROY))
        .await;
    let closed = backend.gate.write().await;
    let reboot = ask(&host, vm, Verb::Reboot).await;
    *backend.brief.lock().unwrap() = Some(GuestExit::TripleFault);
    let waiting = [
        ask(&host, vm, Verb::Pause).await.id,
        ask(&host, vm, Verb::Shutdown).await.id,
    ];
    drop(closed);
    assert_eq!(host.done(reboot.id).await.state, OperationState::Succeeded);
    for operation in waiting {
        let ended = host.done(operation).await;
        assert!(is_cancelled(&ended), "{ended:?}");
    }
    // In the commit that begins the delete: a host that dies leaves all of it, or nothing.
    let deleting = |kind: &EventKind| {
        let to = match kind {
            EventKind::StateChanged { to, .. } => to,
            _ => return false,
        };
        to == "deleting"
    };
    let begun = host.event(0, deleting).await;
    let next = host.engine.store().events(begun.number, 2).unwrap();
    let ended = next.into_iter().map(|event| match event.event.kind {
        EventKind::OperationEnded {
            operation,
            cancelled: Some(_),
            ..
        } => operation,
        other => panic!("{other:?}"),
    });
    assert_eq!(ended.collect::<Vec<_>>(), waiting);
}
