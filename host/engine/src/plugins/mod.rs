//! Plugins: which there are, which of their revisions decide, and what becomes of a decision.
//!
//! ```text
//!   push ──▶ uploaded ─▶ compiled ─▶ validated ──▶ activate, rollback, shadow ─┐
//!                                                  bind, unbind ──────────────┤ one commit, then
//!                                                                             ▼ one swap
//!   decision ◀── checked answer ◀── PolicyHost (the set that decides) ◀── load
//!      │
//!      ▼  settle
//!   journal, plugin values, failures as events: in the commit of the decision's effect
//!   log, metrics: in memory
//! ```
//!
//! The store is the truth, and the set that decides follows it: a change is loaded, committed, and
//! then swapped in, all under one lock. A call in flight finishes on the set that it started with.
//! A host that is killed between commit and swap loads what was committed when it starts again.

mod activate;
mod api;
mod attempts;
mod bind;
mod bundled;
mod collect;
mod load;
mod logs;
mod observe;
mod push;
mod quarantine;
mod replay;
mod services;
mod settle;
mod show;

pub(crate) use attempts::Attempts;
pub(crate) use load::InUse;
pub use logs::PluginLogLine;
pub(crate) use logs::PluginLogs;
pub(crate) use observe::run as run_observers;
pub use push::Push;
pub(crate) use quarantine::{Noted, run as run_quarantines};
pub use replay::{Candidate, Replay, ReplayItem, ReplayReport, ReplayedComponent};
pub use services::StoreServices;
pub(crate) use settle::{About, Recorded, Settled, kind_name};
pub use show::{KvReport, PluginReport};
