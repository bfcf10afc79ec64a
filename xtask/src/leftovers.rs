//! What a host may not leave behind.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::host;

/// Workers that run: those that were seen, and any other that has a file of the data folder open.
pub(crate) fn processes(data: &Path, workers: &[u32]) -> Result<Vec<u32>> {
    let mut left: Vec<_> = workers
        .iter()
        .copied()
        .filter(|pid| host::is_running(*pid))
        .collect();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process may end while we look, and is then none of ours.
        let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_worker = cmdline
            .split(|byte| *byte == 0)
            .any(|word| word == b"vm-worker");
        if is_worker && has_open(pid, data) && host::is_running(pid) && !left.contains(&pid) {
            left.push(pid);
        }
    }
    Ok(left)
}

/// Whether a process has a file below `folder` open.
fn has_open(pid: u32, folder: &Path) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    descriptors
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| target.starts_with(folder))
}

/// The run directories of VMs.
pub(crate) fn run_directories(data: &Path) -> Result<Vec<PathBuf>> {
    let run = data.join("run");
    if !run.exists() {
        return Ok(Vec::new());
    }
    fs::read_dir(run)?.map(|entry| Ok(entry?.path())).collect()
}
