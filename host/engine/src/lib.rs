//! The lifecycle of virtual machines on one host.
//!
//! ```text
//!   API ──▶ Engine ──▶ Desk ──▶ Actor (one per VM) ──▶ VmHandle ──▶ worker process
//!                  (what waits)       │  ▲                              │
//!                                     │  └─ guest exited, worker gone ◀─┘
//!                                     ▼
//!                                  Store (intent, then effect, then outcome)
//!                                    │
//!                     ┌──────────────┴─────────────┐
//!                     ▼                            ▼
//!               Cleanup (one task)           Billing (one task)
//! ```
//!
//! Who owns what: a VM's record, its open usage window and its [`roost_worker::VmHandle`] belong
//! to its actor, and nobody else writes them; so there is no lock around a transition and no two
//! verbs on one VM overlap. The cleanup queue belongs to the cleanup task, the billing outbox to
//! the billing task. They meet only in the store, whose commits are atomic.
//!
//! Nothing is done before it is written down: each step of an operation is committed as
//! *intended* before it acts, and as *done* after. A host process that is killed anywhere leaves
//! a journal from which the next one finishes or undoes what was under way; see [`Engine::start`].
//!
//! Which verb is legal when is not known here but in `roost_model::transition`; what to do about
//! an incident, a failed cleanup or a usage window is not known here either but decided by
//! policies, with native ones behind them.
#![forbid(unsafe_code)]

mod actions;
mod actor;
mod admission;
mod alarm;
mod audit;
mod billing;
mod boot;
mod boot_deadline;
mod cleanup;
mod clock;
mod config;
mod console;
mod context;
mod descriptors;
mod desk;
mod devices;
mod emptying;
mod ending;
mod engine;
mod error;
mod facts;
mod faults;
mod images;
mod journal;
mod leases;
mod logs;
mod metrics;
mod node;
mod plugins;
mod recovery;
mod signals;
mod startup;
mod stop;

pub use clock::{Clock, SystemClock};
pub use config::Config;
pub use context::ReadyCheck;
pub use descriptors::NoDescriptors;
pub use emptying::Emptied;
pub use engine::Engine;
pub use error::{DeviceError, EngineError, StartError};
pub use faults::{Faults, FaultsError};
pub use plugins::{
    Candidate, KvReport, PluginLogLine, PluginReport, Push, Replay, ReplayItem, ReplayReport,
    ReplayedComponent, StoreServices,
};
pub use roost_policy::{
    ChildCompiler, CompileLimits, Compiler, LoadError, PluginStatistics, PolicyHost, PolicyRuntime,
    RuntimeConfig, SettingsError, compile_component_main,
};
pub use roost_store::{
    Backup, BackupError, BlobError, BlobWriter, Blobs, CommitError, DecisionFilter, DecisionPage,
    KvUsage, OpenError, Order, ReadError, Retention, Store,
};
pub use roost_worker::{
    ConsoleSize, ControlError, InProcessBackend, SerialChunk, WorkerBackend, failure_kind,
};
