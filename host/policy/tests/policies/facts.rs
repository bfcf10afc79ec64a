//! Facts that the tests ask with.

use roost_policy::{
    AdmissionFacts, AdmissionRequest, BillingFacts, CleanupFacts, Context, Incident, RecoveryFacts,
    Usage, Vm, Window,
};

pub(crate) fn context(seed: u64) -> Context {
    Context {
        now_ms: 1_700_000_000_000,
        seed,
        settings: "{}".to_owned(),
        attributes: vec![("region".to_owned(), "eu".to_owned())],
    }
}

pub(crate) fn vm() -> Vm {
    Vm {
        id: "vm-00000000000000000000000000000001".to_owned(),
        name: "web".to_owned(),
        tenant: "acme".to_owned(),
        labels: vec![("tier".to_owned(), "gold".to_owned())],
        vcpus: 2,
        memory_mib: 512,
        state: "failed".to_owned(),
        desired: "running".to_owned(),
        incarnation: 3,
        created_at_ms: 1_690_000_000_000,
        attributes: Vec::new(),
    }
}

pub(crate) fn cleanup(attempts: u32, seed: u64) -> CleanupFacts {
    CleanupFacts {
        context: context(seed),
        vm_id: vm().id,
        resource: "run-directory".to_owned(),
        attempts,
        since_ms: 1_699_999_000_000,
        error: "Device or resource busy".to_owned(),
        attributes: Vec::new(),
    }
}

pub(crate) fn recovery(attempts: u32, seed: u64) -> RecoveryFacts {
    RecoveryFacts {
        context: context(seed),
        vm: vm(),
        incident: Incident {
            id: "inc-00000000000000000000000000000001".to_owned(),
            kind: "worker-exit".to_owned(),
            detail: "signal 9".to_owned(),
            at_ms: 1_699_999_999_000,
            incarnation: 3,
            attributes: Vec::new(),
        },
        attempts,
        history: Vec::new(),
        attributes: Vec::new(),
    }
}

pub(crate) fn admission(request: AdmissionRequest) -> AdmissionFacts {
    AdmissionFacts {
        context: context(1),
        request,
        vm: vm(),
        node: Usage {
            vms: 10,
            vcpus: 20,
            memory_mib: 4096,
        },
        tenant: Usage {
            vms: 3,
            vcpus: 6,
            memory_mib: 1024,
        },
        attributes: Vec::new(),
    }
}

pub(crate) fn billing(windows: Vec<Window>) -> BillingFacts {
    BillingFacts {
        context: context(1),
        vm: vm(),
        windows,
        attributes: Vec::new(),
    }
}

/// A window of a minute, in which 512 MiB were there and one vCPU ran for half of the time.
pub(crate) fn window(sequence: u64) -> Window {
    let start_ms = 1_700_000_000_000 + (sequence - 1) * 60_000;
    Window {
        incarnation: 3,
        sequence,
        start_ms,
        end_ms: start_ms + 60_000,
        vcpus: 2,
        memory_bytes: 512 << 20,
        vcpu_cpu_ns: 30_000_000_000,
        running_ns: 60_000_000_000,
        serial_tx_bytes: 0,
        close: "grid".to_owned(),
        source: "exact".to_owned(),
        attributes: Vec::new(),
    }
}
