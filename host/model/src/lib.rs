//! Pure types of Roost: what a user asks for, what a host knows, and which verb is legal when.
//!
//! No I/O, no clock, no randomness: everything here can be tested by calling it. The transition
//! table in [`transition`] is the only place that knows which verb is legal in which state.
//!
//! ```
//! use roost_model::{Verb, VmState, transition};
//! assert!(transition::begin(&VmState::Stopped, Verb::Boot).is_ok());
//! assert!(transition::begin(&VmState::Stopped, Verb::Pause).is_err());
//! ```
#![forbid(unsafe_code)]

mod binding;
mod cancel;
mod capacity;
mod counters;
mod decision;
mod device_report;
mod devices;
mod divergence;
mod drain;
mod event;
mod fault;
mod grant;
mod hook;
mod id;
mod image;
mod incident;
mod operation;
mod plugin;
mod request_queue;
mod spec;
mod state;
pub mod transition;
mod usage;
mod vm;

pub use binding::{Binding, BindingMode, InstanceMode, OnFailure, Selector};
pub use cancel::NotCancellable;
pub use capacity::{
    Amounts, Capacity, CapacityExceeded, CapacityLimit, Claimed, DESCRIPTORS_PER_VM, Most,
    Quantity, Scope,
};
pub use counters::{Counters, Exits};
pub use decision::{CallMode, CallOutcome, DecisionCall, DecisionRecord, NewDecision};
pub use device_report::{BalloonStatus, Button, Control, DeviceReport, DeviceStatus, Grace};
pub use devices::{
    Balloon, CpuTemplate, Disk, InterfaceName, MacAddress, MemoryBacking, NetworkInterface, OnEnd,
    OnReset, RateLimit, RateLimits,
};
pub use divergence::{AuditReport, Divergence, DivergenceKind, Repair};
pub use drain::{Drain, DrainReport, DrainState, RemainingVm};
pub use event::{Event, EventKind, NewEvent};
pub use fault::{Effect, Fault, FaultPoint, InvalidFault, Moment, Victim};
pub use grant::{Grant, UnknownGrant};
pub use hook::{Hook, UnknownHook};
pub use id::{ActionId, CleanupId, IncidentId, InvalidId, OperationId, VmId};
pub use image::{Digest, Image, ImageRef, InvalidImageRef};
pub use incident::{
    ActionRequired, CleanupTask, Incident, IncidentKind, RecoveryAction, Resolution, Resource,
};
pub use operation::{Doing, Operation, OperationState, Origin, Step, StepRecord, StepState};
pub use plugin::{DecidedBy, Plugin, PluginRevision, Quarantine, RevisionState};
pub use request_queue::{MAX_WAITING, Place, Refusal, RequestQueue, Verdict};
pub use spec::{InvalidSpec, Name, Tenant, VmSpec, limits};
pub use state::{DesiredState, Failure, FailureKind, GuestExit, PanicKind, Verb, VmState};
pub use transition::IllegalVerb;
pub use usage::{Charge, CounterSource, OpenWindow, UsageWindow, WindowClose, WindowKey};
pub use vm::{VmRecord, WorkerRecord};
