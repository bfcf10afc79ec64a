//! Write policies for Roost in Rust.
//!
//! A policy implements [`Policy`], which says what settings it takes, and the trait of each hook
//! that it decides: [`admission::Admission`], [`cleanup::Cleanup`], [`recovery::Recovery`],
//! [`billing::Billing`], [`observer::Observer`]. [`export!`] makes a component of it. Its name,
//! version and summary are those of its `Cargo.toml`.
//!
//! ```
//! use roost_plugin::recovery::{Action, Decision, Facts, Recovery};
//! use roost_plugin::{NoSettings, Policy};
//!
//! struct NightWatch;
//!
//! impl Policy for NightWatch {
//!     type Settings = NoSettings;
//! }
//!
//! impl Recovery for NightWatch {
//!     fn decide(facts: &Facts, _: &NoSettings) -> Decision {
//!         let (action, reason) = if facts.attempts < 3 {
//!             (Action::RestartAfter(1000 + facts.context.seed % 1000), "one more try")
//!         } else {
//!             (Action::LeaveStopped, "it needs a person")
//!         };
//!         Decision { action, reason: reason.to_owned() }
//!     }
//! }
//!
//! roost_plugin::export!(NightWatch: recovery);
//!
//! // Policies are plain functions, so tests need neither WebAssembly nor a host.
//! let facts = roost_plugin::testing::recovery();
//! let decision = NightWatch::decide(&facts, &NoSettings {});
//! assert_eq!(decision.action, Action::RestartAfter(1000));
//! ```
//!
//! The types are those of the package `roost:policy`, where each is described as a contract:
//! units, ranges, and what the host does on each answer.

// What the macros generate names this crate as a user would.
extern crate self as roost_plugin;

#[doc(hidden)]
pub mod bindings;
mod export;
mod hooks;
pub mod host;
mod panics;
mod policy;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use hooks::{admission, billing, cleanup, observer, recovery};
pub use policy::{NoSettings, Policy, Settings};

/// What the facts of every decision are made of.
pub mod types {
    pub use crate::bindings::types::roost::policy::types::{Context, Vm};
}

/// What [`export!`] names.
#[doc(hidden)]
pub mod private {
    pub use crate::policy::{About, Exported};
    #[cfg(not(target_arch = "wasm32"))]
    pub use serde_json::Value;
    pub use wit_bindgen::rt;
}
