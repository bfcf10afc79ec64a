//! What a process has in memory.

use std::fs;

use anyhow::{Context, Result};

/// What a process has in memory, from `smaps_rollup` (proc(5)), KiB. The pages that a guest has
/// touched are among a worker's.
pub(super) struct Memory {
    pub(super) private_kib: f64,
    pub(super) proportional_kib: f64,
    pub(super) resident_kib: f64,
}

impl Memory {
    pub(super) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let field = |name: &str| -> Result<f64> {
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number =
                value.and_then(|value| value.trim().strip_suffix(" kB")?.trim().parse().ok());
            number.with_context(|| format!("{path} has no {name}"))
        };
        Ok(Self {
            private_kib: field("Private_Clean")? + field("Private_Dirty")?,
            proportional_kib: field("Pss")?,
            resident_kib: field("Rss")?,
        })
    }
}
