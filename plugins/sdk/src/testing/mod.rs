//! Testing a policy on this machine, without WebAssembly and without a host.
//!
//! [`admission()`], [`cleanup()`], [`recovery()`], [`billing()`] and [`context()`] are facts to change and to
//! decide on. [`run_fixtures`] decides on those of a folder, which `roost plugin test` does with
//! the component. A [`Host`] stands for the one that a policy may ask.

mod facts;
mod fixtures;
pub(crate) mod host;

pub use facts::{admission, billing, cleanup, context, recovery, vm, window};
pub use fixtures::{Decides, difference, run_fixtures, run_fixtures_on};
pub use host::{Grant, Host};

use crate::policy::{self, Policy};

/// Whether a policy takes `settings`, a JSON text, as the host would have it checked.
///
/// # Errors
/// It does not, and why.
pub fn validate_settings<P: Policy>(settings: &str) -> Result<(), String> {
    policy::validate::<P>(settings)
}
