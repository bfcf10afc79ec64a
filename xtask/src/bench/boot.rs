//! How long a boot takes, and which part of it is whose.
//!
//! The same guest is booted twice in each run: by a host, as a program that uses the API sees it,
//! and by the VMM alone (the example `linux` of `roost-vmm`). The VMM's own time, from its start to
//! a VM that is built, and the guest's, from there to what it prints, are measured on the latter;
//! the host's part is what the former takes more.
//!
//! Measured on this machine with a test guest, up to its first byte, and in the rig with a stock
//! Linux kernel, up to its `/init`.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::host::Host;
use crate::kvm::Kvm;
use crate::measure::{Measure, median};
use crate::process::Owned;
use crate::{http, rig, workspace};

/// How long a single boot may take. Interpreted twice over, a kernel takes a while.
const LIMIT: Duration = Duration::from_secs(180);
/// The VM's name.
const VM: &str = "bench";

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask bench boot\n  \
    cargo xtask bench boot --runs 20 --rig-runs 5 --json\n\n\
    Builds roost in the release profile, which takes minutes the first time. What is measured in \
    the rig is emulated where the CPU has no virtualization, and compares only with itself.")]
pub(crate) struct Arguments {
    /// Boots of the test guest on this machine that are measured; 0: none
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    runs: u32,
    /// Boots of the stock Linux kernel in the rig that are measured; 0: none
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=100))]
    rig_runs: u32,
    /// Use this roost binary instead of building one
    #[arg(long, value_name = "FILE")]
    roost: Option<PathBuf>,
    /// Use this build of the example `linux` of roost-vmm instead of building one
    #[arg(long, value_name = "FILE")]
    vmm: Option<PathBuf>,
    /// One JSON object a line: name, value, unit, n
    #[arg(long)]
    json: bool,
}

/// Runs the measurement.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let roost = match &arguments.roost {
        Some(roost) => roost.clone(),
        None => workspace::build_roost(true)?,
    };
    let vmm = match &arguments.vmm {
        Some(vmm) => vmm.clone(),
        None => workspace::build_vmm_example(true)?,
    };
    if arguments.runs == 0 {
        eprintln!("on this machine nothing is measured: no runs were asked for");
    } else if let Kvm::Unusable(why) = Kvm::detect() {
        eprintln!("on this machine nothing is measured: {why}");
    } else {
        let scratch = tempfile::tempdir()?;
        let kernel = scratch.path().join("hello.elf");
        fs::write(&kernel, roost_guests::HELLO)?;
        measure(&Boots {
            roost: roost.clone(),
            vmm: vmm.clone(),
            kernel,
            initrd: None,
            cmdline: String::new(),
            // Anything: the first byte.
            until: String::new(),
            names: NATIVE,
            runs: arguments.runs,
            json: arguments.json,
        })?;
    }
    if arguments.rig_runs == 0 {
        eprintln!("in the rig nothing is measured: no runs were asked for");
        return Ok(());
    }
    rig::boot_times(&roost, &vmm, arguments.rig_runs, arguments.json)
}

/// What the parts of a boot are called: all of it, the host's, the VMM's, the guest's.
type Names = [&'static str; 4];
const NATIVE: Names = [
    "boot.native.request-to-first-byte",
    "boot.native.host",
    "boot.native.vmm",
    "boot.native.guest",
];
const RIG: Names = [
    "boot.rig.request-to-init",
    "boot.rig.host",
    "boot.rig.vmm",
    "boot.rig.kernel",
];

/// The rig's part, inside its machine.
#[derive(clap::Args)]
pub(crate) struct Inside {
    /// The roost binary
    #[arg(long)]
    roost: PathBuf,
    /// The example `linux` of roost-vmm
    #[arg(long)]
    vmm: PathBuf,
    /// The guest's kernel, a bzImage
    #[arg(long)]
    kernel: PathBuf,
    /// The guest's initial RAM disk, with tests/rig/guest-init as /init
    #[arg(long)]
    initrd: PathBuf,
    /// Boots that are measured
    #[arg(long)]
    runs: u32,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Measures the stock kernel up to its `/init`.
pub(crate) fn run_inside(arguments: &Inside) -> Result<()> {
    measure(&Boots {
        roost: arguments.roost.clone(),
        vmm: arguments.vmm.clone(),
        kernel: arguments.kernel.clone(),
        initrd: Some(arguments.initrd.clone()),
        cmdline: rig::linux_guest::CMDLINE.to_owned(),
        until: rig::linux_guest::GUEST_IS_UP.to_owned(),
        names: RIG,
        runs: arguments.runs,
        json: arguments.json,
    })
}

/// The guest, and who boots it.
struct Boots {
    roost: PathBuf,
    vmm: PathBuf,
    kernel: PathBuf,
    initrd: Option<PathBuf>,
    cmdline: String,
    /// What the guest prints when the measured time ends; nothing: anything.
    until: String,
    names: Names,
    runs: u32,
    json: bool,
}

/// Memory of the guest, MiB.
const MEMORY_MIB: u32 = 256;

fn measure(boots: &Boots) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let log = scratch.path().join("host.log");
    let mut host = Host::start(&boots.roost, &scratch.path().join("data"), &log)?;
    let mut parts: [Vec<f64>; 4] = Default::default();
    // The first run is not measured: caches are cold.
    for run in 0..=boots.runs {
        let total = by_host(&host, boots)?;
        let (vmm, guest) = by_vmm(boots)?;
        // Also for who ends an emulated machine that says nothing.
        eprintln!("  run {run} of {}", boots.runs);
        if run == 0 {
            continue;
        }
        let host = total.saturating_sub(vmm + guest);
        for (part, time) in parts.iter_mut().zip([total, host, vmm, guest]) {
            part.push(time.as_secs_f64() * 1e3);
        }
    }
    host.stop()?;
    for (name, values) in boots.names.into_iter().zip(&mut parts) {
        Measure {
            name,
            value: median(values),
            unit: "ms",
            n: values.len(),
        }
        .print(boots.json);
    }
    Ok(())
}

/// From the request to boot to what the guest prints.
fn by_host(host: &Host, boots: &Boots) -> Result<Duration> {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let memory = MEMORY_MIB.to_string();
    let kernel = path(&boots.kernel);
    // A new VM each time: one that was booted before shows its last output until it is gone.
    let mut create = vec!["vm", "create", "--name", VM, "--kernel", &kernel];
    create.extend(["--memory", &memory, "--cmdline", &boots.cmdline]);
    let initrd = boots.initrd.as_deref().map(path);
    if let Some(initrd) = &initrd {
        create.extend(["--initrd", initrd]);
    }
    host.json(&create)?;

    let socket = host.socket();
    let start = Instant::now();
    let request = thread::spawn({
        let socket = socket.clone();
        move || http::request(&socket, "POST", &format!("/v1/vms/{VM}/boot"))
    });
    let mut printed = Vec::new();
    let elapsed = loop {
        // Answers at once while there is no worker, then when there is output.
        let logs = format!("/v1/vms/{VM}/logs?wait_ms=1000&from={}", printed.len());
        printed.extend(http::request(&socket, "GET", &logs)?);
        if !printed.is_empty() && String::from_utf8_lossy(&printed).contains(&boots.until) {
            break start.elapsed();
        }
        ensure!(
            start.elapsed() < LIMIT,
            "the guest did not print {:?} within {LIMIT:?}:\n{}",
            boots.until,
            String::from_utf8_lossy(&printed)
        );
    };
    request
        .join()
        .ok()
        .context("the thread of the request panicked")??;
    host.json(&["vm", "delete", VM])?;
    Ok(elapsed)
}

/// From the VMM's start to a VM that is built, and from there to what the guest prints.
fn by_vmm(boots: &Boots) -> Result<(Duration, Duration)> {
    let mut command = Command::new(&boots.vmm);
    command.arg("--kernel").arg(&boots.kernel);
    if let Some(initrd) = &boots.initrd {
        command.arg("--initrd").arg(initrd);
    }
    command
        .args(["--cmdline", &boots.cmdline, "--until", &boots.until])
        .args(["--vcpus", "1", "--memory-mib", &MEMORY_MIB.to_string()])
        .stderr(Stdio::null());
    let output = output_within(&mut command, LIMIT)?;
    let times = output
        .lines()
        .find_map(|line| line.strip_prefix("times: ")?.split_once(' '))
        .and_then(|(built, there)| {
            let us = |text: &str| text.trim().parse().ok().map(Duration::from_micros);
            Some((us(built)?, us(there)?))
        });
    let (built, there) = times.with_context(|| format!("the VMM told no times:\n{output}"))?;
    ensure!(built <= there, "the VMM's times make no sense: {times:?}");
    Ok((built, there - built))
}

/// What a command prints until its end.
///
/// # Errors
/// It cannot be run, fails, or does not end within `limit`; then it is killed.
fn output_within(command: &mut Command, limit: Duration) -> Result<String> {
    let mut child = Owned(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?,
    );
    let mut output = child.0.stdout.take().context("a command has no output")?;
    let (sender, all) = mpsc::channel();
    // Ends with the command, which `child` ends at the latest when it is dropped.
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = output.read_to_end(&mut bytes);
        sender.send(read.map(|_| bytes))
    });
    let bytes = all
        .recv_timeout(limit)
        .with_context(|| format!("{command:?} goes on after {limit:?}"))??;
    let status = child.0.wait()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    ensure!(status.success(), "{command:?} ended with {status}:\n{text}");
    Ok(text)
}
