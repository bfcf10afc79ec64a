//! What becomes of a decision: what is written down with its effect, and what is counted.

use roost_model::{
    CallMode, CallOutcome, DecidedBy, DecisionCall, EventKind, Hook, Name, NewDecision, NewEvent,
    Tenant, VmId, VmRecord,
};
use roost_policy::{
    AdmissionDecision, CallOutcome as Outcome, CallRecord, Charge, CleanupDecision, Decided,
    Decision, FailureKind, Level, RecoveryDecision,
};
use roost_store::{Change, KvWrite};

use crate::context::Context;
use crate::plugins::logs::NewLine;

/// JSON of decisions that were not used, kept with one decision, bytes. Beyond it only whether they
/// differ is kept.
const MAX_OTHERS_BYTES: usize = 256 << 10;

/// What a decision is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub(crate) vm: Option<VmId>,
    pub(crate) tenant: Option<Tenant>,
    pub(crate) incarnation: Option<u64>,
}

impl About {
    pub(crate) fn vm(record: &VmRecord) -> Self {
        Self {
            vm: Some(record.id),
            tenant: Some(record.spec.tenant.clone()),
            incarnation: (record.incarnation > 0).then_some(record.incarnation),
        }
    }
}

/// A decision that was made and is not yet written down.
#[derive(Debug)]
pub(crate) struct Settled<T> {
    pub(crate) decision: T,
    pub(crate) by: DecidedBy,
    /// Whether the native policy decided in the place of somebody who should have and did not.
    pub(crate) fell_back: bool,
    /// Its place in the journal, values of the plugin that decided, and who failed: to be committed
    /// together with the decision's effect.
    pub(crate) changes: Vec<Change>,
}

impl<T> Settled<T> {
    /// The decision, and what is to be written down of it.
    pub(crate) fn taken(self) -> (T, Settled<()>) {
        let Self {
            decision,
            by,
            fell_back,
            changes,
        } = self;
        let settled = Settled {
            decision: (),
            by,
            fell_back,
            changes,
        };
        (decision, settled)
    }

    /// What is written down where the decision has no effect, because something else forbids it.
    pub(crate) fn without_effect(mut self) -> Vec<Change> {
        self.changes
            .retain(|change| !matches!(change, Change::WriteKv(_)));
        self.changes
    }
}

/// A decision of one hook, as the journal takes it.
pub(crate) trait Recorded: Clone {
    const HOOK: Hook;

    fn recorded(self) -> Decision;
}

macro_rules! recorded {
    ($type:ty, $hook:ident) => {
        impl Recorded for $type {
            const HOOK: Hook = Hook::$hook;

            fn recorded(self) -> Decision {
                Decision::$hook(self)
            }
        }
    };
}

recorded!(AdmissionDecision, Admission);
recorded!(CleanupDecision, Cleanup);
recorded!(RecoveryDecision, Recovery);
recorded!(Vec<Charge>, Billing);

/// Whether two decisions lead to the same. Reasons and instructions are words for a person: two
/// policies that say the same with other words do not differ.
pub(crate) fn same(one: &Decision, other: &Decision) -> bool {
    match (one, other) {
        (
            Decision::Admission(AdmissionDecision::Deny(_)),
            Decision::Admission(AdmissionDecision::Deny(_)),
        )
        | (
            Decision::Cleanup(CleanupDecision::GiveUp(_)),
            Decision::Cleanup(CleanupDecision::GiveUp(_)),
        ) => true,
        (Decision::Recovery(one), Decision::Recovery(other)) => one.action == other.action,
        (one, other) => one == other,
    }
}

impl Context {
    /// Counts what was asked, and makes the changes that are committed with the decision's effect.
    pub(crate) fn settle<T: Recorded>(&self, about: About, decided: Decided<T>) -> Settled<T> {
        let at_ms = self.now_ms();
        let hook = T::HOOK;
        self.note_quarantines(decided.quarantine);
        let mut facts = decided.facts;
        // They may be large, and the revision has them.
        facts.context_mut().settings.clear();
        let used = decided.decision.clone().recorded();
        let mut changes = Vec::new();
        let mut calls = Vec::with_capacity(decided.calls.len());
        let mut others_bytes = 0;
        for call in decided.calls {
            let mode = self.call_mode(&call);
            let differs = match &call.outcome {
                Outcome::Decision(other) => mode != CallMode::Enforce && !same(&used, other),
                Outcome::Error(_) => false,
            };
            self.count(hook, &call, mode, differs);
            if let Some(kind) = failed(hook, &call) {
                changes.push(Change::AppendEvent(about.event(at_ms, kind)));
            }
            if is_decider(&decided.by, &call, mode)
                && let Some(write) = self.kv_write(&call)
            {
                changes.push(Change::WriteKv(write));
            }
            calls.push(record(call, mode, differs, &mut others_bytes));
        }
        let differs = calls.iter().any(|call| call.differs);
        self.metrics.decided(hook, &decided.by, differs);
        changes.push(Change::AppendDecision(NewDecision {
            at_ms,
            hook,
            vm: about.vm,
            tenant: about.tenant,
            incarnation: about.incarnation,
            facts: facts.to_json(),
            decision: used.to_json(),
            decided_by: decided.by.clone(),
            calls,
            differs,
            elapsed_us: decided.elapsed_us,
        }));
        Settled {
            decision: decided.decision,
            by: decided.by,
            fell_back: decided.fell_back,
            changes,
        }
    }

    /// Metrics and the plugin's log; statistics are the policy host's.
    pub(crate) fn count(&self, hook: Hook, call: &CallRecord, mode: CallMode, differs: bool) {
        let failure = match &call.outcome {
            Outcome::Decision(_) => None,
            Outcome::Error(failure) => Some(failure),
        };
        self.metrics.called(hook, call, mode.name(), differs);
        if failure.is_some_and(|failure| failure.kind == FailureKind::Quarantined) {
            return;
        }
        let at_ms = self.now_ms();
        let lines = call.log.iter().map(|line| (line.level, &line.message));
        let failure = failure.map(|failure| (Level::Error, &failure.message));
        for (level, message) in lines.chain(failure) {
            let line = NewLine {
                at_ms,
                revision: call.revision,
                hook,
                level: level_name(level),
                message: message.clone(),
            };
            self.plugin_logs.push(&call.plugin, line);
        }
    }

    /// What a call wants stored.
    pub(crate) fn kv_write(&self, call: &CallRecord) -> Option<KvWrite> {
        if call.kv.is_empty() {
            return None;
        }
        Some(KvWrite {
            plugin: call.plugin.parse::<Name>().ok()?,
            writes: call.kv.writes.clone(),
            expected: call.kv.expected.clone(),
            quota: self.config.kv_quota,
        })
    }
}

impl About {
    fn event(&self, at_ms: u64, kind: EventKind) -> NewEvent {
        NewEvent {
            at_ms,
            vm: self.vm,
            tenant: self.tenant.clone(),
            incarnation: self.incarnation,
            kind,
        }
    }
}

/// Whether the decision that is used is this call's.
fn is_decider(by: &DecidedBy, call: &CallRecord, mode: CallMode) -> bool {
    let is_by = matches!(by, DecidedBy::Plugin { plugin, revision }
        if *plugin == call.plugin && *revision == call.revision);
    is_by && mode == CallMode::Enforce && matches!(call.outcome, Outcome::Decision(_))
}

/// The event of a call that failed. One that was not made is none.
fn failed(hook: Hook, call: &CallRecord) -> Option<EventKind> {
    match &call.outcome {
        Outcome::Error(failure) if failure.kind != FailureKind::Quarantined => {
            Some(EventKind::PolicyFailed {
                hook,
                plugin: call.plugin.clone(),
                revision: call.revision,
                error: failure.message.clone(),
            })
        }
        _ => None,
    }
}

fn record(
    call: CallRecord,
    mode: CallMode,
    differs: bool,
    others_bytes: &mut usize,
) -> DecisionCall {
    let outcome = match call.outcome {
        Outcome::Decision(decision) => {
            let kept = differs.then(|| decision.to_json()).filter(|json| {
                *others_bytes += json.to_string().len();
                *others_bytes <= MAX_OTHERS_BYTES
            });
            CallOutcome::Decided { decision: kept }
        }
        Outcome::Error(failure) if failure.kind == FailureKind::Quarantined => {
            CallOutcome::Quarantined
        }
        Outcome::Error(failure) => CallOutcome::Failed {
            failure: kind_name(failure.kind).to_owned(),
            error: failure.message,
        },
    };
    DecisionCall {
        plugin: call.plugin,
        revision: call.revision,
        mode,
        outcome,
        differs,
        latency_us: call.elapsed_us,
    }
}

/// As it stands in JSON.
pub(crate) const fn kind_name(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Trap => "trap",
        FailureKind::Deadline => "deadline",
        FailureKind::Starved => "starved",
        FailureKind::Memory => "memory",
        FailureKind::Nonsense => "nonsense",
        FailureKind::NotExported => "not-exported",
        FailureKind::Host => "host",
        FailureKind::Quarantined => "quarantined",
    }
}

const fn level_name(level: Level) -> &'static str {
    match level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}
