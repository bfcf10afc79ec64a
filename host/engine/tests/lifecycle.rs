//! The lifecycle of VMs on real KVM, under the bundled policies.

mod host;

use host::{Host, in_process};
use roost_engine::EngineError;
use roost_model::{
    DecidedBy, EventKind, GuestExit, IncidentKind, RecoveryAction, Refusal, Verb, VmState,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_goes_through_every_verb_and_leaves_nothing() {
    let host = Host::start(in_process()).await;
    let vm = host.create("every-verb", roost_guests::HELLO).await.id;
    assert_eq!(host.record(vm).state, VmState::Stopped);

    host.succeed(vm, Verb::Boot).await;
    host.output(vm, "tick 2").await;
    host.succeed(vm, Verb::Pause).await;
    assert_eq!(host.record(vm).state, VmState::Paused);
    host.succeed(vm, Verb::Resume).await;
    host.succeed(vm, Verb::Reboot).await;
    assert_eq!(host.record(vm).incarnation, 2);
    host.output(vm, "tick 2").await;
    host.succeed(vm, Verb::Shutdown).await;
    assert_eq!(host.record(vm).state, VmState::Stopped);
    let kept = host.engine.serial_read(vm, 0, usize::MAX).await.unwrap();
    assert!(
        String::from_utf8_lossy(&kept.bytes).contains("tick 2"),
        "the log outlives the guest"
    );

    host.succeed(vm, Verb::Delete).await;
    assert_eq!(host.engine.store().vms().unwrap(), []);
    assert_eq!(host.engine.store().open_windows().unwrap(), []);
    assert_eq!(host.run_dirs(), 0);
    let again = host.engine.submit(vm, Verb::Delete, None).await;
    assert!(
        matches!(again, Err(EngineError::VmNotFound(_))),
        "{again:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_tile_an_incarnation_and_each_is_charged_for_once() {
    let host = Host::start(in_process()).await;
    let vm = host.create("billed", roost_guests::HELLO).await.id;
    host.succeed(vm, Verb::Boot).await;
    host.event(
        0,
        |kind| matches!(kind, EventKind::WindowClosed { window } if window.key.sequence == 2),
    )
    .await;
    host.succeed(vm, Verb::Delete).await;

    let store = host.engine.store();
    let windows = store.windows(Some(vm), usize::MAX).unwrap();
    let last = windows.last().unwrap();
    let sum: u64 = windows.iter().map(|w| w.vcpu_cpu_ns).sum();
    assert_eq!(
        sum, last.counters.vcpu_cpu_ns,
        "no CPU time is lost between windows"
    );
    for (before, after) in windows.iter().zip(&windows[1..]) {
        assert_eq!(before.end_ms, after.start_ms);
        assert_eq!(before.key.sequence + 1, after.key.sequence);
    }
    assert_eq!(
        store.outbox(usize::MAX).unwrap(),
        [],
        "delete settles the bill"
    );
    let charges = store.charges(Some(vm), usize::MAX).unwrap();
    let mut billed: Vec<_> = charges.iter().map(|c| (c.window, c.item.clone())).collect();
    let all = billed.len();
    billed.dedup();
    assert_eq!(billed.len(), all);
    assert!(
        windows
            .iter()
            .all(|w| charges.iter().any(|c| c.window == w.key))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_resets_ends_stopped_without_an_incident() {
    let host = Host::start(in_process()).await;
    let vm = host.create("resets", roost_guests::RESET).await.id;
    host.succeed(vm, Verb::Boot).await;
    let record = host.state(vm, "stopped").await;
    assert_eq!(record.worker, None);
    assert_eq!(
        host.engine.store().incidents(Some(vm), usize::MAX).unwrap(),
        []
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_triple_fault_is_an_incident_that_the_bundled_policy_decides() {
    let host = Host::start(in_process()).await;
    let vm = host.create("faults", roost_guests::TRIPLE_FAULT).await.id;
    host.succeed(vm, Verb::Boot).await;
    let opened = host
        .event(0, |kind| matches!(kind, EventKind::IncidentOpened { .. }))
        .await;
    let EventKind::IncidentOpened { incident_kind, .. } = opened.event.kind else {
        unreachable!()
    };
    assert_eq!(
        incident_kind,
        IncidentKind::GuestFailure {
            exit: GuestExit::TripleFault
        }
    );
    let decided = host
        .event(0, |kind| matches!(kind, EventKind::RecoveryDecided { .. }))
        .await;
    let EventKind::RecoveryDecided {
        action, decided_by, ..
    } = decided.event.kind
    else {
        unreachable!()
    };
    assert!(
        matches!(action, RecoveryAction::Restart { .. }),
        "{action:?}"
    );
    assert!(
        matches!(decided_by, DecidedBy::Plugin { .. }),
        "{decided_by:?}"
    );
    // A second incarnation runs, and faults again.
    host.event(decided.number, |kind| {
        matches!(kind, EventKind::IncidentOpened { .. })
    })
    .await;
    assert!(host.record(vm).incarnation >= 2);
    host.succeed(vm, Verb::Delete).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_illegal_verb_names_what_is_legal_and_changes_nothing() {
    let host = Host::start(in_process()).await;
    let vm = host.create("illegal", roost_guests::HELLO).await.id;
    let before = host.record(vm);
    for verb in [
        Verb::Create,
        Verb::Pause,
        Verb::Resume,
        Verb::Reboot,
        Verb::Shutdown,
    ] {
        match host.engine.submit(vm, verb, None).await {
            Err(EngineError::Refusal(Refusal::Illegal { illegal, .. })) => {
                assert_eq!(illegal.legal, [Verb::Boot, Verb::Delete]);
            }
            other => panic!("{verb}: {other:?}"),
        }
    }
    assert_eq!(host.record(vm), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_taken_once_within_a_tenant() {
    let host = Host::start(in_process()).await;
    let record = host.create("twice", roost_guests::HELLO).await;
    match host.engine.create(record.spec.clone()).await {
        Err(EngineError::NameTaken { by, .. }) => assert_eq!(by, record.id),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_finds_no_worker_opens_an_incident() {
    let host = Host::start(in_process()).await;
    let vm = host.create("lost", roost_guests::HELLO).await.id;
    host.succeed(vm, Verb::Boot).await;
    host.output(vm, "tick 1").await;
    // Guests that run in the host process end with it.
    let host = host.restart(in_process()).await;
    host.event(0, |kind| {
        matches!(
            kind,
            EventKind::IncidentOpened {
                incident_kind: IncidentKind::WorkerMissing,
                ..
            }
        )
    })
    .await;
    host.state(vm, "running").await;
    assert_eq!(host.record(vm).incarnation, 2);
    host.succeed(vm, Verb::Delete).await;
    assert_eq!(host.run_dirs(), 0);
}

/// Whether an incident says that a guest printed nothing.
fn stalled(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::IncidentOpened {
            incident_kind: IncidentKind::BootStalled { .. },
            ..
        }
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_never_prints_has_stalled_when_its_time_is_over() {
    let host = Host::start(in_process()).await;
    let more = serde_json::json!({ "boot_deadline_ms": 500 });
    let vm = host
        .create_with("silent", roost_guests::SILENT, more)
        .await
        .id;
    host.succeed(vm, Verb::Boot).await;
    let opened = host.event(0, stalled).await;
    assert_eq!(opened.event.incarnation, Some(1));
    let windows = host.engine.store().windows(Some(vm), usize::MAX).unwrap();
    let ran_ns: u64 = windows
        .iter()
        .filter(|window| window.key.incarnation == 1)
        .map(|window| window.running_ns)
        .sum();
    // The last window is closed after the incident; those before it have nearly all of it.
    assert!(ran_ns > 0, "{windows:?}");
    // The policy decides: the bundled one has it booted again, and it stalls again.
    host.event(opened.number, stalled).await;
    assert!(host.record(vm).incarnation >= 2);
    host.succeed(vm, Verb::Delete).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_prints_in_time_on_its_serial_port_or_its_console_goes_on() {
    let deadline_ms = 10_000;
    let host = Host::start(in_process()).await;
    let mut vms = Vec::new();
    for (name, guest, console) in [
        ("serial", roost_guests::HELLO, false),
        ("console", roost_guests::VIRTIO_CONSOLE, true),
    ] {
        let more = serde_json::json!({ "boot_deadline_ms": deadline_ms, "console": console });
        let vm = host.create_with(name, guest, more).await.id;
        host.succeed(vm, Verb::Boot).await;
        vms.push(vm);
    }
    for vm in vms {
        // It has run for longer than that.
        host.event(0, |kind| {
            matches!(kind, EventKind::WindowClosed { window }
                if window.key.vm == vm && window.counters.running_ns > deadline_ms * 1_000_000)
        })
        .await;
        let incidents = host.engine.store().incidents(Some(vm), usize::MAX);
        assert_eq!(incidents.unwrap(), []);
        assert_eq!(host.record(vm).incarnation, 1);
    }
}
