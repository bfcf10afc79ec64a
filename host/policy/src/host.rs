//! Which plugin decides what for whom, and what happens when it does not.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use roost_model::{Binding, BindingMode, DecidedBy, Hook, OnFailure};

use crate::bindings::{
    AdmissionDecision, AdmissionFacts, BillingFacts, Charge, CleanupDecision, CleanupFacts,
    Context, RecoveryDecision, RecoveryFacts, Vm,
};
use crate::decided::{Decided, micros};
use crate::facts::ObserverFacts;
use crate::plugin::LoadedPlugin;
use crate::question::Question;
use crate::runtime::PolicyRuntime;
use crate::seat::{Calls, Seat, Standing};
use crate::statistics::PluginStatistics;
use crate::strikes::{Quarantine, StrikeLimits};

/// Revisions whose statistics are remembered after they lost their say.
const MAX_REMEMBERED: usize = 256;

/// A plugin that has a say, with all that it has a say in.
#[derive(Clone)]
pub struct ActivePlugin {
    /// Its name.
    pub name: String,
    /// The revision that is active.
    pub revision: u64,
    /// Its settings, JSON.
    pub settings: String,
    /// The component.
    pub plugin: LoadedPlugin,
    /// Its bindings.
    pub bindings: Vec<Binding>,
}

/// Whom a decision is about, for selectors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// Whose VM.
    pub tenant: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Subject {
    fn of(vm: &Vm) -> Self {
        Self {
            tenant: vm.tenant.clone(),
            labels: vm.labels.iter().cloned().collect(),
        }
    }
}

/// Everything that has a say, in the order in which it is asked.
#[derive(Default)]
struct Say {
    seats: Vec<Arc<Seat>>,
    chains: BTreeMap<Hook, Vec<(Arc<Seat>, Binding)>>,
}

impl Say {
    /// The highest priority first; by name where equal.
    fn new(seats: Vec<Arc<Seat>>) -> Self {
        let mut chains: BTreeMap<Hook, Vec<(Arc<Seat>, Binding)>> = BTreeMap::new();
        for seat in &seats {
            for binding in &seat.active.bindings {
                let chain = chains.entry(binding.hook).or_default();
                chain.push((Arc::clone(seat), binding.clone()));
            }
        }
        for chain in chains.values_mut() {
            chain.sort_by(|(a, of_a), (b, of_b)| {
                let by_priority = of_b.priority.cmp(&of_a.priority);
                by_priority.then_with(|| a.active.name.cmp(&b.active.name))
            });
        }
        Self { seats, chains }
    }

    /// The bindings of `hook` that select `subject`.
    fn chain<'a>(
        &'a self,
        hook: Hook,
        subject: &'a Subject,
    ) -> impl Iterator<Item = (&'a Seat, &'a Binding)> {
        let chain = self
            .chains
            .get(&hook)
            .map(Vec::as_slice)
            .unwrap_or_default();
        chain.iter().filter_map(|(seat, binding)| {
            let selected = binding.selector.selects(&subject.tenant, &subject.labels);
            selected.then_some((&**seat, binding))
        })
    }
}

type Standings = BTreeMap<(String, u64), Arc<Standing>>;

/// Asks plugins. Clones share one set of them.
#[derive(Clone)]
pub struct PolicyHost {
    runtime: PolicyRuntime,
    strikes: StrikeLimits,
    say: Arc<RwLock<Arc<Say>>>,
    standings: Arc<Mutex<Standings>>,
}

impl PolicyHost {
    /// A host in which the native policies decide, until plugins are made active.
    #[must_use]
    pub fn new(runtime: PolicyRuntime) -> Self {
        Self::with_strikes(runtime, StrikeLimits::default())
    }

    /// The same, with a rule of its own for when a revision is quarantined.
    #[must_use]
    pub fn with_strikes(runtime: PolicyRuntime, strikes: StrikeLimits) -> Self {
        Self {
            runtime,
            strikes,
            say: Arc::default(),
            standings: Arc::default(),
        }
    }

    /// The runtime, for loading plugins.
    #[must_use]
    pub fn runtime(&self) -> &PolicyRuntime {
        &self.runtime
    }

    /// Replaces the plugins that have a say, at once. Calls in flight finish on the old ones. What
    /// is known of a revision that stays, its warm instances included, stays.
    pub fn set_active(&self, plugins: Vec<ActivePlugin>) {
        // Held to the end, so that of two calls at once the later one also has the last word.
        let mut standings = self.standings();
        let old = self.snapshot();
        let seats: Vec<Arc<Seat>> = plugins
            .into_iter()
            .map(|active| {
                let key = (active.name.clone(), active.revision);
                let standing = Arc::clone(standings.entry(key).or_default());
                let kept = old.seats.iter().find(|seat| is_same(&seat.active, &active));
                let occupied = kept
                    .map(|seat| Arc::clone(&seat.occupied))
                    .unwrap_or_default();
                Arc::new(Seat::new(active, standing, occupied, self.strikes))
            })
            .collect();
        forget(&mut standings, &seats);
        let say = Arc::new(Say::new(seats));
        *self.say.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&say);
        drop(standings);
        for seat in &old.seats {
            let stays = |other: &Arc<Seat>| Arc::ptr_eq(&other.occupied, &seat.occupied);
            if !say.seats.iter().any(stays) {
                self.runtime.shared.warm.leave(&seat.occupied);
            }
        }
    }

    fn snapshot(&self) -> Arc<Say> {
        Arc::clone(&self.say.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn standings(&self) -> MutexGuard<'_, Standings> {
        self.standings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How many plugins have a say.
    #[must_use]
    pub fn active(&self) -> usize {
        self.snapshot().seats.len()
    }

    /// The active plugin whose component has this SHA-256, so that it need not be compiled again.
    #[must_use]
    pub fn loaded(&self, digest: &[u8; 32]) -> Option<LoadedPlugin> {
        let say = self.snapshot();
        let mut plugins = say.seats.iter().map(|seat| &seat.active.plugin);
        plugins.find(|plugin| plugin.digest() == *digest).cloned()
    }

    /// What was counted of every revision that was asked, by name, revision and hook.
    #[must_use]
    pub fn statistics(&self) -> Vec<PluginStatistics> {
        let standings = self.standings();
        standings
            .iter()
            .flat_map(|((name, revision), standing)| standing.statistics((name, *revision)))
            .collect()
    }

    /// How many instances are kept warm.
    #[must_use]
    pub fn warm_instances(&self) -> usize {
        self.runtime.shared.warm.len()
    }

    /// Puts revisions into the quarantine that they were in when the host stopped. To be called
    /// before they are made active.
    pub fn restore_quarantine(
        &self,
        quarantined: impl IntoIterator<Item = (String, u64, Quarantine)>,
    ) {
        let mut standings = self.standings();
        for (name, revision, quarantine) in quarantined {
            standings.insert((name, revision), Arc::new(Standing::restored(quarantine)));
        }
    }

    /// The quarantine of a revision, if it is in one.
    #[must_use]
    pub fn quarantine(&self, plugin: &str, revision: u64) -> Option<Quarantine> {
        let standings = self.standings();
        standings.get(&(plugin.to_owned(), revision))?.quarantine()
    }

    /// Trusts a revision again, on an operator's word. True: it was quarantined.
    pub fn readmit(&self, plugin: &str, revision: u64) -> bool {
        let standings = self.standings();
        let standing = standings.get(&(plugin.to_owned(), revision));
        standing.is_some_and(|standing| standing.readmit())
    }

    /// Whether a VM may be created or booted.
    #[must_use]
    pub fn admission(&self, facts: AdmissionFacts) -> Decided<AdmissionDecision> {
        let subject = Subject::of(&facts.vm);
        self.decide(facts, &subject)
    }

    /// When to try a cleanup again.
    #[must_use]
    pub fn cleanup(
        &self,
        facts: CleanupFacts,
        subject: impl Borrow<Subject>,
    ) -> Decided<CleanupDecision> {
        self.decide(facts, subject.borrow())
    }

    /// What to do about an incident.
    #[must_use]
    pub fn recovery(&self, facts: RecoveryFacts) -> Decided<RecoveryDecision> {
        let subject = Subject::of(&facts.vm);
        self.decide(facts, &subject)
    }

    /// What usage windows cost.
    #[must_use]
    pub fn billing(&self, facts: BillingFacts) -> Decided<Vec<Charge>> {
        let subject = Subject::of(&facts.vm);
        self.decide(facts, &subject)
    }

    /// Tells every observer whose selector fits of an event.
    #[must_use]
    pub fn observe(&self, context: Context, event: &str, subject: &Subject) -> Decided<()> {
        let started = Instant::now();
        let say = self.snapshot();
        let event = event.to_owned();
        let mut facts = ObserverFacts { context, event };
        let mut calls = Calls::default();
        for (seat, binding) in say.chain(Hook::Observer, subject) {
            let _ = seat.ask(binding, &mut facts, subject, &mut calls);
        }
        decided((), DecidedBy::Builtin, calls, facts, started)
    }

    /// Asks along the chain of bindings until somebody decides. The native policy always does.
    fn decide<Q: Question>(&self, mut question: Q, subject: &Subject) -> Decided<Q::Decision> {
        let started = Instant::now();
        let say = self.snapshot();
        let mut calls = Calls::default();
        let mut deny = false;
        let mut fell_back = false;
        let mut found = None;
        let is_monitor = |binding: &Binding| binding.mode == BindingMode::Monitor;
        for (seat, binding) in say.chain(Q::HOOK, subject).filter(|(_, b)| !is_monitor(b)) {
            if let Some(decision) = seat.ask(binding, &mut question, subject, &mut calls) {
                let (plugin, revision) = (seat.active.name.clone(), seat.active.revision);
                found = Some((decision, DecidedBy::Plugin { plugin, revision }));
                break;
            }
            fell_back = true;
            seat.fell_back(Q::HOOK);
            match binding.on_failure {
                OnFailure::Next => {}
                OnFailure::Builtin => break,
                OnFailure::Deny => {
                    deny = true;
                    break;
                }
            }
        }
        let fell_back = fell_back && found.is_none();
        let (decision, by) = match found {
            Some(found) => found,
            None if deny => (question.denied(), DecidedBy::Builtin),
            None => (question.builtin(), DecidedBy::Builtin),
        };
        // Whoever only monitors is asked whatever its priority, and answers for nothing.
        let mut settings = None;
        for (seat, binding) in say.chain(Q::HOOK, subject).filter(|(_, b)| is_monitor(b)) {
            settings.get_or_insert_with(|| question.context_mut().settings.clone());
            let _ = seat.ask(binding, &mut question, subject, &mut calls);
        }
        if let Some(settings) = settings {
            question.context_mut().settings = settings;
        }
        Decided {
            fell_back,
            ..decided(decision, by, calls, question, started)
        }
    }
}

/// Whether a seat goes on as it was.
fn is_same(old: &ActivePlugin, new: &ActivePlugin) -> bool {
    old.name == new.name && old.revision == new.revision && old.plugin.is(&new.plugin)
}

/// Forgets revisions that have no say, the oldest first, beyond [`MAX_REMEMBERED`]. Those in
/// quarantine are kept: somebody may roll back to them.
fn forget(standings: &mut Standings, seats: &[Arc<Seat>]) {
    let mut surplus = standings.len().saturating_sub(MAX_REMEMBERED);
    standings.retain(|_, standing| {
        let is_seated = seats
            .iter()
            .any(|seat| Arc::ptr_eq(&seat.standing, standing));
        if surplus == 0 || is_seated || standing.quarantine().is_some() {
            return true;
        }
        surplus -= 1;
        false
    });
}

fn decided<Q: Question, T>(
    decision: T,
    by: DecidedBy,
    calls: Calls,
    question: Q,
    started: Instant,
) -> Decided<T> {
    Decided {
        decision,
        by,
        fell_back: false,
        failures: calls.failures,
        elapsed_us: micros(started),
        calls: calls.records,
        facts: question.into_facts(),
        quarantine: calls.quarantine,
    }
}
