//! The memory balloon (virtio 1.2, section 5.5): the guest gives memory that it does not need to
//! the host, and takes it back.
//!
//! ```text
//!    target ──▶ num_pages ──▶ the driver ──▶ inflateq, deflateq ──▶ pages.rs ──▶ discard.rs
//!    host        config space                free pages: reporting_vq ──────────▶    madvise,
//!    numbers ◀── statistics.rs ◀── statsq ◀── (when the host asks)                   fallocate
//! ```
//!
//! **What a guest can do to the host with it**: give its own memory away. Page numbers are checked
//! one by one; those that are no memory, or come twice, are counted and skipped. A turn ends after
//! a bounded number of pages, whatever they are. A guest that does not follow the target, or says
//! wrong numbers, is not forced: the target is a wish, the worker's cgroup is the limit.
//!
//! **What a page holds when it comes back** is zeroes (or, of memory that is a private mapping of
//! a file, what the file holds). Page poisoning is not offered: a driver that needs freed pages to
//! keep their contents then does not report free pages, and inflating allocates pages first.
//!
//! Huge pages stay where they are: the pool may have no other when the guest wants one back.
//!
//! Read in this order: `device.rs`, `control.rs` (the host's end), `events.rs`, then `pages.rs`,
//! `discard.rs` and `statistics.rs`.

mod config;
mod control;
mod counters;
mod device;
mod discard;
mod events;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod pages;
mod state;
mod statistics;
#[cfg(test)]
mod tests;

pub use config::{BalloonConfig, BalloonStatistics, GuestStatistics};
pub(crate) use control::BalloonControl;
pub(crate) use device::Balloon;
#[cfg(any(test, fuzzing))]
pub(crate) use fuzz::Bench as BalloonBench;
pub(crate) use state::BalloonState;

/// Bytes of a page as this device counts them, whatever the guest's pages are (section 5.5.6).
pub(crate) const PAGE_BYTES: u64 = 4096;

/// Feature bits (section 5.5.3). What is in between, telling the host before pages are used again,
/// free page hints and page poisoning, is not offered.
mod feature {
    /// There is a queue of statistics.
    pub(super) const STATISTICS: u32 = 1;
    /// The driver takes memory back rather than run out of it.
    pub(super) const DEFLATE_ON_OOM: u32 = 2;
    /// There is a queue of free pages.
    pub(super) const REPORTING: u32 = 5;
}
