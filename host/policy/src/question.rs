//! The hooks as Rust sees them: what is asked, how a component is called with it, when its answer
//! makes sense, and what is decided when there is none.

use crate::bindings::{
    AdmissionDecision, AdmissionFacts, BillingFacts, Charge, CleanupDecision, CleanupFacts,
    Context, RecoveryDecision, RecoveryFacts,
};
use crate::call::Live;
use crate::error::CallError;
use crate::exports::Exports;
use crate::facts::{Decision, Facts, ObserverFacts};
use crate::{builtin, sense};
use roost_model::Hook;

/// Facts of one hook.
pub(crate) trait Question: Sized {
    /// What is answered.
    type Decision;
    /// The hook.
    const HOOK: Hook;

    fn context(&self) -> &Context;

    fn context_mut(&mut self) -> &mut Context;

    /// Calls the export. Only for a component that has it.
    fn call(&self, exports: &Exports, live: &mut Live) -> wasmtime::Result<Self::Decision>;

    /// The answer, cleaned, if it makes sense.
    fn check(&self, decision: Self::Decision) -> Result<Self::Decision, CallError>;

    /// What the native policy decides.
    fn builtin(&self) -> Self::Decision;

    /// What is decided where a binding says to deny if its plugin fails. Nothing but admission
    /// can be denied: a plugin must not keep a VM from being cleaned up.
    fn denied(&self) -> Self::Decision {
        self.builtin()
    }

    /// For the journal.
    fn recorded(decision: &Self::Decision) -> Decision;

    /// For the journal.
    fn into_facts(self) -> Facts;
}

/// The export of a hook that the component is known to have.
fn exported<T>(export: Option<&T>, hook: Hook) -> wasmtime::Result<&T> {
    export.ok_or_else(|| wasmtime::Error::msg(format!("{hook} is not exported")))
}

macro_rules! question {
    ($facts:ty, $hook:ident, $variant:ident, $decision:ty, $check:expr, $call:ident,
        |$this:ident| ($($argument:expr),+), $recorded:expr $(, denied: $denied:expr)?) => {
        impl Question for $facts {
            type Decision = $decision;
            const HOOK: Hook = Hook::$variant;

            fn context(&self) -> &Context {
                &self.context
            }

            fn context_mut(&mut self) -> &mut Context {
                &mut self.context
            }

            fn call(&self, exports: &Exports, live: &mut Live) -> wasmtime::Result<$decision> {
                let $this = self;
                let guest = match &mut live.taken.$hook {
                    Some(guest) => guest,
                    none => {
                        let export = exported(exports.$hook.as_ref(), Self::HOOK)?;
                        none.insert(export.load(&mut live.store, &live.instance)?)
                    }
                };
                guest.$call(&mut live.store, $($argument),+)
            }

            fn check(&self, decision: $decision) -> Result<$decision, CallError> {
                $check(self, decision)
            }

            fn builtin(&self) -> $decision {
                builtin::$hook(self)
            }

            $(fn denied(&self) -> $decision {
                $denied
            })?

            fn recorded(decision: &$decision) -> Decision {
                $recorded(decision.clone())
            }

            fn into_facts(self) -> Facts {
                Facts::$variant(self)
            }
        }
    };
}

question!(AdmissionFacts, admission, Admission, AdmissionDecision, sense::admission, call_decide,
    |facts| (facts), Decision::Admission, denied: AdmissionDecision::Deny(
        "the admission policy did not answer, and its binding says to deny then".to_owned()));
question!(
    CleanupFacts,
    cleanup,
    Cleanup,
    CleanupDecision,
    sense::cleanup,
    call_decide,
    |facts| (facts),
    Decision::Cleanup
);
question!(
    RecoveryFacts,
    recovery,
    Recovery,
    RecoveryDecision,
    sense::recovery,
    call_decide,
    |facts| (facts),
    Decision::Recovery
);
question!(
    BillingFacts,
    billing,
    Billing,
    Vec<Charge>,
    sense::billing,
    call_decide,
    |facts| (facts),
    Decision::Billing
);
question!(
    ObserverFacts,
    observer,
    Observer,
    (),
    |_: &ObserverFacts, ()| Ok(()),
    call_observe,
    |facts| (&facts.context, &facts.event),
    |()| Decision::Observer
);
