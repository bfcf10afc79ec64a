//! The network device (virtio 1.2, section 5.1): one pair of queues over a TAP that the host opened
//! and passed.
//!
//! ```text
//!    guest's buffers ◀── readv ── TAP      rx.rs, rx_buffers.rs
//!    guest's packets ─── writev ─▶ TAP     tx.rs, header.rs
//! ```
//!
//! Packets are not copied: the kernel reads and writes guest memory. Only their first bytes are,
//! the header and the addresses, so that a guest can't change what was checked.
//!
//! **When the driver is slow** it gives no buffers to receive into; then the TAP is not looked at
//! until it does, and its queue in the kernel fills up and drops. **When a limit holds the device
//! back** it is the same, until the limiter's timer fires. **When the TAP is gone** the link is down
//! for good: the driver is told, what it sends is dropped and counted, and the device lives on.
//!
//! Read in this order: `device.rs`, `events.rs`, `rx.rs`, `tx.rs`, then what they use: `link.rs`
//! (the TAP), `features.rs`, `rx_buffers.rs`, `header.rs`.

mod config;
mod counters;
mod device;
mod events;
mod features;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod header;
mod link;
mod rx;
mod rx_buffers;
mod state;
#[cfg(test)]
mod tests;
mod tx;

pub use config::{NetConfig, NetConfigError, NetLimits};
pub(crate) use device::{Net, NetControl};
#[cfg(any(test, fuzzing))]
pub(crate) use fuzz::Bench as NetBench;
pub(crate) use state::NetState;

/// The queue of buffers to receive into.
const RECEIVE: u16 = 0;
/// The queue of packets to send.
const TRANSMIT: u16 = 1;

/// Bytes of an Ethernet header.
const ETHERNET_BYTES: usize = 14;
/// Most bytes of a packet with its virtio header (section 5.1.6.3.1): 64 KiB to be segmented, and
/// what is in front of them.
const MAX_PACKET_BYTES: usize = header::HEADER_BYTES + ETHERNET_BYTES + (64 << 10);
