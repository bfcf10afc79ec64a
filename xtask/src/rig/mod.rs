//! `cargo xtask rig`: a stock Debian kernel as a guest of our own host.
//!
//! Where the CPU has virtualization the guest runs on this machine's `/dev/kvm`. Elsewhere QEMU
//! emulates a machine whose CPU has it; an ordinary kernel in there offers `/dev/kvm`, and the
//! same binaries run on that:
//!
//! ```text
//!   this machine ── QEMU, emulating ── Debian kernel with kvm-amd ── roost ── worker ── guest
//! ```
//!
//! `--tests` runs the tests that need KVM in there.

mod attempts;
pub(crate) mod devices;
mod initramfs;
mod kvm_tests;
pub(crate) mod linux_guest;
mod machine;
mod modules;
mod packages;
pub(crate) mod platform;
mod roots;
mod scenarios;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::builder::PossibleValuesParser;

use crate::kvm::Kvm;
use crate::measure::Measure;
use crate::{plugins, workspace};
use initramfs::Initramfs;
use machine::{Job, Machine};
use packages::Kernel;
use roots::machine_root;
use scenarios::{BOOT_TIMES, SCENARIOS, Scenario, Workshop, chosen};

pub(crate) use kvm_tests::{
    NO_KVM as NO_KVM_TESTS, PACKAGES as KVM_PACKAGES, PROGRAMS as KVM_PROGRAMS,
};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask rig                    every scenario, with a stock Linux kernel as the guest\n  \
    cargo xtask rig --emulated         the same in the emulated machine though the CPU could do it\n  \
    cargo xtask rig --only devices     one scenario\n  \
    cargo xtask rig --only linux-guest --times 50\n  \
    cargo xtask rig --tests            run the tests that need KVM in the emulated machine\n  \
    cargo xtask rig --tests roost-vmm roost:crashes\n\n\
    The serial log is kept in target/rig/serial.log.")]
pub(crate) struct Arguments {
    /// Instead, run the tests of these packages in the emulated machine; none named: of all that
    /// need KVM
    #[arg(long, num_args = 0.., value_name = "PACKAGE[:TEST]")]
    tests: Option<Vec<String>>,
    /// Use the emulated machine even where the CPU has virtualization
    #[arg(long)]
    emulated: bool,
    /// Use this roost binary instead of building one
    #[arg(long, value_name = "FILE")]
    roost: Option<PathBuf>,
    /// Run only this scenario; may be given more than once
    #[arg(long, value_name = "SCENARIO", conflicts_with = "tests",
          value_parser = PossibleValuesParser::new(SCENARIOS.map(|scenario| scenario.name)))]
    only: Vec<String>,
    /// How often each scenario runs, to see what fails now and then
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    times: u32,
    /// How often something that fails in the emulated machine is run before it counts as failed
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10))]
    runs: u32,
    /// One JSON object a line: name, value, unit, n
    #[arg(long)]
    json: bool,
}

/// Where everything of the rig is kept.
fn folder() -> Result<PathBuf> {
    let folder = workspace::target_directory()?.join("rig");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Installs and downloads what the rig needs; quick when nothing is missing.
pub(crate) fn set_up() -> Result<()> {
    packages::install()?;
    packages::kernel(&folder()?)?;
    Ok(())
}

/// How often a job of the tests may run in the emulated machine; see [`attempts`].
pub(crate) const RUNS: u32 = 6;

/// Runs every scenario wherever this machine can, with the binary that the tests use.
pub(crate) fn boot_linux() -> Result<()> {
    let roost = workspace::tested_roost()?;
    let direct = matches!(Kvm::detect(), Kvm::Hardware);
    Guests {
        runs: RUNS,
        ..Guests::of(chosen(&[]))
    }
    .run(direct, Some(&roost))
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let direct = matches!(Kvm::detect(), Kvm::Hardware) && !arguments.emulated;
    match &arguments.tests {
        None => Guests {
            times: arguments.times,
            runs: arguments.runs,
            json: arguments.json,
            ..Guests::of(chosen(&arguments.only))
        }
        .run(direct, arguments.roost.as_deref()),
        Some(packages) if packages.is_empty() => {
            tests(&KVM_PACKAGES, arguments.runs, arguments.json)
        }
        Some(packages) => tests(packages, arguments.runs, arguments.json),
    }
}

/// Measures the boot of the stock kernel, wherever this machine can; `roost` and `vmm` (the example
/// `linux` of roost-vmm) do it.
pub(crate) fn boot_times(roost: &Path, vmm: &Path, runs: u32, json: bool) -> Result<()> {
    let direct = matches!(Kvm::detect(), Kvm::Hardware);
    Guests {
        runs: RUNS,
        options: vec!["--runs".to_owned(), runs.to_string()],
        vmm: Some(vmm),
        json,
        ..Guests::of(vec![&BOOT_TIMES])
    }
    .run(direct, Some(roost))
}

/// Scenarios, and how they are run.
struct Guests<'a> {
    scenarios: Vec<&'static Scenario>,
    /// How often each one.
    times: u32,
    /// How often one that fails is run in the emulated machine.
    runs: u32,
    /// For each of their commands.
    options: Vec<String>,
    /// The example `linux` of roost-vmm, if it is not to be built.
    vmm: Option<&'a Path>,
    json: bool,
}

impl Guests<'_> {
    fn of(scenarios: Vec<&'static Scenario>) -> Self {
        Self {
            scenarios,
            times: 1,
            runs: 1,
            options: Vec::new(),
            vmm: None,
            json: false,
        }
    }

    /// Runs them, on this machine's KVM if `direct`, else in the emulated machine.
    fn run(&self, direct: bool, roost: Option<&Path>) -> Result<()> {
        packages::install()?;
        let folder = folder()?;
        let kernel = packages::kernel(&folder)?;
        let mut workshop = Workshop::new(&folder, &kernel, roost);
        if let Some(vmm) = self.vmm {
            workshop = workshop.with_vmm(vmm);
        }
        let mut options = self.options.clone();
        if self.json {
            options.push("--json".to_owned());
        }
        if direct {
            eprintln!("booting Linux {} on this machine's KVM", kernel.version);
            return self
                .scenarios
                .iter()
                .try_for_each(|scenario| scenario.run_here(&workshop, self.times, &options));
        }
        let mut root = machine_root(&folder, &kernel)?;
        // Our own file may have been replaced by a build meanwhile; what runs has not.
        let xtask = folder.join("xtask");
        fs::copy("/proc/self/exe", &xtask).context("cannot copy the running program")?;
        root.program(&xtask, Path::new("/rig/xtask"))?;
        let mut jobs = Vec::new();
        for scenario in &self.scenarios {
            jobs.extend(scenario.stage(&workshop, &mut root, self.times, &options)?);
        }
        eprintln!(
            "booting Linux {} as a guest in the emulated machine",
            kernel.version
        );
        let lines = run_jobs(&root, &folder, &kernel, &jobs, self.runs, self.json)?;
        if self.json {
            for line in lines.iter().filter(|line| line.starts_with('{')) {
                println!("{line}");
            }
        }
        Ok(())
    }
}

/// Runs the tests of `packages` in the emulated machine.
pub(crate) fn tests(packages: &[impl AsRef<str>], runs: u32, json: bool) -> Result<()> {
    packages::install()?;
    let folder = folder()?;
    let kernel = packages::kernel(&folder)?;
    plugins::build()?;
    eprintln!("building the tests that need KVM");
    let built = kvm_tests::build(packages)?;
    let mut root = machine_root(&folder, &kernel)?;
    let jobs = kvm_tests::stage(&built, &mut root)?;
    ensure!(!jobs.is_empty(), "cargo built no test that needs KVM");
    eprintln!(
        "running {} test executables in the emulated machine",
        jobs.len()
    );
    run_jobs(&root, &folder, &kernel, &jobs, runs, json)?;
    Ok(())
}

/// Runs `jobs` in emulated machines, each up to `runs` times, and fails if one fails as often;
/// returns what they printed.
fn run_jobs(
    root: &Initramfs,
    folder: &Path,
    kernel: &Kernel,
    jobs: &[Job],
    runs: u32,
    json: bool,
) -> Result<Vec<String>> {
    let machine = Machine {
        kernel: kernel.image.clone(),
        initramfs: folder.join("machine.cpio"),
        log: folder.join("serial.log"),
    };
    attempts::run(jobs, runs, |jobs| {
        let lines: String = jobs.iter().map(|job| job.line()).collect();
        root.write("/rig/jobs", lines.as_bytes(), 0o644)?;
        root.pack(&machine.initramfs)?;
        let report = machine.run(jobs)?;
        let up = report.up_after.map(|elapsed| ("rig.machine-up", elapsed));
        for (name, elapsed) in up.into_iter().chain([("rig.total", report.elapsed)]) {
            Measure {
                name,
                value: elapsed.as_secs_f64(),
                unit: "s",
                n: 1,
            }
            .print(json);
        }
        Ok(report)
    })
    .with_context(|| format!("the last serial log is {}", machine.log.display()))
}
