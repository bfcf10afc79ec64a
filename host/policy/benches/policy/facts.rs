//! What is asked: few facts, and those of 64 VMs.

use roost_policy::{
    AdmissionFacts, AdmissionRequest, BillingFacts, CleanupFacts, Context, Facts, HostEvent,
    HostServices, HostView, Incident, KvUsage, ObserverFacts, PastIncident, RecoveryFacts, Usage,
    Vm, VmFilter, Window,
};

/// VMs of the larger facts.
const MANY: u64 = 64;
/// Most past incidents that the contract has.
const MAX_HISTORY: u64 = 32;

/// How much is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// What the decision needs.
    Small,
    /// That, and a line about each of 64 VMs, where the contract has no better place in the
    /// attributes.
    Many,
}

impl Size {
    pub(crate) const ALL: [Self; 2] = [Self::Small, Self::Many];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Many => "64-vms",
        }
    }

    const fn count(self) -> u64 {
        match self {
            Self::Small => 1,
            Self::Many => MANY,
        }
    }
}

fn id(number: u64) -> String {
    format!("vm-{number:032x}")
}

fn vm(number: u64) -> Vm {
    Vm {
        id: id(number),
        name: format!("web-{number}"),
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

fn lines(size: Size) -> Vec<(String, String)> {
    let line = |number| (id(number), "running, 2 vCPUs, 512 MiB".to_owned());
    match size {
        Size::Small => Vec::new(),
        Size::Many => (0..MANY).map(line).collect(),
    }
}

fn context(settings: &str) -> Context {
    Context {
        now_ms: 1_700_000_000_000,
        // No more than 53 bits: all that a Number of JavaScript keeps.
        seed: 0x9e37_79b9,
        settings: settings.to_owned(),
        attributes: Vec::new(),
    }
}

pub(crate) fn admission(size: Size) -> Facts {
    let usage = |vms| Usage {
        vms,
        vcpus: 2 * vms,
        memory_mib: 512 * vms,
    };
    Facts::Admission(AdmissionFacts {
        context: context("{}"),
        request: AdmissionRequest::Create,
        vm: vm(0),
        node: usage(100),
        tenant: usage(size.count()),
        attributes: lines(size),
    })
}

pub(crate) fn cleanup(size: Size) -> Facts {
    Facts::Cleanup(CleanupFacts {
        context: context("{}"),
        vm_id: id(0),
        resource: "run-directory".to_owned(),
        attempts: 3,
        since_ms: 1_699_999_000_000,
        error: "Device or resource busy".to_owned(),
        attributes: lines(size),
    })
}

pub(crate) fn recovery(size: Size) -> Facts {
    let past = |number: u64| PastIncident {
        kind: "worker-exit".to_owned(),
        at_ms: 1_699_999_000_000 - number,
        incarnation: number + 1,
        action: "restart".to_owned(),
    };
    let history = match size {
        Size::Small => 0,
        Size::Many => MAX_HISTORY,
    };
    Facts::Recovery(RecoveryFacts {
        context: context("{}"),
        vm: vm(0),
        incident: Incident {
            id: "inc-00000000000000000000000000000001".to_owned(),
            kind: "worker-exit".to_owned(),
            detail: "signal 9".to_owned(),
            at_ms: 1_699_999_999_000,
            incarnation: 3,
            attributes: Vec::new(),
        },
        attempts: 1,
        history: (0..history).map(past).collect(),
        attributes: lines(size),
    })
}

pub(crate) fn billing(size: Size) -> Facts {
    let window = |sequence: u64| {
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
    };
    Facts::Billing(BillingFacts {
        context: context("{}"),
        vm: vm(0),
        windows: (1..=size.count()).map(window).collect(),
        attributes: Vec::new(),
    })
}

pub(crate) fn observer(size: Size) -> Facts {
    let mut context = context("{}");
    context.attributes = lines(size);
    Facts::Observer(ObserverFacts {
        context,
        event: format!(
            r#"{{"number":1,"at_ms":1700000000000,"vm":"{}","kind":"vm-booted"}}"#,
            id(0)
        ),
    })
}

/// A host of one VM, or of 64.
pub(crate) struct Host(pub(crate) Size);

impl HostServices for Host {
    fn open(&self, _: &roost_policy::Caller) -> Result<Box<dyn HostView>, String> {
        Ok(Box::new(Self(self.0)))
    }
}

impl HostView for Host {
    fn vm(&self, _: &str) -> Result<Option<Vm>, String> {
        Ok(Some(vm(0)))
    }
    fn vms(&self, _: &VmFilter, limit: usize) -> Result<Vec<Vm>, String> {
        Ok((0..self.0.count()).take(limit).map(vm).collect())
    }
    fn history(&self, _: &str, _: usize) -> Result<Vec<HostEvent>, String> {
        Ok(Vec::new())
    }
    fn kv_get(&self, _: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }
    fn kv_list(&self, _: &str, _: Option<&str>, _: usize) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }
    fn kv_usage(&self) -> Result<KvUsage, String> {
        Err("nothing is stored here".to_owned())
    }
}
