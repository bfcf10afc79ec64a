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

mod initramfs;
mod kvm_tests;
pub(crate) mod linux_guest;
mod machine;
mod modules;
mod packages;
pub(crate) mod platform;
mod roots;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::kvm::Kvm;
use crate::measure::Measure;
use crate::{plugins, process, workspace};
use initramfs::Initramfs;
use machine::{Job, Machine};
use packages::Kernel;
use roots::{guest_initramfs, machine_root, platform_initramfs};

pub(crate) use kvm_tests::{
    NO_KVM as NO_KVM_TESTS, PACKAGES as KVM_PACKAGES, PROGRAMS as KVM_PROGRAMS,
};

/// The Linux guest's whole scenario, inside the emulated machine.
const LINUX_GUEST_LIMIT: Duration = Duration::from_secs(420);
/// All boots that look at the machine that a guest finds, likewise.
const PLATFORM_LIMIT: Duration = Duration::from_secs(600);

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask rig             boot the stock Linux kernel as a guest\n  \
    cargo xtask rig --emulated  the same in the emulated machine though the CPU could do it\n  \
    cargo xtask rig --times 50  look for what fails now and then\n  \
    cargo xtask rig --tests     run the tests that need KVM in the emulated machine\n  \
    cargo xtask rig --tests roost-vmm\n\n\
    The serial log is kept in target/rig/serial.log.")]
pub(crate) struct Arguments {
    /// Instead, run the tests of these packages in the emulated machine; none named: of all that
    /// need KVM
    #[arg(long, num_args = 0.., value_name = "PACKAGE")]
    tests: Option<Vec<String>>,
    /// Use the emulated machine even where the CPU has virtualization
    #[arg(long)]
    emulated: bool,
    /// Use this roost binary instead of building one
    #[arg(long, value_name = "FILE")]
    roost: Option<PathBuf>,
    /// How often the guest is booted, one after the other
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    times: u32,
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

/// Boots the Linux guest wherever this machine can, with the binary that the tests use.
///
/// QEMU's emulation of nested virtualization ends a guest by a triple fault at a random place now
/// and then (once in some 25 boots were seen), so in the emulated machine a failure is told and
/// the scenarios are run once more. On real hardware they are not.
pub(crate) fn boot_linux() -> Result<()> {
    let roost = workspace::tested_roost()?;
    let direct = matches!(Kvm::detect(), Kvm::Hardware);
    match linux_guest(direct, Some(&roost), 1, false) {
        Err(error) if !direct => {
            println!("FAILED in the emulated machine, which is run once more: {error:#}");
            linux_guest(direct, Some(&roost), 1, false)
        }
        result => result,
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let direct = matches!(Kvm::detect(), Kvm::Hardware) && !arguments.emulated;
    match &arguments.tests {
        None => linux_guest(
            direct,
            arguments.roost.as_deref(),
            arguments.times,
            arguments.json,
        ),
        Some(packages) if packages.is_empty() => tests(&KVM_PACKAGES, arguments.json),
        Some(packages) => tests(packages, arguments.json),
    }
}

/// Boots the Linux guest, on this machine's KVM if `direct`, else in the emulated machine.
fn linux_guest(direct: bool, roost: Option<&Path>, times: u32, json: bool) -> Result<()> {
    packages::install()?;
    let folder = folder()?;
    let kernel = packages::kernel(&folder)?;
    let initrd = guest_initramfs(&folder)?;
    let platform_initrd = platform_initramfs(&folder, &kernel)?;
    let vmm = workspace::build_vmm_example()?;
    let roost = match roost {
        Some(roost) => roost.to_owned(),
        None => workspace::build_roost(false)?,
    };
    if direct {
        eprintln!("booting Linux {} on this machine's KVM", kernel.version);
        let commands = (0..times)
            .map(|_| guest_command(&roost, &kernel.image, &initrd, json))
            .chain([platform_command(
                &vmm,
                &kernel.image,
                &platform_initrd,
                json,
            )]);
        for command in commands {
            process::run(Command::new("/proc/self/exe").args(command))?;
        }
        return Ok(());
    }
    let mut root = machine_root(&folder, &kernel)?;
    let inside = |name: &str| Path::new("/rig").join(name);
    root.program(&roost, &inside("roost"))?;
    // Our own file may have been replaced by a build meanwhile; what runs has not.
    let xtask = folder.join("xtask");
    fs::copy("/proc/self/exe", &xtask).context("cannot copy the running program")?;
    root.program(&xtask, &inside("xtask"))?;
    root.copy(&kernel.image, &inside("vmlinuz"))?;
    root.copy(&initrd, &inside("guest.cpio"))?;
    root.program(&vmm, &inside("linux"))?;
    root.copy(&platform_initrd, &inside("platform.cpio"))?;
    let ours = |command| [vec!["/rig/xtask".to_owned()], command].concat();
    let command = ours(guest_command(
        &inside("roost"),
        &inside("vmlinuz"),
        &inside("guest.cpio"),
        json,
    ));
    let platform = Job {
        name: "platform".to_owned(),
        limit: PLATFORM_LIMIT,
        directory: "/rig".into(),
        command: ours(platform_command(
            &inside("linux"),
            &inside("vmlinuz"),
            &inside("platform.cpio"),
            json,
        )),
    };
    let jobs: Vec<_> = (1..=times)
        .map(|number| Job {
            name: format!("linux-guest-{number}"),
            limit: LINUX_GUEST_LIMIT,
            directory: "/rig".into(),
            command: command.clone(),
        })
        .chain([platform])
        .collect();
    eprintln!(
        "booting Linux {} as a guest in the emulated machine",
        kernel.version
    );
    let lines = run_jobs(&root, &folder, &kernel, &jobs, json)?;
    if json {
        for line in lines.iter().filter(|line| line.starts_with('{')) {
            println!("{line}");
        }
    }
    Ok(())
}

/// Runs the tests of `packages` in the emulated machine.
pub(crate) fn tests(packages: &[impl AsRef<str>], json: bool) -> Result<()> {
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
    run_jobs(&root, &folder, &kernel, &jobs, json)?;
    Ok(())
}

fn guest_command(roost: &Path, kernel: &Path, initrd: &Path, json: bool) -> Vec<String> {
    command(["linux-guest", "--roost"], roost, kernel, initrd, json)
}

fn platform_command(vmm: &Path, kernel: &Path, initrd: &Path, json: bool) -> Vec<String> {
    command(["platform", "--vmm"], vmm, kernel, initrd, json)
}

/// Our own arguments: a command, and `option` that names the program that it runs.
fn command(
    [name, option]: [&str; 2],
    program: &Path,
    kernel: &Path,
    initrd: &Path,
    json: bool,
) -> Vec<String> {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let mut words = vec![name.to_owned()];
    for (option, value) in [
        (option, program),
        ("--kernel", kernel),
        ("--initrd", initrd),
    ] {
        words.extend([option.to_owned(), path(value)]);
    }
    if json {
        words.push("--json".to_owned());
    }
    words
}

/// Runs `jobs` in the emulated machine and fails if one of them does; returns what they printed.
fn run_jobs(
    root: &Initramfs,
    folder: &Path,
    kernel: &Kernel,
    jobs: &[Job],
    json: bool,
) -> Result<Vec<String>> {
    let lines: String = jobs.iter().map(Job::line).collect();
    root.write("/rig/jobs", lines.as_bytes(), 0o644)?;
    let machine = Machine {
        kernel: kernel.image.clone(),
        initramfs: folder.join("machine.cpio"),
        log: folder.join("serial.log"),
    };
    root.pack(&machine.initramfs)?;
    let start = Instant::now();
    let report = machine.run(jobs)?;
    for (name, elapsed) in [
        ("rig.machine-up", report.up_after),
        ("rig.total", start.elapsed()),
    ] {
        Measure {
            name,
            value: elapsed.as_secs_f64(),
            unit: "s",
            n: 1,
        }
        .print(json);
    }
    let mut failed = Vec::new();
    for outcome in &report.outcomes {
        let seconds = outcome.elapsed.as_secs_f64();
        match outcome.status {
            Some(0) => eprintln!("  {}: passed in {seconds:.1} s", outcome.name),
            status => {
                let status = status.map_or("no status".to_owned(), |s| format!("status {s}"));
                eprintln!(
                    "  {}: FAILED with {status} after {seconds:.1} s",
                    outcome.name
                );
                failed.push(outcome.name.as_str());
            }
        }
    }
    if !failed.is_empty() {
        bail!(
            "failed in the emulated machine: {}; the whole serial log is {}",
            failed.join(", "),
            machine.log.display()
        );
    }
    Ok(report.lines)
}
