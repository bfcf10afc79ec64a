//! The scenario of the rig: a stock Linux kernel as a guest of our own host, from boot to reset.
//!
//! It drives the `roost` binary as a user does, so the same code runs on a machine with hardware
//! virtualization and in the emulated one.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::json;

use crate::host::Host;
use crate::measure::Measure;

/// Interpreted twice over, a kernel takes a while.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// From the guest's last line to a stopped VM.
const RESET_LIMIT: Duration = Duration::from_secs(60);
/// What `tests/rig/guest-init` says when it runs.
pub(crate) const GUEST_IS_UP: &str = "guest-init: up";
/// Serial console; reset by the keyboard controller, of which there is no more than that: the
/// kernel need not wait for the rest of it.
pub(crate) const CMDLINE: &str = "console=ttyS0 reboot=k panic=1 rig=linux-guest \
    i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd";
/// Memory of the guest, MiB.
const MEMORY_MIB: u64 = 256;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The roost binary
    #[arg(long)]
    roost: PathBuf,
    /// The guest's kernel, a bzImage
    #[arg(long)]
    kernel: PathBuf,
    /// The guest's initial RAM disk, with tests/rig/guest-init as /init
    #[arg(long)]
    initrd: PathBuf,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Boots the guest and follows it to its reset.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let data = scratch.path().join("data");
    let mut host = Host::start(&arguments.roost, &data, &scratch.path().join("host.log"))?;
    let memory = MEMORY_MIB.to_string();
    host.json(&[
        "vm",
        "create",
        "--name",
        "linux",
        "--kernel",
        &arguments.kernel.to_string_lossy(),
        "--initrd",
        &arguments.initrd.to_string_lossy(),
        "--memory",
        &memory,
        "--cmdline",
        CMDLINE,
    ])?;
    let asked = Instant::now();
    host.json(&["vm", "boot", "linux"])?;
    let mut init_after = None;
    // A guest that ends early may be restarted, and its output is gone then.
    let mut printed = String::new();
    let limit = BOOT_LIMIT + RESET_LIMIT;
    // Following does not end before the guest does, and takes no CPU time from it as asking would.
    let followed = host.follow_logs("linux", limit, |line| {
        printed.push_str(line);
        printed.push('\n');
        if line.contains(GUEST_IS_UP) {
            init_after = Some(asked.elapsed());
        }
        if line.contains("guest-init: ") {
            eprintln!("{line}");
        }
    });
    let Some(init_after) = init_after else {
        eprintln!("{printed}");
        for event in host.events().unwrap_or_default() {
            eprintln!("event {event}");
        }
        eprintln!("host: {}", host.log());
        bail!(
            "the guest's /init never printed; the VM is {}; following its output {}",
            host.vm("linux")?["state"],
            followed.map_or_else(
                |error| format!("failed: {error:#}"),
                |()| "ended".to_owned()
            )
        );
    };
    followed?;
    let record = host.wait_for_state("linux", "stopped", RESET_LIMIT)?;
    let stopped_after = asked.elapsed();

    let logs = host.logs("linux")?;
    ensure!(
        logs.contains(&format!("guest-init: cmdline {CMDLINE}")),
        "the guest's command line is not the one that was given:\n{logs}"
    );
    ensure!(
        record["incarnation"] == 1,
        "the guest was started again: {record}"
    );
    ensure!(
        record["worker"].is_null(),
        "a stopped VM still has a worker: {record}"
    );
    let events = host.events()?;
    ensure!(
        events
            .iter()
            .any(|event| event["kind"] == "guest-exited" && event["exit"] == "reset"),
        "no event says that the guest reset the machine: {}",
        json!(events)
    );
    ensure!(
        !events
            .iter()
            .any(|event| event["kind"] == "incident-opened"),
        "the guest's own reset was taken for an incident: {}",
        json!(events)
    );
    host.json(&["vm", "delete", "linux"])?;
    ensure!(
        host.items(&["vm", "list"])?.is_empty(),
        "a deleted VM is still listed"
    );
    host.stop()?;

    for (name, elapsed) in [
        ("rig.linux-guest.init", init_after),
        ("rig.linux-guest.stopped", stopped_after),
    ] {
        Measure {
            name,
            value: elapsed.as_secs_f64(),
            unit: "s",
            n: 1,
        }
        .print(arguments.json);
    }
    Ok(())
}
