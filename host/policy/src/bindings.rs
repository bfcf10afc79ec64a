//! The types of `roost:policy`, as Rust.

#[allow(missing_docs, clippy::all, unreachable_pub)]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit",
        // The contract's world, and what a component may import beside.
        inline: "
            package roost:embedding;
            world everything {
                include roost:policy/policy@0.1.0;
                import roost:policy/host@0.1.0;
            }
        ",
        world: "roost:embedding/everything",
        imports: { default: trappable },
        additional_derives: [PartialEq, roost_policy_derive::WitJson],
    });
}

pub(crate) use generated::exports::roost::policy::{
    admission, billing, cleanup, observer, plugin, recovery,
};
pub(crate) use generated::roost::policy::{host, types};

pub use admission::{
    Change as SpecChange, Decision as AdmissionDecision, Facts as AdmissionFacts,
    Request as AdmissionRequest, Usage,
};
pub use billing::{Charge, Facts as BillingFacts, Window};
pub use cleanup::{Decision as CleanupDecision, Facts as CleanupFacts};
pub use host::{Event as HostEvent, KvError, Level, VmFilter};
pub use plugin::Description;
pub use recovery::{
    Action as RecoveryAction, Decision as RecoveryDecision, Facts as RecoveryFacts, Incident,
    PastIncident,
};
pub use types::{Context, Vm};
