//! A module for each hook: its trait, its facts and its answer.

use crate::panics;
use crate::policy::{Exported, settings};

/// The module of a hook that decides.
macro_rules! hook {
    ($(#[$doc:meta])* $module:ident, $(#[$trait_doc:meta])* $trait:ident -> $answer:ty { $($item:tt)* }) => {
        $(#[$doc])*
        pub mod $module {
            use super::{Exported, panics, settings};
            use crate::bindings::$module::exports::roost::policy::$module as generated;
            use crate::policy::Policy;
            pub use generated::{$($item)*};

            $(#[$trait_doc])*
            pub trait $trait: Policy {
                /// The answer to `facts`. The same facts must always give the same answer.
                fn decide(facts: &Facts, settings: &Self::Settings) -> $answer;
            }

            /// [`$trait::decide`] by JSON.
            #[cfg(not(target_arch = "wasm32"))]
            #[doc(hidden)]
            pub fn decide_json<P: $trait>(facts: serde_json::Value) -> Result<serde_json::Value, String> {
                let facts: Facts = serde_json::from_value(facts).map_err(|error| error.to_string())?;
                crate::policy::validate::<P>(&facts.context.settings)
                    .map_err(|error| format!("the facts' settings are refused: {error}"))?;
                let decision = P::decide(&facts, &settings::<P>(&facts.context.settings));
                serde_json::to_value(decision).map_err(|error| error.to_string())
            }

            impl<P: $trait> generated::Guest for Exported<P> {
                fn decide(facts: Facts) -> $answer {
                    panics::leave_notes();
                    P::decide(&facts, &settings::<P>(&facts.context.settings))
                }
            }
        }
    };
}

hook!(
    /// May this VM be created or booted?
    admission,
    /// Decides what is admitted. A user waits for the answer.
    Admission -> Decision { Change, Decision, Facts, Request, Usage }
);
hook!(
    /// A resource that must go away did not: when to try again?
    cleanup,
    /// Decides when a cleanup is tried again, after each failed attempt but the first.
    Cleanup -> Decision { Decision, Facts }
);
hook!(
    /// Something happened to a VM that nobody asked for: what now?
    recovery,
    /// Decides what becomes of a VM, once for each incident.
    Recovery -> Decision { Action, Decision, Facts, Incident, PastIncident }
);
hook!(
    /// Usage windows were closed: what do they cost?
    billing,
    /// Decides the charges for closed windows. No charge: the window is free.
    Billing -> Vec<Charge> { Charge, Facts, Window }
);

/// Is told of events and decides nothing.
pub mod observer {
    use super::{Exported, panics, settings};
    use crate::bindings::observer::exports::roost::policy::observer as generated;
    use crate::policy::Policy;
    pub use crate::types::Context;

    /// Is told of events.
    pub trait Observer: Policy {
        /// `event` is one event of the host's log as JSON.
        fn observe(context: &Context, event: &str, settings: &Self::Settings);
    }

    /// An observer decides nothing that a fixture could expect.
    #[cfg(not(target_arch = "wasm32"))]
    #[doc(hidden)]
    pub fn decide_json<P: Observer>(_: serde_json::Value) -> Result<serde_json::Value, String> {
        Err("an observer decides nothing".to_owned())
    }

    impl<P: Observer> generated::Guest for Exported<P> {
        fn observe(context: Context, event: String) {
            panics::leave_notes();
            P::observe(&context, &event, &settings::<P>(&context.settings));
        }
    }
}
