//! The root file systems of the emulated machine and of its guests.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::initramfs::Initramfs;
use super::packages::Kernel;
use super::{devices, modules, platform};
use crate::{process, workspace};

/// Modules that the machine's kernel needs. Debian's cloud kernel has everything else built in.
const MACHINE_MODULES: [&str; 3] = ["kvm-amd", "tun", "bridge"];

/// The Linux guest's root file system: busybox and `tests/rig/guest-init`.
pub(super) fn guest_initramfs(folder: &Path) -> Result<PathBuf> {
    let root = Initramfs::new(folder.join("guest-root"))?;
    root.write(
        "/init",
        include_bytes!("../../../tests/rig/guest-init"),
        0o755,
    )?;
    let archive = folder.join("guest.cpio");
    root.pack(&archive)?;
    Ok(archive)
}

/// The root file system of the guest that looks at its machine.
pub(super) fn platform_initramfs(folder: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let root = Initramfs::new(folder.join("platform-root"))?;
    root.write(
        "/init",
        include_bytes!("../../../tests/rig/platform-init"),
        0o755,
    )?;
    let order = add_modules(&root, "/modules", kernel, &platform::MODULES)?;
    root.write("/modules/order", order.as_bytes(), 0o644)?;
    let archive = folder.join("platform.cpio");
    root.pack(&archive)?;
    Ok(archive)
}

/// The initial RAM disk of the guest that uses its devices: it finds the disk and goes on there.
pub(super) fn devices_initramfs(folder: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let root = Initramfs::new(folder.join("devices-initrd-root"))?;
    let init = include_bytes!("../../../tests/rig/devices-initrd-init");
    root.write("/init", init, 0o755)?;
    let order = add_modules(&root, "/modules", kernel, &devices::INITRD_MODULES)?;
    root.write("/modules/order", order.as_bytes(), 0o644)?;
    let archive = folder.join("devices.cpio");
    root.pack(&archive)?;
    Ok(archive)
}

/// The image that the guest's root file system is on: ext4.
pub(super) fn devices_image(folder: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let root = Initramfs::new(folder.join("devices-root"))?;
    let init = include_bytes!("../../../tests/rig/devices-init");
    root.write("/sbin/init", init, 0o755)?;
    for mount_point in ["dev", "proc", "sys", "tmp", "root"] {
        root.directory(mount_point)?;
    }
    let order = add_modules(&root, "/modules", kernel, &devices::MODULES)?;
    root.write("/modules/order", order.as_bytes(), 0o644)?;
    let echo = folder.join("guest-echo");
    process::run(
        Command::new("cc")
            .args(["-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&echo)
            .arg(workspace::root().join("tests/rig/guest-echo.c")),
    )
    .context("tests/rig/guest-echo.c does not build: it needs a C compiler and a static libc")?;
    root.copy(&echo, Path::new("/bin/guest-echo"))?;
    let image = folder.join("devices.ext4");
    root.ext4(&image, devices::IMAGE_MIB)?;
    Ok(image)
}

/// The emulated machine's root file system, without jobs.
pub(super) fn machine_root(folder: &Path, kernel: &Kernel) -> Result<Initramfs> {
    let root = Initramfs::new(folder.join("machine-root"))?;
    root.write(
        "/init",
        include_bytes!("../../../tests/rig/machine-init"),
        0o755,
    )?;
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    root.write("/etc/passwd", passwd, 0o644)?;
    root.write("/etc/group", b"root:x:0:\nnogroup:x:65534:\n", 0o644)?;
    let order = add_modules(&root, "/rig/modules.d", kernel, &MACHINE_MODULES)?;
    root.write("/rig/modules", order.as_bytes(), 0o644)?;
    Ok(root)
}

/// Puts `wanted` and what they depend on into `folder` of `root`; returns their names in the order
/// in which they can be loaded, one a line.
fn add_modules(root: &Initramfs, folder: &str, kernel: &Kernel, wanted: &[&str]) -> Result<String> {
    let mut order = String::new();
    for module in modules::load_order(&kernel.modules, wanted)? {
        let name = format!("{}.ko", module.name);
        root.write(&format!("{folder}/{name}"), &module.content, 0o644)?;
        order.push_str(&name);
        order.push('\n');
    }
    Ok(order)
}
