//! Facts as a host might give them, for tests to change.

use crate::types::{Context, Vm};
use crate::{admission as a, billing as b, cleanup as c, recovery as r};

/// 2026-01-01T12:00:00Z, a seed of 0 and no settings.
#[must_use]
pub fn context() -> Context {
    Context {
        now_ms: 1_767_268_800_000,
        seed: 0,
        settings: "{}".to_owned(),
        attributes: Vec::new(),
    }
}

/// A small VM `web` of the tenant `acme`, running in its first incarnation.
#[must_use]
pub fn vm() -> Vm {
    Vm {
        id: "vm-0123456789abcdef0123456789abcdef".to_owned(),
        name: "web".to_owned(),
        tenant: "acme".to_owned(),
        labels: Vec::new(),
        vcpus: 1,
        memory_mib: 128,
        state: "running".to_owned(),
        desired: "running".to_owned(),
        incarnation: 1,
        created_at_ms: 1_767_268_740_000,
        attributes: Vec::new(),
    }
}

/// [`vm`] is to be created on a host that has none.
#[must_use]
pub fn admission() -> a::Facts {
    let none = a::Usage {
        vms: 0,
        vcpus: 0,
        memory_mib: 0,
    };
    a::Facts {
        context: context(),
        request: a::Request::Create,
        vm: Vm {
            state: "stopped".to_owned(),
            desired: "stopped".to_owned(),
            incarnation: 0,
            ..vm()
        },
        node: none,
        tenant: none,
        attributes: Vec::new(),
    }
}

/// The run directory of [`vm`] could not be removed, for the second time in a second.
#[must_use]
pub fn cleanup() -> c::Facts {
    let context = context();
    c::Facts {
        since_ms: context.now_ms - 1000,
        context,
        vm_id: vm().id,
        resource: "run-directory".to_owned(),
        attempts: 2,
        error: "Directory not empty (os error 39)".to_owned(),
        attributes: Vec::new(),
    }
}

/// The worker of [`vm`] was killed; it is its first incident.
#[must_use]
pub fn recovery() -> r::Facts {
    let context = context();
    r::Facts {
        vm: Vm {
            state: "failed".to_owned(),
            ..vm()
        },
        incident: r::Incident {
            id: "inc-0123456789abcdef0123456789abcdef".to_owned(),
            kind: "worker-exit".to_owned(),
            detail: "the worker ended with signal 9".to_owned(),
            at_ms: context.now_ms,
            incarnation: 1,
            attributes: Vec::new(),
        },
        context,
        attempts: 0,
        history: Vec::new(),
        attributes: Vec::new(),
    }
}

/// A minute of [`vm`] with a second of CPU time.
#[must_use]
pub fn window() -> b::Window {
    let end_ms = context().now_ms;
    b::Window {
        incarnation: 1,
        sequence: 1,
        start_ms: end_ms - 60_000,
        end_ms,
        vcpus: 1,
        memory_bytes: 128 << 20,
        vcpu_cpu_ns: 1_000_000_000,
        running_ns: 60_000_000_000,
        serial_tx_bytes: 1000,
        close: "grid".to_owned(),
        source: "exact".to_owned(),
        attributes: Vec::new(),
    }
}

/// [`window`] was closed.
#[must_use]
pub fn billing() -> b::Facts {
    b::Facts {
        context: context(),
        vm: vm(),
        windows: vec![window()],
        attributes: Vec::new(),
    }
}
