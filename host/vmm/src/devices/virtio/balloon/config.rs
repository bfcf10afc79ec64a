//! What a balloon is made of, and what it tells.

use std::time::Duration;

/// A memory balloon. It begins empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BalloonConfig {
    /// The guest takes memory back from the balloon rather than run out of it.
    pub deflate_on_oom: bool,
    /// The guest tells of free memory by itself, and the host takes it until the guest uses it.
    pub free_page_reporting: bool,
    /// How often the guest is asked for statistics. `None`: not.
    pub statistics_interval: Option<Duration>,
}

/// The state of a balloon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BalloonStatistics {
    /// What the host asks the guest for, bytes.
    pub target_bytes: u64,
    /// What the guest says it has given, bytes.
    pub actual_bytes: u64,
    /// What the guest said about its memory, if it did since its driver started.
    pub guest: Option<GuestStatistics>,
}

/// What a guest says about its memory (virtio 1.2, section 5.5.6.4; the last six, Linux 6.12).
/// What it did not say is `None`. Nothing of it is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GuestStatistics {
    /// How long ago it was said.
    pub age: Duration,
    /// Swapped in so far, bytes.
    pub swap_in_bytes: Option<u64>,
    /// Swapped out so far, bytes.
    pub swap_out_bytes: Option<u64>,
    /// Page faults so far that needed a disk.
    pub major_faults: Option<u64>,
    /// Page faults so far that did not.
    pub minor_faults: Option<u64>,
    /// Unused, bytes.
    pub free_bytes: Option<u64>,
    /// All that there is, bytes.
    pub total_bytes: Option<u64>,
    /// Can be given away without swapping, bytes.
    pub available_bytes: Option<u64>,
    /// Can be given away at once because it only caches files, bytes.
    pub disk_caches_bytes: Option<u64>,
    /// Huge pages that were allocated so far.
    pub hugetlb_allocations: Option<u64>,
    /// Huge pages that could not be.
    pub hugetlb_failures: Option<u64>,
    /// Processes that were killed for lack of memory so far.
    pub oom_kills: Option<u64>,
    /// Allocations that had to wait so far.
    pub allocation_stalls: Option<u64>,
    /// Pages that were looked at in the background, to be reclaimed, so far.
    pub async_scans: Option<u64>,
    /// Pages that were looked at by who needed some.
    pub direct_scans: Option<u64>,
    /// Pages that were reclaimed in the background so far.
    pub async_reclaims: Option<u64>,
    /// Pages that were reclaimed by who needed some.
    pub direct_reclaims: Option<u64>,
}
