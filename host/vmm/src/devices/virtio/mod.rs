//! Virtio 1.2 devices on the MMIO transport.
//!
//! ```text
//!   vCPU threads                                the VM's device thread
//!        │ register access (MMIO exit)                 │ epoll
//!        ▼                                             ▼
//!   transport::VirtioMmio ── one lock per device ── event_loop
//!        │  registers, status machine, who is broken
//!        ▼
//!   dyn VirtioDevice ──▶ Active ──▶ Virtqueue ──▶ Chain ──▶ Reader, Writer
//!   (rng, …)             what the driver set up    checked whole before any use
//! ```
//!
//! **Who owns what.** The transport owns the registers, the device and, from `DRIVER_OK` to a reset,
//! the queues ([`Active`]). A device borrows the queues for one call at a time, so it never has to
//! hand them back, and what they hold is saved and restored in one place. All calls of one device
//! come under its lock, from the device thread (queues, descriptors) or a vCPU (registers).
//!
//! **Who decides when.** A driver's notification is an eventfd that KVM signals by itself, or the
//! transport after an MMIO exit. The device thread waits for those and for the descriptors that
//! devices watch ([`EventSources`]), and gives each a turn of bounded length: [`Virtqueue::pop`]
//! says that the queue is empty when the turn is over, and the transport sees to the next one.
//! Interrupts are raised after the turn, once for all that it completed.
//!
//! **Guests are enemies.** A chain is checked whole before a device sees it, and each descriptor is
//! read once. What a driver may not do is ignored and counted where the register file can ignore
//! it. A queue or a request that makes no sense *breaks* the device: it is reset, reads
//! `DEVICE_NEEDS_RESET`, does nothing, and comes back when the driver resets it. The VM goes on.
//!
//! A device is a folder of the same few files; [`rng`] is the pattern: `mod.rs`, `device.rs` (the
//! type and its [`VirtioDevice`]), `events.rs` (what it does when a queue or a descriptor calls),
//! `counters.rs`, `state.rs` (what is saved).

mod active;
pub(crate) mod balloon;
pub(crate) mod block;
mod buffers;
mod chain;
pub(crate) mod console;
mod counters;
mod device;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod hostile_tests;
mod interrupt;
pub(crate) mod net;
mod queue;
pub(crate) mod rate_limiter;
pub(crate) mod rng;
mod sources;
mod state;
#[cfg(any(test, fuzzing))]
#[cfg_attr(not(test), allow(dead_code, reason = "fuzz targets use a part of it"))]
pub(crate) mod test_driver;
pub(crate) mod token_bucket;
mod transport;
pub(crate) mod vsock;

pub(crate) use active::Active;
pub(crate) use buffers::{Reader, ShortBuffer, Writer};
pub(crate) use chain::{Chain, ChainError, MAX_SEGMENTS};
pub use counters::{Counter, DeviceCounters};
pub(crate) use counters::{CounterSet, DeviceStatus};
pub(crate) use device::{DeviceError, DeviceKind, QueueLimits, VirtioDevice, read_config};
pub(crate) use interrupt::Interrupt;
pub(crate) use queue::{QueueError, Virtqueue};
pub use rate_limiter::RateLimits;
pub(crate) use rate_limiter::{Clock, LimitControl, Monotonic, RateLimiter};
pub(crate) use sources::{EventSources, Wakeup};
pub(crate) use state::{DeviceState, QueueState, RestoreError};
pub use token_bucket::RateLimit;
pub(crate) use token_bucket::TokenBucket;
pub(crate) use transport::VirtioMmio;
#[cfg(any(test, fuzzing))]
pub(crate) use transport::VirtioState;

/// Guest memory, which requests under way keep mapped.
pub(crate) type GuestMemory = std::sync::Arc<vm_memory::GuestMemoryMmap>;
