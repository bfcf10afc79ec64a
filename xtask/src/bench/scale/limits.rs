//! What the machine and the host have, of which each VM takes some.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Scheduler's time of every thread of some processes so far.
pub(super) fn cpu_time(pids: &[u32]) -> Duration {
    let threads = pids.iter().flat_map(|pid| {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        tasks.into_iter().flatten().flatten()
    });
    let spent = threads.filter_map(|thread| {
        // Time on the CPU, time in the queue, slices; ns.
        let schedstat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        schedstat.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(spent.sum())
}

/// Threads of some processes.
pub(super) fn threads(pids: &[u32]) -> usize {
    let of = |pid| fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    pids.iter().map(of).sum()
}

/// Descriptors that a process has open.
pub(super) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Descriptors that a process may have open.
pub(super) fn most_descriptors(pid: u32) -> Result<f64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    let soft = soft.context("no limit of open files")?;
    Ok(soft.parse().unwrap_or(f64::INFINITY))
}

/// Threads that the machine may have beside those that it has without VMs: the least of what the
/// kernel and the control groups set.
pub(super) fn most_threads() -> f64 {
    let number = |path: &str| -> Option<f64> { fs::read_to_string(path).ok()?.trim().parse().ok() };
    [
        "/proc/sys/kernel/pid_max",
        "/proc/sys/kernel/threads-max",
        "/sys/fs/cgroup/pids.max",
        "/sys/fs/cgroup/pids/pids.max",
    ]
    .into_iter()
    .filter_map(number)
    .fold(f64::INFINITY, f64::min)
}

/// Threads that there are.
pub(super) fn all_threads() -> Option<f64> {
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    load.split_whitespace()
        .nth(3)?
        .split_once('/')?
        .1
        .parse()
        .ok()
}

/// Memory that new programs can have, KiB.
pub(super) fn available_kib() -> Result<f64> {
    let info = fs::read_to_string("/proc/meminfo")?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse().ok())
        .context("no MemAvailable")
}

/// Something of which each VM takes some.
pub(super) struct Limit {
    pub(super) what: &'static str,
    pub(super) unit: &'static str,
    /// What there is for VMs.
    pub(super) there: f64,
    /// What one takes.
    pub(super) each: f64,
}

impl Limit {
    /// How many VMs it is enough for.
    pub(super) fn vms(&self) -> f64 {
        if self.each <= 0.0 {
            return f64::INFINITY;
        }
        (self.there / self.each).floor()
    }
}

/// The one that is reached first.
pub(super) fn first(limits: &[Limit]) -> Option<&Limit> {
    limits.iter().min_by(|a, b| a.vms().total_cmp(&b.vms()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_enough_for_the_fewest_vms_limits_them() {
        let limit = |what, there, each| Limit {
            what,
            unit: "",
            there,
            each,
        };
        let limits = [
            limit("memory", 100.0, 3.0),
            limit("threads", 100.0, 4.0),
            limit("nothing", 100.0, 0.0),
        ];
        let first = first(&limits).unwrap();
        assert_eq!((first.what, first.vms()), ("threads", 25.0));
    }

    #[test]
    fn this_machine_says_what_it_has() {
        let me = std::process::id();
        assert!(threads(&[me]) >= 1);
        assert!(descriptors(me) >= 3);
        assert!(most_descriptors(me).unwrap() >= 3.0);
        assert!(most_threads() > all_threads().unwrap());
        assert!(available_kib().unwrap() > 0.0);
        assert!(cpu_time(&[me]) > Duration::ZERO);
    }
}
