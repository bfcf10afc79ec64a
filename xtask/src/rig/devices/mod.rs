//! The scenario of the rig that uses every device: a stock Linux kernel with an ext4 root, driven
//! over its serial port as a person would, while the `roost` command line plays the operator.
//!
//! It has parts, each with a host of its own and a VM `a`:
//!
//! | part | what happens |
//! | --- | --- |
//! | `data` | disks, network, vsock, entropy, console, pause |
//! | `limits` | rate limits, balloon |
//! | `reset` | a file; the guest resets; the file is there, and a VM `b` of the same image does not see it |
//! | `power` | `vm reboot` presses the button; the kernel is made to panic; `vm shutdown` presses the button |

mod balloon;
mod console;
mod disk;
mod host;
mod lifecycle;
mod limits;
mod net;
mod pause;
mod serial;
mod vsock;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::builder::PossibleValuesParser;

use crate::measure::Measure;
use host::Rig;
use serial::Serial;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The roost binary
    #[arg(long)]
    roost: PathBuf,
    /// The guest's kernel, a bzImage
    #[arg(long)]
    kernel: PathBuf,
    /// The guest's initial RAM disk, with tests/rig/devices-initrd-init as /init
    #[arg(long)]
    initrd: PathBuf,
    /// The guest's root file system, with tests/rig/devices-init as /sbin/init
    #[arg(long)]
    image: PathBuf,
    /// Only this part
    #[arg(long, value_parser = PossibleValuesParser::new(PART_NAMES))]
    part: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Its parts, in the order in which they run.
pub(super) const PART_NAMES: [&str; 4] = ["data", "limits", "reset", "power"];

/// Size of the image with the root file system, MiB: what is on it, its journal, and a few files.
pub(super) const IMAGE_MIB: u32 = 8;
/// Modules that bring up the root file system.
pub(super) const INITRD_MODULES: [&str; 2] = ["virtio_mmio", "virtio_blk"];
/// Modules that are loaded from it: the other devices; the power button and the files that its
/// keys are read from; the panic device.
pub(super) const MODULES: [&str; 8] = [
    "virtio_net",
    "vmw_vsock_virtio_transport",
    "virtio-rng",
    "virtio_balloon",
    "virtio_console",
    "button",
    "evdev",
    "pvpanic-mmio",
];

/// The VM that goes through everything.
const VM: &str = "a";
/// The one on the same image.
const OTHER: &str = "b";

/// Tells what was done and how long it took.
struct Steps {
    last: Instant,
}

impl Steps {
    fn done(&mut self, what: &str) {
        eprintln!("  {:5.1} s  {what}", self.last.elapsed().as_secs_f64());
        self.last = Instant::now();
    }
}

/// Runs the scenario.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    PART_NAMES
        .into_iter()
        .filter(|part| arguments.part.as_ref().is_none_or(|only| only == part))
        .try_for_each(|part| {
            run_part(part, arguments).with_context(|| format!("in the part {part}"))
        })
}

fn run_part(part: &str, arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let rig = Rig::start(arguments)?;
    let result = follow(part, &rig, start);
    if result.is_err() {
        for event in rig.host.events().unwrap_or_default() {
            eprintln!("event {event}");
        }
        for vm in [VM, OTHER] {
            let printed = rig.host.logs(vm).unwrap_or_default();
            eprintln!("{vm} printed last:\n{}", serial::end(&printed));
        }
        eprintln!("host: {}", rig.host.log());
    }
    let ratios = result?;
    rig.delete_vms()?;
    rig.stop()?;
    for (name, value) in ratios {
        let (name, unit, n) = (name, "of 1", 1);
        Measure {
            name,
            value,
            unit,
            n,
        }
        .print(arguments.json);
    }
    Ok(())
}

/// Goes through a part; returns what was measured, if anything was.
fn follow(part: &str, rig: &Rig, start: Instant) -> Result<Vec<(&'static str, f64)>> {
    let mut steps = Steps { last: start };
    steps.done("the host serves, a bridge is there, images are stored");
    let guest = rig.boot_new(VM)?;
    steps.done("Linux boots to a shell on its disk");
    match part {
        "data" => check_data(rig, guest, &mut steps)?,
        "limits" => return check_limits(rig, guest, &mut steps),
        "reset" => check_reset(rig, guest, &mut steps)?,
        "power" => check_power(rig, guest, &mut steps)?,
        other => bail!("there is no part {other}"),
    }
    Ok(Vec::new())
}

fn check_data(rig: &Rig, mut guest: Serial, steps: &mut Steps) -> Result<()> {
    step(steps, "disks", disk::check(&mut guest))?;
    step(steps, "network", net::check(rig, &mut guest))?;
    step(steps, "vsock", vsock::check(rig, &mut guest))?;
    step(steps, "entropy", entropy(&mut guest))?;
    step(steps, "virtio console", console::check(rig, &mut guest))?;
    step(steps, "pause", pause::check(rig, &mut guest))?;
    rig.devices(VM)?.none_is_broken()
}

fn check_limits(
    rig: &Rig,
    mut guest: Serial,
    steps: &mut Steps,
) -> Result<Vec<(&'static str, f64)>> {
    net::bring_up(&mut guest)?;
    let ratios = step(steps, "rate limits", limits::check(rig, &mut guest))?;
    step(steps, "balloon", balloon::check(rig, &mut guest))?;
    rig.devices(VM)?.none_is_broken()?;
    Ok(vec![
        ("rig.devices.disk-limit-before", ratios.disk_before),
        ("rig.devices.disk-limit-after", ratios.disk_after),
        ("rig.devices.disk-limit-operations", ratios.disk_operations),
        ("rig.devices.net-limit-tx", ratios.tx),
        ("rig.devices.net-limit-rx", ratios.rx),
    ])
}

fn check_reset(rig: &Rig, mut guest: Serial, steps: &mut Steps) -> Result<()> {
    disk::write_file(&mut guest)?;
    let mut guest = lifecycle::reset(rig, guest)?;
    step(steps, "reset by the guest", disk::file_is_there(&mut guest))?;
    let mut other = rig.boot_new(OTHER)?;
    disk::file_is_not_there(&mut other)?;
    drop(other);
    steps.done("another VM on the same image sees nothing of it");
    disk::image_is_untouched(rig)
}

fn check_power(rig: &Rig, guest: Serial, steps: &mut Steps) -> Result<()> {
    let guest = lifecycle::reboot(rig, guest)?;
    steps.done("reboot by the power button");
    let guest = lifecycle::panic(rig, guest)?;
    steps.done("a panic is an incident, and recovery restarts the VM");
    lifecycle::shutdown(rig, guest)?;
    steps.done("shutdown by the power button");
    Ok(())
}

fn step<T>(steps: &mut Steps, subject: &str, result: Result<T>) -> Result<T> {
    let value = result.with_context(|| format!("in the step {subject:?}"))?;
    steps.done(subject);
    Ok(value)
}

/// The kernel takes the device for its source, and it gives something new each time.
fn entropy(guest: &mut Serial) -> Result<()> {
    let current = guest.run("cat /sys/class/misc/hw_random/rng_current")?;
    anyhow::ensure!(
        current.starts_with("virtio_rng"),
        "/dev/hwrng is of {current:?}"
    );
    let draw = "dd if=/dev/hwrng bs=32 count=1 iflag=fullblock 2>/dev/null | xxd -p -c 32";
    let [first, second] = [guest.run(draw)?, guest.run(draw)?];
    anyhow::ensure!(
        first.len() == 64 && second.len() == 64 && first != second,
        "/dev/hwrng gave {first:?} and {second:?}"
    );
    Ok(())
}
