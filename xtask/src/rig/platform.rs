//! What a stock Linux kernel makes of the machine that `roost-vmm` builds: processors, events,
//! power-off, reset, panic, pause. It runs the crate's example `linux`, without a host around it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::builder::PossibleValuesParser;

use crate::measure::Measure;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The example `linux` of roost-vmm
    #[arg(long)]
    vmm: PathBuf,
    /// The guest's kernel, a bzImage
    #[arg(long)]
    kernel: PathBuf,
    /// The guest's initial RAM disk, with tests/rig/platform-init as /init
    #[arg(long)]
    initrd: PathBuf,
    /// Only this part
    #[arg(long, value_parser = PossibleValuesParser::new(PART_NAMES))]
    part: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Its parts, in the order in which they run.
pub(super) const PART_NAMES: [&str; 4] =
    [PARTS[0].name, PARTS[1].name, PARTS[2].name, PARTS[3].name];

/// Modules that the guest loads: the power button, the files that its keys are read from, the
/// panic device.
pub(super) const MODULES: [&str; 3] = ["button", "evdev", "pvpanic-mmio"];

/// What a kernel prints when the machine is not as its tables say.
const COMPLAINTS: [&str; 6] = [
    "ACPI Error",
    "ACPI BIOS Error",
    "ACPI Warning",
    "unchecked MSR access error",
    "nobody cared",
    "guest: no-module",
];

struct Part {
    /// The word that `platform-init` knows.
    name: &'static str,
    /// What its duration is called.
    measure: &'static str,
    /// For the example, beside the kernel.
    options: &'static [&'static str],
    /// What must be in the output, in this order.
    expected: &'static [&'static str],
}

const PARTS: [Part; 4] = [
    Part {
        name: "power-button",
        measure: "rig.platform.power-button",
        options: &["--when", "guest: press the button=power-button"],
        expected: &[
            "smp: Brought up 1 node, 2 CPUs",
            "ACPI: PM: (supports S0 S5)",
            "guest: up cpus=2",
            "did: power-button",
            "guest: key 1 116 1",
            "exit: the guest powered the machine off",
        ],
    },
    // Nothing on the command line says how to reset: the kernel takes the reset vector.
    Part {
        name: "ctrl-alt-delete",
        measure: "rig.platform.ctrl-alt-delete",
        options: &["--when", "guest: press the keys=ctrl-alt-delete"],
        expected: &[
            "AT Translated Set 2 keyboard",
            "did: ctrl-alt-delete",
            "reboot: Restarting system",
            "exit: the guest reset the machine",
        ],
    },
    Part {
        name: "panic",
        measure: "rig.platform.panic",
        options: &["--vcpus", "1", "--memory-mib", "4096"],
        expected: &[
            "guest: up cpus=1",
            "Kernel panic - not syncing: sysrq triggered crash",
            "exit: the guest's kernel panicked",
        ],
    },
    Part {
        name: "pause",
        measure: "rig.platform.pause",
        options: &[
            "--vcpus",
            "8",
            "--cpu",
            "x86-64-v2",
            "--memory-backing",
            "memfd",
            "--when",
            "guest: pause me=pause:3000",
        ],
        expected: &[
            "smp: Brought up 1 node, 8 CPUs",
            "guest: up cpus=8",
            "did: pause:3000",
            "guest: seconds ",
            "guest: clock kvm-clock",
            "exit: the guest powered the machine off",
        ],
    },
];

/// Runs every part.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let is_wanted = |part: &&Part| match &arguments.part {
        Some(only) => only == part.name,
        None => true,
    };
    for part in PARTS.iter().filter(is_wanted) {
        let start = Instant::now();
        let output = boot(arguments, part)?;
        if let Err(error) = check(part, &output) {
            eprintln!("{output}");
            return Err(error).with_context(|| format!("in the part {}", part.name));
        }
        Measure {
            name: part.measure,
            value: start.elapsed().as_secs_f64(),
            unit: "s",
            n: 1,
        }
        .print(arguments.json);
    }
    Ok(())
}

fn boot(arguments: &Arguments, part: &Part) -> Result<String> {
    let output = Command::new(&arguments.vmm)
        .arg("--kernel")
        .arg(&arguments.kernel)
        .arg("--initrd")
        .arg(&arguments.initrd)
        .arg("--cmdline")
        .arg(format!("console=ttyS0 panic=1 do={}", part.name))
        .args(part.options)
        .output()
        .with_context(|| format!("cannot run {}", arguments.vmm.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    ensure!(
        output.status.success(),
        "it ended with {}: {}\n{text}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

fn check(part: &Part, output: &str) -> Result<()> {
    for complaint in COMPLAINTS {
        ensure!(!output.contains(complaint), "the guest says {complaint:?}");
    }
    let mut rest = output;
    for expected in part.expected {
        let found = rest.find(expected);
        let at = found.with_context(|| format!("{expected:?} is missing, or comes too early"))?;
        rest = &rest[at + expected.len()..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expected_line_that_is_missing_early_or_spoiled_by_a_complaint_is_noticed() {
        let part = Part {
            name: "test",
            measure: "test",
            options: &[],
            expected: &["one", "two"],
        };
        assert!(check(&part, "one\nand two").is_ok());
        assert!(check(&part, "two\none").is_err());
        assert!(check(&part, "one").is_err());
        assert!(check(&part, "one\nACPI Error: AE_NOT_FOUND\ntwo").is_err());
    }
}
