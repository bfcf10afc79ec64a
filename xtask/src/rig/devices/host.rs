//! The host's side: `roost serve`, a bridge, the images, and a spec file with every device.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::serial::Serial;
use super::{Arguments, console};
use crate::host::Host;
use crate::process;

/// The bridge that guests are attached to.
const BRIDGE: &str = "rigbr0";
/// The host's address on it, and how long its network prefix is.
pub(super) const HOST_ADDRESS: &str = "10.77.0.1";
const PREFIX: &str = "/24";
/// Memory of a guest, MiB.
const MEMORY_MIB: u64 = 256;
/// What the spec lets the guest read and write on its disk `data`, bytes a second: little, so that
/// an emulated machine can do several times as much.
pub(super) const DATA_LIMIT: u64 = 128 << 10;
/// Little is printed, because each byte on a serial port costs; reset by the keyboard controller,
/// of which there is no more than that: the kernel need not wait for the rest of it.
const CMDLINE: &str = "console=ttyS0 quiet reboot=k panic=1 i8042.noaux i8042.nomux i8042.nopnp \
    i8042.dumbkbd";
/// How long a verb or the host's answer to an event may take.
const LIMIT: Duration = Duration::from_secs(120);

/// The host, and everything that it was given.
pub(super) struct Rig {
    pub(super) host: Host,
    scratch: TempDir,
}

impl Rig {
    /// Makes the bridge, starts the host and stores the images.
    pub(super) fn start(arguments: &Arguments) -> Result<Self> {
        let ip = |words: &[&str]| {
            let ip = process::find("ip").context("there is no `ip` (Debian: iproute2)")?;
            process::run(Command::new(ip).args(words))
        };
        ip(&["link", "add", "name", BRIDGE, "type", "bridge"])?;
        let address = format!("{HOST_ADDRESS}{PREFIX}");
        ip(&["addr", "add", &address, "dev", BRIDGE])?;
        ip(&["link", "set", BRIDGE, "up"])?;

        let scratch = tempfile::tempdir()?;
        let data = scratch.path().join("data");
        let log = scratch.path().join("host.log");
        let host = Host::start(&arguments.roost, &data, &log)?;
        for (file, tag) in [
            (&arguments.kernel, "linux:rig"),
            (&arguments.initrd, "initrd:rig"),
            (&arguments.image, "root:rig"),
        ] {
            host.json(&["image", "push", &file.to_string_lossy(), "--tag", tag])?;
        }
        Ok(Self { host, scratch })
    }

    /// Creates a VM from the spec file, which has a device of each kind, and boots it to its shell.
    pub(super) fn boot_new(&self, name: &str) -> Result<Serial> {
        let spec = self.spec_file()?;
        let spec = spec.to_string_lossy();
        self.host
            .json(&["vm", "create", "--spec", &spec, "--name", name])?;
        self.verb(&["boot", name])?;
        Serial::attach(&self.host, name)
    }

    fn spec_file(&self) -> Result<PathBuf> {
        let file = self.scratch.path().join("spec.json");
        let spec = json!({
            "kernel": "linux:rig",
            "initrd": "initrd:rig",
            "cmdline": CMDLINE,
            "vcpus": 2,
            "memory_mib": MEMORY_MIB,
            "on_reset": "reboot",
            "disks": [
                { "name": "root", "image": "root:rig", "size_mib": 64 },
                { "name": "shared", "image": "root:rig", "read_only": true },
                {
                    "name": "data",
                    "size_mib": 64,
                    "limits": { "bytes": { "per_second": DATA_LIMIT } },
                },
            ],
            "networks": [{ "name": "eth0", "bridge": BRIDGE }],
            "vsock": true,
            "rng": true,
            "balloon": { "deflate_on_oom": true },
            "console": true,
            "console_ports": ["log", console::PORT],
        });
        fs::write(&file, serde_json::to_vec_pretty(&spec)?)?;
        Ok(file)
    }

    /// Carries out `roost vm <words>` and waits for its end.
    pub(super) fn verb(&self, words: &[&str]) -> Result<()> {
        let limit = LIMIT.as_secs().to_string();
        let words = [&["vm"], words, &["--timeout", &limit]].concat();
        let operation = self.host.json(&words)?;
        ensure!(
            operation["status"] == "succeeded",
            "`roost {}`: {operation}",
            words.join(" ")
        );
        Ok(())
    }

    /// Waits until a VM runs in its incarnation number `incarnation`, and for the shell in there.
    pub(super) fn next_shell(&self, vm: &str, incarnation: u64) -> Result<Serial> {
        let what = format!("{vm} runs in incarnation {incarnation}");
        self.host.wait(&what, LIMIT, |host| {
            let record = host.vm(vm)?;
            let there = record["incarnation"] == incarnation && record["state"] == "running";
            Ok(there.then_some(()))
        })?;
        Serial::attach(&self.host, vm)
    }

    /// The directory of a VM's sockets.
    pub(super) fn run_directory(&self, vm: &str) -> Result<PathBuf> {
        let record = self.host.vm(vm)?;
        let id = record["id"].as_str().context("a record has no id")?;
        Ok(self.host.data().join("run").join(id))
    }

    /// What the devices of a VM report.
    pub(super) fn devices(&self, vm: &str) -> Result<Devices> {
        self.host.json(&["vm", "devices", vm]).map(Devices)
    }

    /// The folder in which the host keeps images, each called after its digest.
    pub(super) fn blobs(&self) -> PathBuf {
        self.host.data().join("blobs")
    }

    /// Deletes every VM: workers outlive the host.
    pub(super) fn delete_vms(&self) -> Result<()> {
        for record in self.host.items(&["vm", "list"])? {
            let id = record["id"].as_str().context("a record has no id")?;
            self.verb(&["delete", id])?;
        }
        Ok(())
    }

    /// Ends the host and takes the bridge away.
    pub(super) fn stop(mut self) -> Result<()> {
        self.host.stop()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // In a namespace of its own, or in the emulated machine, it would go away by itself.
        if let Some(ip) = process::find("ip") {
            let _ = process::run(Command::new(ip).args(["link", "delete", BRIDGE]));
        }
    }
}

/// A report of `roost vm devices`.
pub(super) struct Devices(Value);

impl Devices {
    /// A counter of a device.
    pub(super) fn counter(&self, device: &str, counter: &str) -> Result<u64> {
        self.0["devices"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|candidate| candidate["device"] == device)
            .and_then(|found| found["counters"][counter].as_u64())
            .with_context(|| format!("{device} has no counter {counter}: {}", self.0))
    }

    /// What the guest has given by its balloon, bytes.
    pub(super) fn balloon_bytes(&self) -> Result<u64> {
        self.0["balloon"]["actual_bytes"]
            .as_u64()
            .with_context(|| format!("there is no balloon: {}", self.0))
    }

    /// Fails if a driver confused its device.
    pub(super) fn none_is_broken(&self) -> Result<()> {
        let devices = self.0["devices"].as_array().context("no devices")?;
        ensure!(
            devices.iter().all(|device| device["broken"].is_null()),
            "a device is broken: {}",
            self.0
        );
        Ok(())
    }
}
