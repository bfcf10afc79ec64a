//! What an operator can set about the engine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use roost_model::{Capacity, Most};
use roost_store::KvUsage;

use crate::clock::{Clock, SystemClock};
use crate::faults::Faults;

/// The engine's configuration.
#[derive(Clone)]
pub struct Config {
    /// Where the run directories of VMs are; created with mode 0700.
    pub run_dir: PathBuf,
    /// Where the disks of VMs are; created with mode 0700.
    pub disk_dir: PathBuf,
    /// Length of a usage window on the wall-clock grid.
    pub usage_window: Duration,
    /// How often counters are read from workers and made durable: what a crash can cost.
    pub counter_interval: Duration,
    /// How often records are compared with the node, the first time at the start; not by itself
    /// where there is none.
    pub audit_interval: Option<Duration>,
    /// How long an incarnation must run for the trouble before it to count as over.
    pub settled_after: Duration,
    /// Requests in a row that a worker may leave unanswered before it counts as hung.
    pub unanswered_limit: u32,
    /// Recovery boots that go on at once: a node that restarts all its VMs serves users, too.
    pub max_recoveries: usize,
    /// Cleanups that are tried at once.
    pub max_cleanups: usize,
    /// What the VMs of this host, running or not, may claim together.
    pub capacity: Capacity,
    /// Revisions of a plugin that are kept of each state in which nobody needs them.
    pub kept_revisions: usize,
    /// Usage windows that may wait for a billing policy that fails. Beyond it the native one decides,
    /// which charges nothing.
    pub max_waiting_windows: u64,
    /// What each plugin may keep in the store.
    pub kv_quota: KvUsage,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where a test lets the host die; nowhere.
    pub faults: Faults,
}

impl Config {
    /// The defaults, with run directories below `run_dir` and disks beside it, in `disks`.
    #[must_use]
    pub fn new(run_dir: PathBuf) -> Self {
        Self {
            disk_dir: run_dir.with_file_name("disks"),
            run_dir,
            usage_window: Duration::from_secs(60),
            counter_interval: Duration::from_secs(5),
            audit_interval: Some(Duration::from_secs(60)),
            settled_after: Duration::from_secs(600),
            unanswered_limit: 3,
            max_recoveries: 16,
            max_cleanups: 8,
            capacity: Capacity {
                node: Most {
                    vms: Some(1000),
                    ..Most::default()
                },
                tenant: Most::default(),
            },
            kept_revisions: 10,
            // A day of 1,000 VMs, by the minute; some 300 MB.
            max_waiting_windows: 1_440_000,
            // A counter for each of some thousand tenants.
            kv_quota: KvUsage {
                keys: 10_000,
                bytes: 8 << 20,
            },
            clock: Arc::new(SystemClock),
            faults: Faults::default(),
        }
    }
}
