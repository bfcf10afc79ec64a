//! What a worker counts, cumulative within one incarnation.

use serde::{Deserialize, Serialize};

/// Exact, cumulative counters of one incarnation. They never go down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// CPU time of the vCPU threads (`CLOCK_THREAD_CPUTIME_ID`), ns.
    pub vcpu_cpu_ns: u64,
    /// Time in which the VM was running (not paused), ns of `CLOCK_MONOTONIC`.
    pub running_ns: u64,
    /// Bytes that the guest wrote to its serial port.
    pub serial_tx_bytes: u64,
    /// Bytes that the guest was given on its serial port.
    pub serial_rx_bytes: u64,
    /// Exits from the guest to the worker.
    pub exits: Exits,
}

/// Exits from guest mode to user space by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exits {
    /// Port reads (`KVM_EXIT_IO`, in).
    pub io_in: u64,
    /// Port writes (`KVM_EXIT_IO`, out).
    pub io_out: u64,
    /// Memory-mapped reads (`KVM_EXIT_MMIO`).
    pub mmio_read: u64,
    /// Memory-mapped writes (`KVM_EXIT_MMIO`).
    pub mmio_write: u64,
    /// `KVM_EXIT_HLT`.
    pub halt: u64,
    /// `KVM_RUN` ended by a signal or by `immediate_exit`.
    pub interrupted: u64,
    /// Everything else.
    pub other: u64,
}

impl Exits {
    /// All exits together.
    #[must_use]
    pub fn total(&self) -> u64 {
        [
            self.io_in,
            self.io_out,
            self.mmio_read,
            self.mmio_write,
            self.halt,
            self.interrupted,
            self.other,
        ]
        .iter()
        .fold(0, |sum, n| sum.saturating_add(*n))
    }
}
