//! Usage windows and charges.

use serde::{Deserialize, Serialize};

use crate::{Counters, VmId};

/// Names a window, uniquely across nodes. A consumer drops duplicates by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WindowKey {
    /// The VM.
    pub vm: VmId,
    /// The incarnation, from 1.
    pub incarnation: u64,
    /// The window's place in the incarnation, from 1, without gaps.
    pub sequence: u64,
}

/// What a VM used between two moments of one incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageWindow {
    /// The window's name.
    #[serde(flatten)]
    pub key: WindowKey,
    /// Wall clock, ms since the Unix epoch.
    pub start_ms: u64,
    /// Wall clock, ms since the Unix epoch; never before `start_ms`.
    pub end_ms: u64,
    /// vCPUs that the VM had.
    pub vcpus: u32,
    /// Memory that the VM had, bytes.
    pub memory_bytes: u64,
    /// CPU time of the vCPU threads in this window, ns.
    pub vcpu_cpu_ns: u64,
    /// Time in which the VM ran in this window, ns.
    pub running_ns: u64,
    /// Bytes written to the serial port in this window.
    pub serial_tx_bytes: u64,
    /// Cumulative counters at the window's end: where the next one starts.
    pub counters: Counters,
    /// Why it was closed.
    pub close: WindowClose,
    /// How exact the counters are.
    pub source: CounterSource,
}

/// Why a window was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WindowClose {
    /// The wall-clock grid.
    Grid,
    /// The guest stopped.
    Stop,
    /// The worker is gone.
    Crash,
    /// The VM was paused.
    Pause,
    /// A new host process took the worker over.
    Adoption,
}

/// Where a window's last counters come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CounterSource {
    /// Read from the worker at the window's end.
    Exact,
    /// The worker is gone; these are the last that it had reported.
    LastAcknowledged,
}

/// What a billing policy charges for a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// The window that is charged for.
    #[serde(flatten)]
    pub window: WindowKey,
    /// What is charged, such as `vcpu-time`.
    pub item: String,
    /// How much of it, in `unit`.
    pub quantity: u64,
    /// The unit of `quantity`, such as `ms`.
    pub unit: String,
    /// Price of one unit, 10⁻⁹ of the currency.
    pub unit_price_nanos: u64,
    /// `quantity` × `unit_price_nanos`, computed by the host; 10⁻⁹ of the currency.
    pub amount_nanos: u64,
    /// ISO 4217 code.
    pub currency: String,
}

/// The window that is still open for a running incarnation: what a crash would be billed from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenWindow {
    /// The name that the window will have.
    #[serde(flatten)]
    pub key: WindowKey,
    /// Wall clock, ms since the Unix epoch.
    pub start_ms: u64,
    /// Cumulative counters at the window's start.
    pub start_counters: Counters,
    /// When `counters` were read, ms since the Unix epoch.
    pub counters_at_ms: u64,
    /// The last cumulative counters that the worker reported.
    pub counters: Counters,
}
