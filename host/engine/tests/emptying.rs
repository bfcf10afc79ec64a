//! A node is emptied: it drains, or its host ends with its VMs.

mod host;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use host::Host;
use host::fake::Fake;
use roost_engine::{Emptied, EngineError};
use roost_model::{
    DesiredState, DrainState, EventKind, GuestExit, NotCancellable, OperationState, Origin, Verb,
    VmId, VmState,
};

/// Longer than any test: who gets so much ends before.
const LONG: Duration = Duration::from_secs(600);

async fn host() -> (Host, Arc<Fake>) {
    let backend = Fake::new();
    let host = Host::start_with(backend.clone(), |config| config.audit_interval = None).await;
    (host, backend)
}

async fn booted(host: &Host, name: &str) -> VmId {
    let vm = host.create(name, roost_guests::HELLO).await.id;
    host.succeed(vm, Verb::Boot).await;
    vm
}

fn forced(host: &Host, vm: VmId) -> bool {
    let events = host.engine.store().events(0, usize::MAX).unwrap();
    let exited = events.iter().any(|event| {
        event.event.vm == Some(vm) && matches!(event.event.kind, EventKind::GuestExited { .. })
    });
    !exited
}

async fn refused(host: &Host, vm: VmId) {
    let refused = host.engine.submit(vm, Verb::Boot, None).await;
    assert!(matches!(refused, Err(EngineError::Draining)), "{refused:?}");
    let spec = host.record(vm).spec;
    let refused = host.engine.create(roost_model::VmSpec {
        name: "new".parse().unwrap(),
        ..spec
    });
    let refused = refused.await;
    assert!(matches!(refused, Err(EngineError::Draining)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_that_end_by_themselves_are_not_forced_and_the_others_are_at_the_deadline() {
    let (host, backend) = host().await;
    let obedient = booted(&host, "obedient").await;
    backend.obey.store(true, Ordering::Relaxed);
    host.engine.drain(LONG).await.unwrap();
    let report = host.engine.wait_for_drain(LONG).await.unwrap();
    assert_eq!(report.state, DrainState::Drained);
    assert!(!forced(&host, obedient));
    host.engine.end_drain().await.unwrap();

    backend.obey.store(false, Ordering::Relaxed);
    let stubborn = booted(&host, "stubborn").await;
    let before = backend.pressed.load(Ordering::Relaxed);
    host.engine.drain(LONG).await.unwrap();
    host.until("it was told to end", || {
        backend.pressed.load(Ordering::Relaxed) > before
    })
    .await;
    let report = host.engine.drain_report().unwrap();
    assert_eq!(report.state, DrainState::Draining);
    assert_eq!((report.remaining, report.vms[0].id), (1, stubborn));
    // A drain is ended as a whole.
    let unfinished = host.engine.store().unfinished_operations().unwrap();
    let refused = host.engine.cancel(unfinished[0].id, LONG).await;
    let of_drain = NotCancellable::Emptied(Origin::Drain);
    assert!(
        matches!(refused, Err(EngineError::NotCancellable(why)) if why == of_drain),
        "{refused:?}"
    );
    // An operator loses patience.
    host.engine.drain(Duration::ZERO).await.unwrap();
    let report = host.engine.wait_for_drain(LONG).await.unwrap();
    assert_eq!((report.state, report.remaining), (DrainState::Drained, 0));
    assert!(forced(&host, stubborn));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_drains_takes_and_boots_nothing_even_after_a_restart_until_it_is_ended() {
    let (host, backend) = host().await;
    let vm = booted(&host, "vm").await;
    host.engine.drain(Duration::ZERO).await.unwrap();
    host.engine.wait_for_drain(LONG).await.unwrap();
    refused(&host, vm).await;
    let ready = host.engine.ready().await;
    assert!(
        ready
            .iter()
            .any(|check| !check.ok && check.detail.contains("draining"))
    );

    let host = host.restart(backend).await;
    refused(&host, vm).await;
    let report = host.engine.wait_for_drain(LONG).await.unwrap();
    assert_eq!(report.state, DrainState::Drained);
    let report = host.engine.end_drain().await.unwrap();
    assert_eq!((report.state, report.drain), (DrainState::Off, None));
    let record = host.record(vm);
    assert_eq!(
        (record.state, record.desired),
        (VmState::Stopped, DesiredState::Stopped)
    );
    host.succeed(vm, Verb::Boot).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_goes_on_in_the_next_host_with_the_time_that_is_left() {
    let (host, backend) = host().await;
    let vm = booted(&host, "vm").await;
    host.engine.drain(Duration::ZERO).await.unwrap();
    host.engine.wait_for_drain(LONG).await.unwrap();
    let drain = host.engine.drain_report().unwrap().drain.unwrap();
    host.engine.end_drain().await.unwrap();
    host.succeed(vm, Verb::Boot).await;
    // As a host leaves it that is killed after it wrote the drain down.
    let host = host
        .restart_after(backend, async |store| {
            let changes = vec![roost_store::Change::PutDrain(drain)];
            store.commit(changes).await.unwrap();
        })
        .await;
    let report = host.engine.wait_for_drain(LONG).await.unwrap();
    assert_eq!(
        (report.state, report.drain),
        (DrainState::Drained, Some(drain))
    );
    assert_eq!(host.record(vm).state, VmState::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_recovery_has_pending_is_given_up_by_a_drain() {
    let (host, backend) = host().await;
    let vm = booted(&host, "vm").await;
    // A second failure in a row is waited after.
    backend.failing_launches.store(u32::MAX, Ordering::Relaxed);
    backend.vanish(host.record(vm).worker.unwrap().pid.unwrap());
    host.engine.audit(true).await.unwrap();
    host.until("a pending restart", || {
        host.engine.store().open_incidents().unwrap().len() == 1
    })
    .await;
    host.engine.drain(Duration::ZERO).await.unwrap();
    host.engine.wait_for_drain(LONG).await.unwrap();
    let record = host.record(vm);
    assert_eq!(record.state, VmState::Stopped);
    assert_eq!(record.desired, DesiredState::Stopped);
    assert_eq!(host.engine.store().open_incidents().unwrap(), []);
    backend.failing_launches.store(0, Ordering::Relaxed);
    host.engine.end_drain().await.unwrap();
    assert_eq!(host.record(vm).state, VmState::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn vms_that_end_with_their_host_are_booted_by_the_next_one_and_others_are_not() {
    let (host, backend) = host().await;
    let ran = booted(&host, "ran").await;
    let held = booted(&host, "held").await;
    let stopped = booted(&host, "stopped").await;
    host.succeed(held, Verb::Pause).await;
    host.succeed(stopped, Verb::Shutdown).await;
    let emptied = host.engine.stop_vms(Duration::ZERO).await;
    assert_eq!(emptied, Emptied { ended: 3, left: 0 });
    assert_eq!(host.engine.running_vms().unwrap(), 0);
    assert!(backend.workers.lock().unwrap().is_empty());
    let refused = host.engine.submit(ran, Verb::Boot, None).await;
    assert!(
        matches!(refused, Err(EngineError::ShuttingDown)),
        "{refused:?}"
    );
    let record = host.record(ran);
    assert_eq!(
        (record.state, record.desired),
        (VmState::Stopped, DesiredState::Running)
    );

    let host = host.restart(backend).await;
    let record = host.state(ran, "running").await;
    assert_eq!(record.incarnation, 2);
    let operations = host.engine.store().operations(Some(ran), 2).unwrap();
    assert!(
        operations
            .iter()
            .all(|operation| operation.origin == Origin::Host)
    );
    assert_eq!(operations[0].verb, Verb::Boot);
    for vm in [held, stopped] {
        let record = host.record(vm);
        assert_eq!(
            (record.state, record.desired),
            (VmState::Stopped, DesiredState::Stopped)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_at_the_start_that_fails_is_an_incident() {
    let (host, backend) = host().await;
    let vm = booted(&host, "vm").await;
    host.engine.stop_vms(Duration::ZERO).await;
    backend.failing_launches.store(1, Ordering::Relaxed);
    let host = host.restart(backend).await;
    let record = host.state(vm, "running").await;
    assert_eq!(record.recovery_attempts, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_gave_a_guest_long_to_end_does_not_hold_up_the_host() {
    let (host, backend) = host().await;
    let vm = booted(&host, "vm").await;
    let grace = roost_model::Grace {
        button: roost_model::Button::PowerButton,
        deadline_ms: 600_000,
    };
    let operation = host.engine.submit(vm, Verb::Shutdown, Some(grace)).await;
    host.until("it was told to end", || {
        backend.pressed.load(Ordering::Relaxed) == 1
    })
    .await;
    let emptied = host.engine.stop_vms(Duration::ZERO).await;
    assert_eq!(emptied, Emptied { ended: 1, left: 0 });
    let operation = host.engine.wait(operation.unwrap().id, LONG).await.unwrap();
    assert_eq!(operation.state, OperationState::Succeeded);
    assert_eq!(
        host.record(vm).desired,
        DesiredState::Stopped,
        "the user said so"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_vms_end_side_by_side_and_no_more_of_them_at_once_than_is_bounded() {
    let (host, backend) = host().await;
    let first = host.create("vm-0", roost_guests::HELLO).await;
    let mut vms = vec![first.id];
    for number in 1..100 {
        let spec = roost_model::VmSpec {
            name: format!("vm-{number}").parse().unwrap(),
            ..first.spec.clone()
        };
        vms.push(host.engine.create(spec).await.unwrap().id);
    }
    for vm in &vms {
        host.succeed(*vm, Verb::Boot).await;
    }
    let emptied = host.engine.stop_vms(LONG / 600).await;
    assert_eq!(
        emptied,
        Emptied {
            ended: 100,
            left: 0
        }
    );
    assert_eq!(backend.pressed.load(Ordering::Relaxed), 100);
    let most = backend.most_stopping.load(Ordering::Relaxed);
    assert!((2..=32).contains(&most), "{most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_resets_itself_while_the_host_ends_is_booted_by_the_next_one() {
    let (host, backend) = host().await;
    let more = serde_json::json!({ "on_reset": "reboot" });
    let vm = host.create_with("vm", roost_guests::HELLO, more).await.id;
    host.succeed(vm, Verb::Boot).await;
    let pid = host.record(vm).worker.unwrap().pid.unwrap();
    let ending = host.engine.clone();
    let ending = tokio::spawn(async move { ending.stop_vms(LONG).await });
    host.until("it was told to end", || {
        backend.pressed.load(Ordering::Relaxed) == 1
    })
    .await;
    backend.exit(pid, GuestExit::Reset);
    assert_eq!(ending.await.unwrap(), Emptied { ended: 1, left: 0 });
    assert_eq!(host.record(vm).incarnation, 1);
    let host = host.restart(backend).await;
    assert_eq!(host.state(vm, "running").await.incarnation, 2);
}
