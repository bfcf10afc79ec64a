//! The component host of Roost's policies.
//!
//! [`PolicyRuntime`] compiles a component and looks into it; the [`LoadedPlugin`] that comes of it
//! makes decisions, each in a fresh instance with a deadline and a memory limit and without
//! imports. [`PolicyHost`] knows which plugin decides what for whom, checks that what it says
//! makes sense, and has a native policy ([`builtin`]) behind each hook for when it does not.
//!
//! The contract is the WIT package `roost:policy`. This crate knows nothing of KVM and keeps
//! nothing on disk.
//!
//! ```no_run
//! use roost_policy::{CallLimits, PolicyRuntime};
//! let runtime = PolicyRuntime::new(CallLimits::default())?;
//! let plugin = runtime.load(&std::fs::read("policy.wasm")?)?;
//! println!("{} decides {:?}", plugin.description().name, plugin.hooks());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(unsafe_code)]

mod access;
mod autopsy;
mod bindings;
pub mod builtin;
mod bundled;
mod call;
mod compile;
mod deadline;
mod decided;
mod error;
mod exports;
mod facts;
mod gate;
mod host;
mod imports;
mod magic;
mod plugin;
mod profile;
mod question;
mod record;
mod runtime;
mod seat;
mod sense;
mod services;
mod statistics;
mod strikes;
mod text;
mod warm;
mod wasi;

pub use bindings::{
    AdmissionDecision, AdmissionFacts, AdmissionRequest, BillingFacts, Charge, CleanupDecision,
    CleanupFacts, Context, Description, HostEvent, Incident, KvError, Level, PastIncident,
    RecoveryAction, RecoveryDecision, RecoveryFacts, SpecChange, Usage, Vm, VmFilter, Window,
};
pub use bundled::{Bundled, bundled};
pub use compile::{
    CacheError, CacheStatistics, ChildCompiler, CompileError, CompileLimits, Compiler,
    compile_component_main,
};
pub use decided::{Decided, PolicyFailure, QuarantineChange};
pub use error::{CallError, LoadError, RuntimeError, SettingsError};
pub use facts::{Decision, Facts, ObserverFacts, ShapeError};
pub use host::{ActivePlugin, PolicyHost, Subject};
pub use plugin::{LoadedPlugin, digest};
pub use record::{CallFailure, CallOutcome, CallRecord, FailureKind, KvChanges, LogLine};
pub use runtime::{CallLimits, PolicyRuntime, RuntimeConfig};
pub use services::{Caller, HostServices, HostView, KvUsage};
pub use statistics::PluginStatistics;
pub use strikes::{Quarantine, StrikeLimits};
