//! The balloon: the guest gives memory to the host, and gets it back.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::VM;
use super::host::Rig;
use super::serial::Serial;

/// What the guest is asked for, MiB.
const MIB: u64 = 64;
/// How much of it the host's resident memory must show, MiB: the guest's kernel gives pages that
/// it has not used yet, too.
const SHOWN_MIB: u64 = 56;
/// Memory that the guest keeps free while it uses all that it can, MiB.
const SPARE_MIB: u64 = 24;
/// How long the guest may take to give or to take.
const LIMIT: Duration = Duration::from_secs(60);

/// Inflates the balloon by 64 MiB and deflates it.
pub(super) fn check(rig: &Rig, guest: &mut Serial) -> Result<()> {
    // Memory that was never used is not resident: there would be nothing to see.
    use_all_memory(guest)?;
    let worker = rig.host.worker(VM)?;
    let full = resident_mib(worker)?;

    set(rig, MIB)?;
    let inflated = resident_mib(worker)?;
    ensure!(
        inflated + SHOWN_MIB <= full,
        "the guest gave {MIB} MiB, and the worker's resident memory went from {full} to {inflated} MiB"
    );
    set(rig, 0)?;
    use_all_memory(guest)?;
    let deflated = resident_mib(worker)?;
    ensure!(
        deflated >= inflated + SHOWN_MIB,
        "the guest has {MIB} MiB back and used them, and the worker's resident memory went from \
         {inflated} to {deflated} MiB"
    );
    Ok(())
}

/// Fills a file in memory and removes it.
fn use_all_memory(guest: &mut Serial) -> Result<()> {
    let free = guest.number("awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo")?;
    let used = free
        .checked_sub(SPARE_MIB)
        .with_context(|| format!("the guest has only {free} MiB"))?;
    guest.run(&format!(
        "dd if=/dev/zero of=/tmp/fill bs=1M count={used} 2>/dev/null && rm /tmp/fill"
    ))?;
    Ok(())
}

/// Asks for memory and waits until the guest has done as it was told.
fn set(rig: &Rig, mib: u64) -> Result<()> {
    rig.host.cli(&["vm", "balloon", VM, &mib.to_string()])?;
    rig.host
        .wait(&format!("a balloon of {mib} MiB"), LIMIT, |_| {
            let actual = rig.devices(VM)?.balloon_bytes()?;
            Ok((actual == mib << 20).then_some(()))
        })
}

/// What of a process is in memory, from `/proc/<pid>/status` (proc(5)), MiB.
fn resident_mib(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kib: Option<u64> = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse().ok());
    Ok(kib.with_context(|| format!("{path} has no VmRSS"))? / 1024)
}
