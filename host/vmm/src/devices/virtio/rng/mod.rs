//! The entropy device (virtio 1.2, section 5.4): one queue of buffers that are filled with random
//! bytes from the host's kernel.
//!
//! It is the pattern for the other devices. Read in this order: `device.rs`, `events.rs`,
//! `counters.rs`, `state.rs`.

mod counters;
mod device;
mod events;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod state;

pub(crate) use device::Rng;
#[cfg(any(test, fuzzing))]
pub(crate) use fuzz::Bench as RngBench;
pub(crate) use state::RngState;

#[cfg(test)]
mod tests;
