//! The console (virtio 1.2, section 5.3): port 0 is a terminal, and up to three more are named
//! streams of bytes, for agents in the guest.
//!
//! ```text
//!    port's output ◀── transmitq ── the driver     transfer.rs
//!    port's input ─── receiveq ───▶ the driver
//!    what ports there are, who opened them, the terminal's size: control queues     control.rs
//! ```
//!
//! **Output** goes to a ring like the serial port's: the last 64 KiB are kept, a reader that is slow
//! misses the oldest, and nobody waits for it. A storm costs the guest: what exceeds the limit
//! stays in its queue until the limit allows it, and a turn ends after so many bytes in any case.
//! **Input** waits in a bounded queue until the guest has opened the port and gives buffers; who
//! writes is told how much there was room for. **Control messages** to the driver are not queued:
//! each port knows which it still owes, so a driver that asks over and over without taking the
//! answers costs nothing.
//!
//! With one port the size is told by the configuration space only and the multiport protocol is not
//! offered. That is because of Linux: before 6.15 it took a size in a control message for rows and
//! columns, since then it takes it in the order of the specification, in which it is sent. The
//! configuration space it always read right.
//!
//! Read in this order: `device.rs`, `port.rs` (the host's end), `events.rs`, `transfer.rs`,
//! `control.rs`.

mod config;
mod control;
mod counters;
mod device;
mod events;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod port;
mod state;
#[cfg(test)]
mod tests;
mod transfer;

pub use config::{ConsoleConfig, ConsoleConfigError, ConsoleSize};
pub(crate) use device::Console;
#[cfg(any(test, fuzzing))]
pub(crate) use fuzz::Bench as ConsoleBench;
pub use port::{ConsolePort, NotATerminal};
pub(crate) use state::ConsoleState;

/// Most ports of a device.
const MAX_PORTS: usize = 4;
/// The port that is a terminal.
const TERMINAL: usize = 0;

/// Feature bits (section 5.3.3). Emergency writes are not offered: there is a serial port.
mod feature {
    /// The configuration space has the terminal's size.
    pub(super) const SIZE: u32 = 0;
    /// There are several ports, and control queues.
    pub(super) const MULTIPORT: u32 = 1;
}
