//! What was counted of each plugin's calls, by revision and hook.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use roost_model::Hook;
use serde::Serialize;

use crate::record::FailureKind;
use crate::strikes::Quarantine;

/// Longest latency that is told apart, ns: longer than any deadline.
const MAX_NS: u64 = 60_000_000_000;
/// Significant decimal digits of a latency.
const DIGITS: u8 = 2;

/// What was counted since the host started.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PluginStatistics {
    /// The plugin's name.
    pub plugin: String,
    /// Its revision.
    pub revision: u64,
    /// The hook.
    pub hook: Hook,
    /// Calls, those that failed included.
    pub calls: u64,
    /// Calls that failed, by kind.
    pub failures: BTreeMap<FailureKind, u64>,
    /// Traps by their code.
    pub traps: BTreeMap<String, u64>,
    /// Decisions that somebody else made because it failed or was quarantined.
    pub fallbacks: u64,
    /// Median time of a call, µs.
    pub p50_us: f64,
    /// Time that 99 of 100 calls stay under, µs.
    pub p99_us: f64,
    /// The longest call, µs.
    pub max_us: f64,
    /// Time of all calls together, µs.
    pub total_us: f64,
    /// CPU time of all calls together, µs: that of the threads that made them. A call that ended
    /// within a millisecond counts with the time that it took.
    pub cpu_us: f64,
    /// Most linear memory that an instance had after a call, bytes.
    pub memory_high_water_bytes: u64,
    /// The revision's quarantine, if it is in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Quarantine>,
}

/// One call, to be counted.
pub(crate) struct Counted<'a> {
    pub(crate) elapsed_ns: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) failure: Option<(FailureKind, Option<&'a str>)>,
}

/// What is counted of one hook of one revision.
#[derive(Default)]
pub(crate) struct HookStatistics {
    latencies: Option<Histogram<u64>>,
    calls: u64,
    failures: BTreeMap<FailureKind, u64>,
    traps: BTreeMap<String, u64>,
    fallbacks: u64,
    total_ns: u64,
    cpu_ns: u64,
    memory_high_water_bytes: u64,
}

impl HookStatistics {
    pub(crate) fn count(&mut self, call: &Counted<'_>) {
        self.calls += 1;
        self.total_ns = self.total_ns.saturating_add(call.elapsed_ns);
        self.cpu_ns = self.cpu_ns.saturating_add(call.cpu_ns);
        self.memory_high_water_bytes = self.memory_high_water_bytes.max(call.memory_bytes);
        if let Some((kind, code)) = call.failure {
            *self.failures.entry(kind).or_default() += 1;
            if let Some(code) = code {
                // There are only as many codes as wasmtime has traps.
                *self.traps.entry(code.to_owned()).or_default() += 1;
            }
        }
        if self.latencies.is_none() {
            self.latencies = Histogram::new_with_bounds(1, MAX_NS, DIGITS).ok();
        }
        if let Some(latencies) = &mut self.latencies {
            latencies.saturating_record(call.elapsed_ns);
        }
    }

    /// A call that was not made, for want of trust.
    pub(crate) fn skipped(&mut self) {
        *self.failures.entry(FailureKind::Quarantined).or_default() += 1;
    }

    pub(crate) const fn fell_back(&mut self) {
        self.fallbacks += 1;
    }

    /// None if it was never asked.
    pub(crate) fn read(
        &self,
        (plugin, revision): (&str, u64),
        hook: Hook,
        quarantine: Option<&Quarantine>,
    ) -> Option<PluginStatistics> {
        if self.calls == 0 && self.failures.is_empty() {
            return None;
        }
        let us = |ns: u64| ns as f64 / 1e3;
        let at = |quantile: f64| {
            let latencies = self.latencies.as_ref();
            us(latencies.map_or(0, |latencies| latencies.value_at_quantile(quantile)))
        };
        Some(PluginStatistics {
            plugin: plugin.to_owned(),
            revision,
            hook,
            calls: self.calls,
            failures: self.failures.clone(),
            traps: self.traps.clone(),
            fallbacks: self.fallbacks,
            p50_us: at(0.5),
            p99_us: at(0.99),
            max_us: us(self.latencies.as_ref().map_or(0, Histogram::max)),
            total_us: us(self.total_ns),
            cpu_us: us(self.cpu_ns),
            memory_high_water_bytes: self.memory_high_water_bytes,
            quarantine: quarantine.cloned(),
        })
    }
}
