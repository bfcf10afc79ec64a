//! A component that was compiled and looked into.

use std::collections::BTreeSet;
use std::sync::Arc;

use roost_model::{Grant, Hook};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use wasmtime::component::InstancePre;

use crate::bindings::{
    AdmissionDecision, AdmissionFacts, BillingFacts, Charge, CleanupDecision, CleanupFacts,
    Description, RecoveryDecision, RecoveryFacts,
};
use crate::call::{Answer, CallState, Live, Scope, call, call_warm};
use crate::error::{CallError, LoadError, SettingsError};
use crate::exports::{Exports, interface};
use crate::facts::{Decision, Facts, ObserverFacts};
use crate::imports::Imports;
use crate::magic::check_magic;
use crate::question::Question;
use crate::runtime::{MAX_COMPONENT_BYTES, PolicyRuntime};
use crate::text::clean;
use crate::warm::Key;

/// Longest text in a description, characters.
const MAX_DESCRIPTION_CHARS: usize = 256;
/// Longest settings, bytes: they are given to every call.
const MAX_SETTINGS_BYTES: usize = 64 << 10;
/// Exports that are named in an error.
const MAX_NAMED_EXPORTS: usize = 8;

/// A plugin that can be asked. Clones share one component.
#[derive(Clone)]
pub struct LoadedPlugin {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: PolicyRuntime,
    component: InstancePre<CallState>,
    digest: [u8; 32],
    imports: Imports,
    hooks: BTreeSet<Hook>,
    description: Description,
    exports: Exports,
}

/// SHA-256 of a component: its identity.
#[must_use]
pub fn digest(component: &[u8]) -> [u8; 32] {
    Sha256::digest(component).into()
}

impl LoadedPlugin {
    pub(crate) fn new(
        runtime: PolicyRuntime,
        bytes: &[u8],
        grants: &BTreeSet<Grant>,
        trusted: bool,
    ) -> Result<Self, LoadError> {
        if bytes.len() > MAX_COMPONENT_BYTES {
            let (bytes, limit) = (bytes.len(), MAX_COMPONENT_BYTES);
            return Err(LoadError::TooLarge { bytes, limit });
        }
        check_magic(bytes)?;
        let shared = &runtime.shared;
        let engine = &shared.engine;
        let digest = digest(bytes);
        let compiled = shared.workshop.component(engine, bytes, &digest, trusted)?;
        let imports = Imports::of(&compiled, engine, grants)?;
        let type_ = compiled.component_type();
        let names: Vec<String> = type_
            .exports(engine)
            .map(|(name, _)| name.to_owned())
            .collect();
        let hooks: BTreeSet<Hook> = Hook::ALL
            .into_iter()
            .filter(|hook| names.contains(&interface(hook.name())))
            .collect();
        if hooks.is_empty() {
            let exports = match names.as_slice() {
                [] => "nothing".to_owned(),
                names => names
                    .iter()
                    .take(MAX_NAMED_EXPORTS)
                    .map(|n| clean(n))
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            return Err(LoadError::NothingKnown { exports });
        }
        let component = imports
            .linker(&compiled, engine)
            .and_then(|linker| linker.instantiate_pre(&compiled))
            .map_err(|error| LoadError::Link(clean(&format!("{error:#}"))))?;
        let exports = Exports::new(&component, &hooks)?;
        let limits = runtime.shared.limits;
        let mut wrong = None;
        let description = call(
            &runtime,
            limits.load_deadline,
            &component,
            Scope::default(),
            |live| {
                wrong = exports.first_of_wrong_type(&mut live.store, &live.instance);
                let guest = exports.plugin.load(&mut live.store, &live.instance)?;
                guest.call_describe(&mut live.store)
            },
        )
        .result;
        // An interface of the wrong type may be the one that `describe` is in.
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        let description = description.map_err(LoadError::Describe)?;
        let inner = Inner {
            component,
            digest,
            imports,
            hooks,
            description: cleaned(&description),
            exports,
            runtime,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// SHA-256 of the component.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.inner.digest
    }

    /// The hooks that it exports.
    #[must_use]
    pub fn hooks(&self) -> &BTreeSet<Hook> {
        &self.inner.hooks
    }

    /// What it says about itself, cleaned and cut.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.inner.description
    }

    /// What it imports, as `interface#function`.
    #[must_use]
    pub fn imports(&self) -> &[String] {
        &self.inner.imports.names
    }

    /// The grants that its imports need.
    #[must_use]
    pub fn needs(&self) -> &BTreeSet<Grant> {
        &self.inner.imports.needs
    }

    /// Whether it reads anything of the host beyond its facts.
    pub(crate) fn asks_host(&self) -> bool {
        let needs = self.needs();
        needs.contains(&Grant::Query) || needs.contains(&Grant::Kv)
    }

    /// Whether it is the same loaded component.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Asks it whether it takes `settings`, a JSON text.
    ///
    /// # Errors
    /// It does not, or could not say.
    pub fn validate_settings(&self, settings: &str) -> Result<(), SettingsError> {
        if settings.len() > MAX_SETTINGS_BYTES {
            let (bytes, limit) = (settings.len(), MAX_SETTINGS_BYTES);
            return Err(SettingsError::TooLong { bytes, limit });
        }
        if let Err(error) = serde_json::from_str::<serde_json::Map<_, _>>(settings) {
            return Err(SettingsError::NotJson(error.to_string()));
        }
        let Inner {
            runtime,
            component,
            exports,
            ..
        } = &*self.inner;
        let deadline = runtime.shared.limits.load_deadline;
        let answer = call(runtime, deadline, component, Scope::default(), |live| {
            let guest = exports.plugin.load(&mut live.store, &live.instance)?;
            guest.call_validate_settings(&mut live.store, settings)
        })
        .result?;
        answer.map_err(|reason| SettingsError::Refused(clean(&reason)))
    }

    /// Asks it with facts that are JSON, as a fixture or the decision journal has them, and
    /// checks that the answer makes sense. The settings are those in the facts.
    ///
    /// # Errors
    /// The facts are not the hook's, or it made no decision that makes sense.
    pub fn decide_json(&self, hook: Hook, facts: &Value) -> Result<Value, CallError> {
        let facts = Facts::from_json(hook, facts)?;
        Ok(self.decide(&facts)?.to_json())
    }

    /// Asks it, and checks that the answer makes sense.
    ///
    /// # Errors
    /// It made no decision that makes sense.
    pub fn decide(&self, facts: &Facts) -> Result<Decision, CallError> {
        match facts {
            Facts::Admission(facts) => self.checked(facts),
            Facts::Cleanup(facts) => self.checked(facts),
            Facts::Recovery(facts) => self.checked(facts),
            Facts::Billing(facts) => self.checked(facts),
            Facts::Observer(facts) => self.checked(facts),
        }
    }

    fn checked<Q: Question>(&self, question: &Q) -> Result<Decision, CallError> {
        Ok(Q::recorded(&self.answer(question)?))
    }

    fn answer<Q: Question>(&self, question: &Q) -> Result<Q::Decision, CallError> {
        let context = question.context();
        let scope = Scope {
            caller: None,
            now_ms: context.now_ms,
            seed: context.seed,
        };
        self.ask(question, scope, None).result
    }

    /// Asks it, on an instance that is kept under `warm` if there is such a key, and checks that
    /// the answer makes sense.
    pub(crate) fn ask<Q: Question>(
        &self,
        question: &Q,
        scope: Scope,
        warm: Option<&Key>,
    ) -> Answer<Q::Decision> {
        let Inner {
            runtime,
            component,
            exports,
            hooks,
            ..
        } = &*self.inner;
        if !hooks.contains(&Q::HOOK) {
            return Answer::failed(CallError::NotExported(Q::HOOK));
        }
        let ask = |live: &mut Live| question.call(exports, live);
        let check = |decision| question.check(decision);
        match warm {
            Some(key) => call_warm(runtime, component, scope, key, ask, check),
            None => {
                let deadline = runtime.shared.limits.deadline;
                let answer = call(runtime, deadline, component, scope, ask);
                Answer {
                    result: answer.result.and_then(check),
                    usage: answer.usage,
                }
            }
        }
    }

    /// Asks whether a VM may be created or booted.
    ///
    /// # Errors
    /// It made no decision that makes sense.
    pub fn admission(&self, facts: &AdmissionFacts) -> Result<AdmissionDecision, CallError> {
        self.answer(facts)
    }

    /// Asks when to try a cleanup again.
    ///
    /// # Errors
    /// It made no decision that makes sense.
    pub fn cleanup(&self, facts: &CleanupFacts) -> Result<CleanupDecision, CallError> {
        self.answer(facts)
    }

    /// Asks what to do about an incident.
    ///
    /// # Errors
    /// It made no decision that makes sense.
    pub fn recovery(&self, facts: &RecoveryFacts) -> Result<RecoveryDecision, CallError> {
        self.answer(facts)
    }

    /// Asks what usage windows cost.
    ///
    /// # Errors
    /// It made no decision that makes sense.
    pub fn billing(&self, facts: &BillingFacts) -> Result<Vec<Charge>, CallError> {
        self.answer(facts)
    }

    /// Tells it of an event.
    ///
    /// # Errors
    /// It could not be told.
    pub fn observe(&self, facts: &ObserverFacts) -> Result<(), CallError> {
        self.answer(facts)
    }
}

fn cleaned(description: &Description) -> Description {
    let cut = |text: &str| clean(text).chars().take(MAX_DESCRIPTION_CHARS).collect();
    Description {
        name: cut(&description.name),
        version: cut(&description.version),
        summary: cut(&description.summary),
        attributes: Vec::new(),
    }
}
