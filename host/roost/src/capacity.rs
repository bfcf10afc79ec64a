//! What VMs may claim of this host: options of `roost serve`.

use anyhow::{Context as _, Result};
use clap::Args;
use roost_model::{Capacity, Most};
use rustix::process::{Resource, getrlimit};

const MIB: u64 = 1 << 20;

#[derive(Args)]
#[command(next_help_heading = "Limits of VMs, running or not")]
pub(crate) struct VmLimits {
    /// Most VMs.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    max_vms: u64,
    /// Most vCPUs of all VMs.  [default: no limit]
    #[arg(long, value_name = "N")]
    max_vcpus: Option<u64>,
    /// Most memory of all VMs, MiB.  [default: this machine's, times --memory-overcommit]
    #[arg(long, value_name = "MIB", conflicts_with = "memory_overcommit")]
    max_memory: Option<u64>,
    /// How often this machine's memory may be given to VMs: a VM that is stopped counts, too, and
    /// few guests touch all that they have.
    #[arg(long, value_name = "FACTOR", default_value = "2", value_parser = factor)]
    memory_overcommit: f64,
    /// Most descriptors that are open for running VMs, 3 for each.  [default: what this process may
    /// have open, less 1024 or half of it for everything else]
    #[arg(long, value_name = "N")]
    max_descriptors: Option<u64>,
    /// Most VMs of one tenant.  [default: no limit]
    #[arg(long, value_name = "N")]
    max_vms_per_tenant: Option<u64>,
    /// Most vCPUs of one tenant's VMs.  [default: no limit]
    #[arg(long, value_name = "N")]
    max_vcpus_per_tenant: Option<u64>,
    /// Most memory of one tenant's VMs, MiB.  [default: no limit]
    #[arg(long, value_name = "MIB")]
    max_memory_per_tenant: Option<u64>,
    /// Most descriptors that are open for one tenant's running VMs.  [default: no limit]
    #[arg(long, value_name = "N")]
    max_descriptors_per_tenant: Option<u64>,
}

/// What connections, boots, backups and everything else may take of this process's descriptors
/// beside VMs.
const OTHER_DESCRIPTORS: u64 = 1024;

/// How many of the descriptors that this process may have open are for VMs.
fn descriptors_for_vms(limit: u64) -> u64 {
    limit - OTHER_DESCRIPTORS.min(limit / 2)
}

/// From a tenth, for a machine that has other work, to a hundredfold, which is past all use.
fn factor(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=100.0).contains(&factor) {
        Ok(factor)
    } else {
        Err("not from 0.1 to 100".to_owned())
    }
}

impl VmLimits {
    pub(crate) fn capacity(&self) -> Result<Capacity> {
        let memory_mib = match self.max_memory {
            Some(most) => most,
            None => overcommitted(machine_memory_mib()?, self.memory_overcommit),
        };
        let may_open = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let descriptors = self
            .max_descriptors
            .unwrap_or_else(|| descriptors_for_vms(may_open));
        Ok(Capacity {
            node: Most {
                vms: Some(self.max_vms),
                vcpus: self.max_vcpus,
                memory_mib: Some(memory_mib),
                descriptors: Some(descriptors),
            },
            tenant: Most {
                vms: self.max_vms_per_tenant,
                vcpus: self.max_vcpus_per_tenant,
                memory_mib: self.max_memory_per_tenant,
                descriptors: self.max_descriptors_per_tenant,
            },
        })
    }
}

/// `memory_mib` times `factor`; a machine's memory in MiB is exact in a float.
fn overcommitted(memory_mib: u64, factor: f64) -> u64 {
    (memory_mib as f64 * factor) as u64
}

fn machine_memory_mib() -> Result<u64> {
    let info = rustix::system::sysinfo();
    let bytes = info.totalram.checked_mul(u64::from(info.mem_unit));
    Ok(bytes.context("the size of this machine's memory")? / MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_is_a_number_within_reason() {
        assert_eq!(factor("1.5"), Ok(1.5));
        for wrong in ["0", "-1", "0.09", "100.1", "NaN", "inf", "twice", ""] {
            assert!(factor(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_host_that_may_open_little_keeps_half_of_it_for_itself() {
        assert_eq!(descriptors_for_vms(65_536), 64_512);
        assert_eq!(descriptors_for_vms(1024), 512);
        assert_eq!(descriptors_for_vms(1), 1);
    }

    #[test]
    fn memory_is_multiplied_and_rounded_down() {
        assert_eq!(overcommitted(1001, 1.5), 1501);
        assert_eq!(overcommitted(1 << 30, 100.0), 100 << 30);
    }
}
