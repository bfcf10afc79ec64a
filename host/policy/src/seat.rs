//! A plugin's revision that has a say: how it is asked, and what is remembered of its answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use roost_model::{Binding, Hook, InstanceMode};

use crate::call::{Answer, CallUsage, Scope};
use crate::decided::{PolicyFailure, QuarantineChange, micros};
use crate::error::CallError;
use crate::host::{ActivePlugin, Subject};
use crate::question::Question;
use crate::record::{CallFailure, CallOutcome, CallRecord, FailureKind, KvChanges};
use crate::services::Caller;
use crate::statistics::{Counted, HookStatistics, PluginStatistics};
use crate::strikes::{Quarantine, StrikeLimits, Strikes, Turn};
use crate::warm::{Key, Occupied};

/// What is remembered of a revision, for as long as the host runs, whatever its seat.
#[derive(Default)]
pub(crate) struct Standing {
    strikes: Mutex<Strikes>,
    hooks: Mutex<BTreeMap<Hook, HookStatistics>>,
}

impl Standing {
    pub(crate) fn restored(quarantine: Quarantine) -> Self {
        Self {
            strikes: Mutex::new(Strikes::restored(quarantine)),
            hooks: Mutex::default(),
        }
    }

    fn strikes(&self) -> MutexGuard<'_, Strikes> {
        self.strikes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hooks(&self) -> MutexGuard<'_, BTreeMap<Hook, HookStatistics>> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn quarantine(&self) -> Option<Quarantine> {
        self.strikes().quarantine().cloned()
    }

    /// Trusts it again. True: it was quarantined.
    pub(crate) fn readmit(&self) -> bool {
        std::mem::take(&mut *self.strikes()).quarantine().is_some()
    }

    pub(crate) fn statistics(&self, plugin: (&str, u64)) -> Vec<PluginStatistics> {
        let quarantine = self.quarantine();
        let hooks = self.hooks();
        let read =
            |(hook, of): (&Hook, &HookStatistics)| of.read(plugin, *hook, quarantine.as_ref());
        hooks.iter().filter_map(read).collect()
    }
}

/// A revision that has a say.
pub(crate) struct Seat {
    pub(crate) active: ActivePlugin,
    pub(crate) standing: Arc<Standing>,
    pub(crate) occupied: Arc<Occupied>,
    limits: StrikeLimits,
}

/// What was asked so far for one decision.
#[derive(Default)]
pub(crate) struct Calls {
    pub(crate) records: Vec<CallRecord>,
    pub(crate) failures: Vec<PolicyFailure>,
    pub(crate) quarantine: Vec<QuarantineChange>,
}

impl Seat {
    pub(crate) fn new(
        active: ActivePlugin,
        standing: Arc<Standing>,
        occupied: Arc<Occupied>,
        limits: StrikeLimits,
    ) -> Self {
        Self {
            active,
            standing,
            occupied,
            limits,
        }
    }

    /// Asks, unless it is quarantined, and writes down what came of it.
    pub(crate) fn ask<Q: Question>(
        &self,
        binding: &Binding,
        question: &mut Q,
        subject: &Subject,
        calls: &mut Calls,
    ) -> Option<Q::Decision> {
        let context = question.context_mut();
        context.settings.clone_from(&self.active.settings);
        let now_ms = context.now_ms;
        let turn = self.standing.strikes().turn(now_ms);
        if turn == Turn::Skip {
            self.skip(Q::HOOK, binding, calls);
            return None;
        }
        let started = Instant::now();
        let answer = self.call(binding, question, subject);
        let counted = Counted {
            elapsed_ns: u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            cpu_ns: u64::try_from(answer.usage.cpu.as_nanos()).unwrap_or(u64::MAX),
            memory_bytes: answer.usage.memory_bytes,
            failure: answer
                .result
                .as_ref()
                .err()
                .map(|error| (error.kind(), error.code())),
        };
        self.standing
            .hooks()
            .entry(Q::HOOK)
            .or_default()
            .count(&counted);
        let error = answer.result.as_ref().err();
        calls.quarantine.extend(self.judge(turn, error, now_ms));
        if let Some(error) = error {
            calls.failures.push(PolicyFailure {
                plugin: self.active.name.clone(),
                revision: self.active.revision,
                error: error.to_string(),
            });
        }
        let mut usage = answer.usage;
        let outcome = match &answer.result {
            Ok(decision) => CallOutcome::Decision(Q::recorded(decision)),
            Err(error) => {
                // Nothing of a call that failed is to be stored.
                usage.kv = KvChanges::default();
                CallOutcome::Error(error.into())
            }
        };
        let mut record = self.record(binding, outcome, usage);
        record.elapsed_us = micros(started);
        calls.records.push(record);
        answer.result.ok()
    }

    /// That the binding's rule for failures was followed.
    pub(crate) fn fell_back(&self, hook: Hook) {
        self.standing.hooks().entry(hook).or_default().fell_back();
    }

    fn call<Q: Question>(
        &self,
        binding: &Binding,
        question: &mut Q,
        subject: &Subject,
    ) -> Answer<Q::Decision> {
        let plugin = &self.active.plugin;
        let asks_host = plugin.asks_host();
        let context = question.context_mut();
        let scope = Scope {
            caller: asks_host.then(|| Caller {
                plugin: self.active.name.clone(),
                tenant: (!subject.tenant.is_empty()).then(|| subject.tenant.clone()),
            }),
            now_ms: context.now_ms,
            seed: context.seed,
        };
        let warm = (binding.instance == InstanceMode::Warm).then(|| Key {
            seat: Arc::clone(&self.occupied),
            tenant: subject.tenant.as_str().into(),
        });
        plugin.ask(question, scope, warm.as_ref())
    }

    /// What the outcome says about the revision. Where the host or a binding is at fault, nothing.
    fn judge(
        &self,
        turn: Turn,
        error: Option<&CallError>,
        now_ms: u64,
    ) -> Option<QuarantineChange> {
        let mut strikes = self.standing.strikes();
        let is_its_fault = !error.is_some_and(|error| {
            matches!(
                error.kind(),
                FailureKind::Host | FailureKind::NotExported | FailureKind::Starved
            )
        });
        let reason = error.map(ToString::to_string);
        let changed = match turn {
            Turn::Skip => false,
            Turn::Try if !is_its_fault => {
                strikes.trial_void();
                false
            }
            Turn::Try => {
                strikes.tried(reason.as_deref(), now_ms, self.limits);
                true
            }
            Turn::Ask => is_its_fault && strikes.asked(reason.as_deref(), now_ms, self.limits),
        };
        changed.then(|| QuarantineChange {
            plugin: self.active.name.clone(),
            revision: self.active.revision,
            now: strikes.quarantine().cloned(),
        })
    }

    fn skip(&self, hook: Hook, binding: &Binding, calls: &mut Calls) {
        self.standing.hooks().entry(hook).or_default().skipped();
        let reason = self.standing.quarantine().map(|q| q.reason);
        let failure = CallFailure {
            kind: FailureKind::Quarantined,
            code: None,
            message: format!(
                "it is quarantined; it failed last because {}",
                reason.unwrap_or_default()
            ),
        };
        let outcome = CallOutcome::Error(failure);
        calls
            .records
            .push(self.record(binding, outcome, CallUsage::default()));
    }

    fn record(&self, binding: &Binding, outcome: CallOutcome, usage: CallUsage) -> CallRecord {
        CallRecord {
            plugin: self.active.name.clone(),
            revision: self.active.revision,
            mode: binding.mode,
            outcome,
            elapsed_us: 0,
            memory_bytes: usage.memory_bytes,
            log: usage.log,
            kv: usage.kv,
        }
    }
}
