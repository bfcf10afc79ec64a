//! The scenario of the rig that uses every device: a stock Linux kernel with an ext4 root, driven
//! over its serial port as a person would, while the `roost` command line plays the operator.
//!
//! One VM, `a`, goes through it all; another one, `b`, boots from the same image in between.
//! Boots are what takes time, so there are few of them:
//!
//! | incarnation of `a` | started by | what happens in it |
//! | --- | --- | --- |
//! | 1 | `vm boot` | disks, network, vsock, entropy, limits, balloon, pause; a file; the guest resets |
//! | 2 | its own reset | the file is there; `b` does not see it; `vm reboot` presses the button |
//! | 3 | `vm reboot` | the kernel is made to panic |
//! | 4 | the recovery policy | `vm shutdown` presses the button |

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

use anyhow::{Context, Result};

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
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

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
    let start = Instant::now();
    let rig = Rig::start(arguments)?;
    let result = follow(&rig, start);
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
    rig.stop()?;
    for (name, value, unit) in [
        ("rig.devices.disk-limit-before", ratios.disk_before, "of 1"),
        ("rig.devices.disk-limit-after", ratios.disk_after, "of 1"),
        (
            "rig.devices.disk-limit-operations",
            ratios.disk_operations,
            "of 1",
        ),
        ("rig.devices.net-limit-tx", ratios.tx, "of 1"),
        ("rig.devices.net-limit-rx", ratios.rx, "of 1"),
        ("rig.devices.total", start.elapsed().as_secs_f64(), "s"),
    ] {
        Measure {
            name,
            value,
            unit,
            n: 1,
        }
        .print(arguments.json);
    }
    Ok(())
}

fn follow(rig: &Rig, start: Instant) -> Result<limits::Ratios> {
    let mut steps = Steps { last: start };
    steps.done("the host serves, a bridge is there, images are stored");
    let mut guest = rig.boot_new(VM)?;
    steps.done("Linux boots to a shell on its disk");

    step(&mut steps, "disks", disk::check(&mut guest))?;
    step(&mut steps, "network", net::check(rig, &mut guest))?;
    step(&mut steps, "vsock", vsock::check(rig, &mut guest))?;
    step(&mut steps, "entropy", entropy(&mut guest))?;
    step(
        &mut steps,
        "virtio console",
        console::check(rig, &mut guest),
    )?;
    step(&mut steps, "pause", pause::check(rig, &mut guest))?;
    let ratios = step(&mut steps, "rate limits", limits::check(rig, &mut guest))?;
    step(&mut steps, "balloon", balloon::check(rig, &mut guest))?;
    rig.devices(VM)?.none_is_broken()?;

    disk::write_file(&mut guest)?;
    let mut guest = lifecycle::reset(rig, guest)?;
    step(
        &mut steps,
        "reset by the guest",
        disk::file_is_there(&mut guest),
    )?;
    let mut other = rig.boot_new(OTHER)?;
    disk::file_is_not_there(&mut other)?;
    drop(other);
    rig.verb(&["delete", OTHER])?;
    steps.done("another VM on the same image sees nothing of it");

    let guest = lifecycle::reboot(rig, guest)?;
    steps.done("reboot by the power button");
    let guest = lifecycle::panic(rig, guest)?;
    steps.done("a panic is an incident, and recovery restarts the VM");
    lifecycle::shutdown(rig, guest)?;
    disk::image_is_untouched(rig)?;
    steps.done("shutdown by the power button");
    Ok(ratios)
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
