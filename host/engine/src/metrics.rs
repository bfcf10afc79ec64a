//! Every metric of the host, declared in one place, in the text format of Prometheus.
//!
//! Labels are names that an operator chose or that are fixed here: no VM and no tenant is one, so
//! that their number is bounded.

use std::time::Duration;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use roost_model::{AuditReport, DecidedBy, DivergenceKind, Hook};
use roost_policy::{CallOutcome, CallRecord, FailureKind};

use crate::context::Context;
use crate::error::EngineError;
use crate::plugins::kind_name;

/// Upper bounds of a call's latency, seconds: from a warm instance to the deadline.
const LATENCY_BUCKETS: [f64; 10] = [
    5e-6, 20e-6, 50e-6, 100e-6, 250e-6, 1e-3, 5e-3, 20e-3, 50e-3, 100e-3,
];

macro_rules! metrics {
    ($($(#[$doc:meta])* $field:ident: $type:ident = $name:literal $([$($label:literal),+])? $help:literal;)*) => {
        /// The metrics.
        pub(crate) struct Metrics {
            registry: Registry,
            $($(#[$doc])* $field: $type,)*
        }

        /// The names of all metrics.
        pub(crate) const NAMES: &[&str] = &[$($name),*];

        impl Metrics {
            pub(crate) fn new() -> Result<Self, prometheus::Error> {
                let registry = Registry::new();
                $(let $field = metrics!(@make $type, $name, $help $(, &[$($label),+])?)?;
                registry.register(Box::new($field.clone()))?;)*
                Ok(Self { registry, $($field),* })
            }
        }
    };
    (@make HistogramVec, $name:literal, $help:literal, $labels:expr) => {
        HistogramVec::new(
            HistogramOpts::new($name, $help).buckets(LATENCY_BUCKETS.to_vec()),
            $labels,
        )
    };
    (@make $type:ident, $name:literal, $help:literal, $labels:expr) => {
        $type::new(Opts::new($name, $help), $labels)
    };
    (@make $type:ident, $name:literal, $help:literal) => {
        $type::new($name, $help)
    };
}

metrics! {
    decisions: IntCounterVec = "roost_policy_decisions_total" ["hook", "by"]
        "Decisions, by who made them: plugin or builtin.";
    differing: IntCounterVec = "roost_policy_decisions_differing_total" ["hook"]
        "Decisions about which a monitoring or shadow call was of another mind.";
    calls: IntCounterVec = "roost_policy_calls_total" ["plugin", "hook", "mode", "outcome"]
        "Calls of plugins, by what came of them: decided, or the kind of failure.";
    call_differs: IntCounterVec = "roost_policy_calls_differing_total" ["plugin", "hook"]
        "Monitoring or shadow calls that decided otherwise than what was used.";
    latency: HistogramVec = "roost_policy_call_seconds" ["plugin", "hook"]
        "Time that calls of plugins took.";
    missed: IntCounter = "roost_policy_observer_missed_events_total"
        "Events that observers were not told of, because they were too far behind.";
    quarantines: IntCounterVec = "roost_policy_quarantines_total" ["plugin"]
        "Times that a revision was put into quarantine.";
    quarantined: IntGauge = "roost_policy_quarantined_plugins"
        "Plugins in quarantine.";
    active: IntGauge = "roost_policy_active_plugins"
        "Plugin revisions that are asked, those in the shadow included.";
    diverged: IntCounterVec = "roost_divergences_total" ["kind"]
        "Findings of audits, by kind; what one finds again counts again.";
    divergences: IntGauge = "roost_divergences"
        "Findings of the last audit.";
    audit_busy: IntGauge = "roost_audit_busy_vms"
        "VMs that the last audit did not look at, because something was under way with them.";
    audit_us: IntGauge = "roost_audit_microseconds"
        "Time that the last audit took.";
    kv_bytes: IntGaugeVec = "roost_policy_kv_bytes" ["plugin"]
        "Keys and values that a plugin keeps.";
    replays: IntCounter = "roost_policy_replays_total"
        "Replays of recorded decisions.";
    vms: IntGaugeVec = "roost_vms" ["state"]
        "VMs by observed state.";
    open_incidents: IntGauge = "roost_open_incidents"
        "Incidents whose decision is not carried out.";
    cleanup_tasks: IntGauge = "roost_cleanup_tasks"
        "Resources that are yet to go away.";
    actions_required: IntGauge = "roost_actions_required"
        "Things that a person must do.";
    outbox: IntGauge = "roost_billing_outbox_windows"
        "Closed usage windows that are not charged for.";
    billing_lag: IntGauge = "roost_billing_lag_seconds"
        "Time since the end of the oldest usage window that is not charged for.";
    journal: IntGauge = "roost_decision_journal_entries"
        "Decisions in the journal.";
    events: IntGauge = "roost_events"
        "Number of the last event.";
    transactions: IntGauge = "roost_store_transactions"
        "Transactions of the store since the host started.";
    read_only: IntGauge = "roost_store_read_only"
        "1 once the store takes no more writes.";
}

impl Metrics {
    pub(crate) fn decided(&self, hook: Hook, by: &DecidedBy, differs: bool) {
        let by = match by {
            DecidedBy::Plugin { .. } => "plugin",
            DecidedBy::Builtin => "builtin",
        };
        let labels = [hook.name(), by];
        self.decisions.with_label_values(&labels).inc();
        let differing = self.differing.with_label_values(&[hook.name()]);
        differing.inc_by(u64::from(differs));
    }

    pub(crate) fn called(&self, hook: Hook, call: &CallRecord, mode: &'static str, differs: bool) {
        let (plugin, hook) = (call.plugin.as_str(), hook.name());
        let outcome = match &call.outcome {
            CallOutcome::Decision(_) => "decided",
            CallOutcome::Error(failure) => kind_name(failure.kind),
        };
        let labels = [plugin, hook, mode, outcome];
        self.calls.with_label_values(&labels).inc();
        let differing = self.call_differs.with_label_values(&[plugin, hook]);
        differing.inc_by(u64::from(differs));
        if outcome != kind_name(FailureKind::Quarantined) {
            let elapsed = Duration::from_micros(call.elapsed_us).as_secs_f64();
            let latency = self.latency.with_label_values(&[plugin, hook]);
            latency.observe(elapsed);
        }
    }

    /// Shows every kind of divergence from the start: an alert needs the zero, too.
    pub(crate) fn show_divergences(&self) {
        for kind in DivergenceKind::NAMES {
            self.diverged.with_label_values(&[kind]);
        }
    }

    pub(crate) fn audited(&self, report: &AuditReport) {
        for found in &report.divergences {
            let kind = self.diverged.with_label_values(&[found.kind.name()]);
            kind.inc();
        }
        self.divergences.set(gauge(report.divergences.len() as u64));
        self.audit_busy.set(gauge(report.busy));
        self.audit_us.set(gauge(report.elapsed_us));
    }

    pub(crate) fn observers_missed(&self, events: u64) {
        self.missed.inc_by(events);
    }

    pub(crate) fn replayed(&self) {
        self.replays.inc();
    }

    pub(crate) fn quarantined(&self, plugin: &str) {
        self.quarantines.with_label_values(&[plugin]).inc();
    }
}

impl Context {
    /// All metrics as text. It reads the whole table of VMs: call it where that may block.
    pub(crate) fn metrics_text(&self) -> Result<String, EngineError> {
        let (metrics, store) = (&self.metrics, &self.store);
        metrics.vms.reset();
        for record in store.vms()? {
            let state = metrics.vms.with_label_values(&[record.state.name()]);
            state.inc();
        }
        metrics.kv_bytes.reset();
        for (plugin, usage) in store.kv_usages()? {
            let bytes = metrics.kv_bytes.with_label_values(&[plugin.as_str()]);
            bytes.set(gauge(usage.bytes));
        }
        let oldest = store.outbox(1)?;
        let ended_ms = oldest.first().map(|window| window.end_ms);
        let lag_ms = ended_ms.map_or(0, |ended_ms| self.now_ms().saturating_sub(ended_ms));
        let counts = store.counts()?;
        for (metric, value) in [
            (&metrics.open_incidents, counts.open_incidents),
            (&metrics.cleanup_tasks, counts.cleanup_tasks),
            (&metrics.actions_required, counts.actions_required),
            (&metrics.outbox, counts.outbox),
            (&metrics.billing_lag, lag_ms / 1000),
            (&metrics.journal, counts.decisions),
            (&metrics.quarantined, counts.quarantines),
            (&metrics.events, store.last_event()?),
            (&metrics.transactions, store.transactions()),
            (&metrics.read_only, u64::from(store.read_only().is_some())),
            (&metrics.active, self.policies.active() as u64),
        ] {
            metric.set(gauge(value));
        }
        let families = metrics.registry.gather();
        TextEncoder::new()
            .encode_to_string(&families)
            .map_err(|error| EngineError::Metrics(error.to_string()))
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_declared_once_with_a_name_of_the_house() {
        Metrics::new().unwrap();
        let mut names = NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NAMES.len());
        assert!(names.iter().all(|name| name.starts_with("roost_")));
    }
}
