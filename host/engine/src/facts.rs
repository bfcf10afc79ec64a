//! From the model to what policies are told, and back.

use std::sync::atomic::Ordering;

use roost_model::{
    Amounts, Claimed, CleanupTask, Incident, IncidentKind, RecoveryAction, UsageWindow, VmId,
    VmRecord, VmSpec, WindowKey,
};
use roost_policy::{
    AdmissionFacts, AdmissionRequest, BillingFacts, CleanupDecision, CleanupFacts, PastIncident,
    RecoveryAction as Action, RecoveryDecision, RecoveryFacts, SpecChange, Subject, Usage,
    Vm as VmFacts, Window,
};

use crate::context::{Context, new_seed};

/// Earlier incidents that a recovery policy is told of: enough to see a crash loop.
pub(crate) const MAX_HISTORY: usize = 32;

fn context(context: &Context) -> roost_policy::Context {
    roost_policy::Context {
        now_ms: context.now_ms(),
        seed: new_seed(),
        // The policy host puts in those of the plugin that it asks.
        settings: String::new(),
        attributes: Vec::new(),
    }
}

pub(crate) fn vm(record: &VmRecord) -> VmFacts {
    VmFacts {
        id: record.id.to_string(),
        name: record.spec.name.to_string(),
        tenant: record.spec.tenant.to_string(),
        labels: record.spec.labels.clone().into_iter().collect(),
        vcpus: record.spec.vcpus,
        memory_mib: record.spec.memory_mib,
        state: record.state.name().to_owned(),
        desired: name_of(&record.desired),
        incarnation: record.incarnation,
        created_at_ms: record.created_at_ms,
        attributes: Vec::new(),
    }
}

/// The name of a unit variant as it stands in JSON.
fn name_of(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

/// What others take is what their actors know: reading every record for each boot would make a
/// thousand boots a million reads.
pub(crate) fn admission(
    host: &Context,
    record: &VmRecord,
    request: AdmissionRequest,
) -> AdmissionFacts {
    let only_with_worker = matches!(request, AdmissionRequest::Boot);
    let claimed = host.with_actors(|actors| {
        let others = actors.iter().filter(|(id, other)| {
            **id != record.id && (!only_with_worker || other.has_worker.load(Ordering::Relaxed))
        });
        let claims = others.map(|(_, other)| (&other.claim.0, &other.claim.1));
        Claimed::sum(claims, &record.spec.tenant)
    });
    let usage = |amounts: &Amounts| Usage {
        vms: amounts.vms,
        vcpus: amounts.vcpus,
        memory_mib: amounts.memory_mib,
    };
    AdmissionFacts {
        context: context(host),
        request,
        vm: vm(record),
        node: usage(&claimed.node),
        tenant: usage(&claimed.tenant),
        attributes: Vec::new(),
    }
}

/// What an admission policy changes. The result is validated like a user's spec.
pub(crate) fn apply(spec: &mut VmSpec, change: SpecChange) {
    let SpecChange {
        vcpus,
        memory_mib,
        labels,
        cmdline,
    } = change;
    spec.vcpus = vcpus.unwrap_or(spec.vcpus);
    spec.memory_mib = memory_mib.unwrap_or(spec.memory_mib);
    if let Some(labels) = labels {
        spec.labels = labels.into_iter().collect();
    }
    if let Some(cmdline) = cmdline {
        spec.cmdline = cmdline;
    }
}

pub(crate) fn recovery(
    host: &Context,
    record: &VmRecord,
    incident: &Incident,
    history: &[Incident],
) -> RecoveryFacts {
    let (kind, detail) = describe(&incident.kind);
    RecoveryFacts {
        context: context(host),
        vm: vm(record),
        incident: roost_policy::Incident {
            id: incident.id.to_string(),
            kind: kind.to_owned(),
            detail,
            at_ms: incident.at_ms,
            incarnation: incident.incarnation,
            attributes: Vec::new(),
        },
        attempts: record.recovery_attempts,
        history: history
            .iter()
            .filter(|past| past.id != incident.id)
            .map(|past| PastIncident {
                kind: describe(&past.kind).0.to_owned(),
                at_ms: past.at_ms,
                incarnation: past.incarnation,
                action: past.decision.as_ref().map_or("", action_name).to_owned(),
            })
            .collect(),
        attributes: Vec::new(),
    }
}

fn describe(kind: &IncidentKind) -> (&'static str, String) {
    match kind {
        IncidentKind::WorkerExit { status } => ("worker-exit", format!("the worker: {status}")),
        IncidentKind::GuestFailure { exit } => ("guest-failure", exit.to_string()),
        IncidentKind::GuestEnded { exit } => ("guest-ended", exit.to_string()),
        IncidentKind::StartFailed { error } => ("start-failed", error.clone()),
        IncidentKind::WorkerHung { unanswered } => (
            "worker-hung",
            format!("the worker did not answer {unanswered} times in a row"),
        ),
        IncidentKind::BootStalled { deadline_ms } => (
            "boot-stalled",
            format!("the guest printed nothing within {deadline_ms} ms"),
        ),
        IncidentKind::WorkerMissing => (
            "worker-missing",
            "the worker was gone, and nothing told of its end".to_owned(),
        ),
    }
}

const fn action_name(action: &RecoveryAction) -> &'static str {
    match action {
        RecoveryAction::Restart { .. } => "restart",
        RecoveryAction::Adopt => "adopt",
        RecoveryAction::LeaveStopped => "leave-stopped",
        RecoveryAction::MarkFailed => "mark-failed",
        RecoveryAction::Destroy => "destroy",
    }
}

/// The action and the reason of a recovery policy's answer.
pub(crate) fn recovery_action(decision: &RecoveryDecision) -> (RecoveryAction, String) {
    let action = match &decision.action {
        Action::RestartAfter(delay_ms) => RecoveryAction::Restart {
            delay_ms: *delay_ms,
        },
        Action::Adopt => RecoveryAction::Adopt,
        Action::LeaveStopped => RecoveryAction::LeaveStopped,
        // The policy host lets no `other` through.
        Action::MarkFailed | Action::Other(_) => RecoveryAction::MarkFailed,
        Action::Destroy => RecoveryAction::Destroy,
    };
    (action, decision.reason.clone())
}

pub(crate) fn cleanup(
    host: &Context,
    task: &CleanupTask,
    record: Option<&VmRecord>,
) -> (CleanupFacts, Subject) {
    let facts = CleanupFacts {
        context: context(host),
        vm_id: task.vm.to_string(),
        resource: task.resource.name().to_owned(),
        attempts: task.attempts,
        since_ms: task.created_at_ms,
        error: task.last_error.clone().unwrap_or_default(),
        attributes: Vec::new(),
    };
    let subject = Subject {
        tenant: record
            .map(|r| r.spec.tenant.to_string())
            .unwrap_or_default(),
        labels: record.map(|r| r.spec.labels.clone()).unwrap_or_default(),
    };
    (facts, subject)
}

/// What a cleanup policy wants.
pub(crate) enum CleanupVerdict {
    RetryAfter(u64),
    GiveUp(String),
}

pub(crate) fn cleanup_verdict(decision: &CleanupDecision) -> CleanupVerdict {
    match decision {
        CleanupDecision::RetryAfter(delay_ms) => CleanupVerdict::RetryAfter(*delay_ms),
        CleanupDecision::GiveUp(what) => CleanupVerdict::GiveUp(what.clone()),
        // The policy host lets no `other` through; trying again is what does no harm.
        CleanupDecision::Other(_) => CleanupVerdict::RetryAfter(60_000),
    }
}

pub(crate) fn billing(host: &Context, record: &VmRecord, windows: &[UsageWindow]) -> BillingFacts {
    BillingFacts {
        context: context(host),
        vm: vm(record),
        windows: windows
            .iter()
            .map(|window| Window {
                incarnation: window.key.incarnation,
                sequence: window.key.sequence,
                start_ms: window.start_ms,
                end_ms: window.end_ms,
                vcpus: window.vcpus,
                memory_bytes: window.memory_bytes,
                vcpu_cpu_ns: window.vcpu_cpu_ns,
                running_ns: window.running_ns,
                serial_tx_bytes: window.serial_tx_bytes,
                close: name_of(&window.close),
                source: name_of(&window.source),
                attributes: Vec::new(),
            })
            .collect(),
        attributes: Vec::new(),
    }
}

/// A charge with its amount. The policy host refuses charges whose amount does not fit.
pub(crate) fn charge(vm: VmId, charge: &roost_policy::Charge) -> roost_model::Charge {
    roost_model::Charge {
        window: WindowKey {
            vm,
            incarnation: charge.incarnation,
            sequence: charge.sequence,
        },
        item: charge.item.clone(),
        quantity: charge.quantity,
        unit: charge.unit.clone(),
        unit_price_nanos: charge.unit_price_nanos,
        amount_nanos: charge.quantity.saturating_mul(charge.unit_price_nanos),
        currency: charge.currency.clone(),
    }
}
