//! Records for the store's tests: small, valid, and told apart by a number.
#![allow(dead_code, reason = "each test uses some of them")]

use std::collections::{BTreeMap, BTreeSet};

use roost_model::*;
use uuid::Uuid;

pub(crate) fn vm_id(n: u128) -> VmId {
    VmId::from_uuid(Uuid::from_u128(n))
}

pub(crate) fn operation_id(n: u128) -> OperationId {
    OperationId::from_uuid(Uuid::from_u128(n))
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn digest(n: u8) -> Digest {
    Digest::new([n; 32])
}

/// VM `n` at revision 1, called `vm_name`, of the default tenant.
pub(crate) fn vm(n: u128, vm_name: &str) -> VmRecord {
    VmRecord {
        id: vm_id(n),
        spec: VmSpec {
            labels: BTreeMap::from([("tier".to_owned(), "test".to_owned())]),
            initrd: Some(ImageRef::Tag("initrd:1".to_owned())),
            cmdline: "console=ttyS0".to_owned(),
            ..VmSpec::new(name(vm_name), ImageRef::Digest(digest(1)))
        },
        kernel: digest(1),
        initrd: Some(digest(2)),
        disk_images: Vec::new(),
        disks_made: false,
        macs: Vec::new(),
        vsock_cid: None,
        desired: DesiredState::Running,
        state: VmState::Failed {
            failure: Failure {
                kind: FailureKind::Guest,
                detail: "triple fault".to_owned(),
            },
        },
        incarnation: 1,
        revision: 1,
        worker: Some(WorkerRecord {
            incarnation: 1,
            nonce: "0".repeat(32),
            pid: Some(7),
            start_ticks: Some(u64::MAX),
        }),
        running_since_ms: None,
        recovery_attempts: 2,
        created_at_ms: 1,
        updated_at_ms: 2,
    }
}

pub(crate) fn at_revision(record: &VmRecord, revision: u64) -> VmRecord {
    VmRecord {
        revision,
        ..record.clone()
    }
}

pub(crate) fn operation(n: u128, vm: u128, state: OperationState) -> Operation {
    Operation {
        id: operation_id(n),
        vm: vm_id(vm),
        verb: Verb::Boot,
        origin: Origin::User,
        grace: None,
        not_before_ms: None,
        state,
        steps: vec![StepRecord {
            step: Step::StartWorker,
            state: StepState::Intended,
            at_ms: 3,
        }],
        created_at_ms: 1,
        updated_at_ms: 2,
    }
}

pub(crate) fn event(at_ms: u64) -> NewEvent {
    NewEvent {
        at_ms,
        vm: Some(vm_id(1)),
        tenant: Some(Tenant::default()),
        incarnation: Some(1),
        kind: EventKind::IncidentOpened {
            incident: incident(1, 1, false).id,
            incident_kind: incident(1, 1, false).kind,
        },
    }
}

pub(crate) fn incident(n: u128, vm: u128, closed: bool) -> Incident {
    Incident {
        id: IncidentId::from_uuid(Uuid::from_u128(n)),
        vm: vm_id(vm),
        incarnation: 1,
        kind: IncidentKind::GuestFailure {
            exit: GuestExit::InternalError { suberror: 1 },
        },
        at_ms: 1,
        decision: Some(RecoveryAction::Restart { delay_ms: 100 }),
        closed,
    }
}

pub(crate) fn task(n: u128, vm: u128) -> CleanupTask {
    CleanupTask {
        id: CleanupId::from_uuid(Uuid::from_u128(n)),
        vm: vm_id(vm),
        resource: Resource::Worker {
            pid: 7,
            start_ticks: 9,
        },
        attempts: 1,
        due_at_ms: 5,
        created_at_ms: 1,
        last_error: Some("busy".to_owned()),
    }
}

pub(crate) fn action(n: u128) -> ActionRequired {
    ActionRequired {
        id: ActionId::from_uuid(Uuid::from_u128(n)),
        // As every version before this field wrote it.
        vm: None,
        task: Some(task(n, 1)),
        found: None,
        what: "unmount it".to_owned(),
        at_ms: 1,
    }
}

pub(crate) fn plugin(text: &str) -> Plugin {
    Plugin {
        active: Some(1),
        revisions: vec![PluginRevision {
            revision: 1,
            digest: digest(3),
            size_bytes: 20_000,
            hooks: BTreeSet::from([Hook::Admission, Hook::Billing]),
            version: "1.0.0".to_owned(),
            settings: "{}".to_owned(),
            grants: BTreeSet::new(),
            state: RevisionState::Active,
            pushed_at_ms: 1,
        }],
        ..Plugin::new(name(text))
    }
}

pub(crate) fn binding(hook: Hook, plugin: &str, priority: i32) -> Binding {
    Binding {
        hook,
        plugin: name(plugin),
        selector: Selector {
            tenant: Some(Tenant::default()),
            labels: BTreeMap::new(),
        },
        priority,
        mode: BindingMode::Monitor,
        on_failure: OnFailure::Next,
        instance: InstanceMode::Fresh,
    }
}

pub(crate) fn image(n: u8, tag: Option<&str>) -> Image {
    Image {
        digest: digest(n),
        size_bytes: 1 << 40,
        tag: tag.map(str::to_owned),
        created_at_ms: 1,
    }
}

pub(crate) fn key(vm: u128, incarnation: u64, sequence: u64) -> WindowKey {
    WindowKey {
        vm: vm_id(vm),
        incarnation,
        sequence,
    }
}

pub(crate) fn open_window(vm: u128, counters: u64) -> OpenWindow {
    OpenWindow {
        key: key(vm, 1, 1),
        start_ms: 1,
        start_counters: Counters::default(),
        counters_at_ms: 2,
        counters: Counters {
            vcpu_cpu_ns: counters,
            ..Counters::default()
        },
    }
}

pub(crate) fn window(key: WindowKey) -> UsageWindow {
    UsageWindow {
        key,
        start_ms: 1,
        end_ms: 2,
        vcpus: 1,
        memory_bytes: 128 << 20,
        vcpu_cpu_ns: u64::MAX,
        running_ns: 4,
        serial_tx_bytes: 5,
        counters: Counters::default(),
        close: WindowClose::Grid,
        source: CounterSource::Exact,
    }
}

pub(crate) fn charge(window: WindowKey, item: &str) -> Charge {
    Charge {
        window,
        item: item.to_owned(),
        quantity: 3,
        unit: "ms".to_owned(),
        unit_price_nanos: 5,
        amount_nanos: 15,
        currency: "EUR".to_owned(),
    }
}

/// A decision about VM `vm` in which plugin `asked` only monitored.
pub(crate) fn decision(at_ms: u64, vm: u128, asked: &str, differs: bool) -> NewDecision {
    NewDecision {
        at_ms,
        hook: Hook::Cleanup,
        vm: Some(vm_id(vm)),
        tenant: Some(Tenant::default()),
        incarnation: Some(1),
        facts: serde_json::json!({ "context": { "seed": u64::MAX } }),
        decision: serde_json::json!({ "retry-after": 200 }),
        decided_by: DecidedBy::Plugin {
            plugin: "p".to_owned(),
            revision: 1,
        },
        calls: vec![DecisionCall {
            plugin: asked.to_owned(),
            revision: 2,
            mode: CallMode::Monitor,
            outcome: CallOutcome::Decided {
                decision: differs.then(|| serde_json::json!({ "give-up": "no" })),
            },
            differs,
            latency_us: 20,
        }],
        differs,
        elapsed_us: 41,
    }
}

pub(crate) fn quarantine(plugin: &str, until_ms: u64) -> Quarantine {
    Quarantine {
        plugin: name(plugin),
        revision: 1,
        reason: "it trapped".to_owned(),
        since_ms: 1,
        until_ms,
        round: 2,
    }
}

pub(crate) fn drain(since_ms: u64) -> Drain {
    Drain {
        since_ms,
        stop_at_ms: since_ms.saturating_add(60_000),
    }
}
