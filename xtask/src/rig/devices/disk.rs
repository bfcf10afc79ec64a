//! Disks: a layer of the VM's own over a shared image, the image itself read-only, a blank one.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::IMAGE_MIB;
use super::host::Rig;
use super::serial::Serial;
use crate::process;

/// A file that is written before a reset and looked for after it.
const FILE: &str = "/root/kept";
/// What is in it: more than one block of the file system.
const CONTENT: &str = "seq 1 20000";

/// What the guest finds, and that each disk does what its spec says.
pub(super) fn check(guest: &mut Serial) -> Result<()> {
    let mounted = guest.run("grep ' / ' /proc/mounts | tail -n 1")?;
    ensure!(
        mounted.starts_with("/dev/vda / ext4 rw"),
        "the root file system is {mounted:?}"
    );
    let cpus = guest.number("nproc")?;
    ensure!(cpus == 2, "the guest has {cpus} CPUs instead of 2");
    for (disk, serial, read_only, mib) in [
        ("vda", "root", 0, 64),
        ("vdb", "shared", 1, IMAGE_MIB),
        ("vdc", "data", 0, 64),
    ] {
        let facts = guest.run(&format!(
            "cd /sys/block/{disk}; echo $(cat serial) $(cat ro size); cd /"
        ))?;
        // The size of a disk is in sectors of 512 bytes, whatever its blocks are.
        let expected = format!("{serial} {read_only} {}", mib * 2048);
        ensure!(facts == expected, "{disk} is {facts:?}, not {expected:?}");
    }
    let (status, output) =
        guest.status_of("dd if=/dev/zero of=/dev/vdb bs=4k count=1 conv=fsync 2>&1")?;
    ensure!(
        status != 0,
        "a disk that is read-only was written to: {output}"
    );
    // Past the kernel's cache in both directions.
    guest.run("seq 1 5000 >/tmp/pattern; truncate -s 32768 /tmp/pattern")?;
    guest.run("dd if=/tmp/pattern of=/dev/vdc bs=32k oflag=direct conv=fsync 2>/dev/null")?;
    guest.run("dd if=/dev/vdc of=/tmp/back bs=32k count=1 iflag=direct 2>/dev/null")?;
    guest.run("cmp /tmp/pattern /tmp/back")?;
    Ok(())
}

/// Writes the file, down to the disk.
pub(super) fn write_file(guest: &mut Serial) -> Result<()> {
    guest.run(&format!("{CONTENT} >{FILE}; sync")).map(drop)
}

/// The file survived, and so did its content.
pub(super) fn file_is_there(guest: &mut Serial) -> Result<()> {
    guest.run(&format!("{CONTENT} | cmp - {FILE}")).map(drop)
}

/// There is no such file on a VM of the same image, which can make one of its own.
pub(super) fn file_is_not_there(guest: &mut Serial) -> Result<()> {
    guest.run(&format!("[ ! -e {FILE} ]"))?;
    guest.run(&format!("echo another >{FILE}; sync")).map(drop)
}

/// After all that was written, every image still has the digest that it is called after.
pub(super) fn image_is_untouched(rig: &Rig) -> Result<()> {
    let images = rig.host.items(&["image", "list"])?;
    ensure!(
        images.len() == 3,
        "three images, and these are stored: {images:?}"
    );
    for image in images {
        let digest = image["digest"].as_str().unwrap_or_default();
        let name = digest.strip_prefix("sha256:").context("no digest")?;
        let sum = process::output(Command::new("sha256sum").arg(rig.blobs().join(name)))?;
        ensure!(sum.starts_with(name), "{digest} has changed: {sum}");
    }
    Ok(())
}
