//! What the rig needs from the distribution: programs, and a stock kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::distribution::{self, apt_get, is_root};
use crate::process;

/// Programs that the rig uses, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 4] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("mke2fs", "e2fsprogs"),
];

/// The meta-package that names the newest stock cloud kernel.
const KERNEL_META_PACKAGE: &str = "linux-image-cloud-amd64";

/// A stock kernel and its modules.
pub(crate) struct Kernel {
    /// Its version, as `uname -r` says it.
    pub(crate) version: String,
    /// The bzImage.
    pub(crate) image: PathBuf,
    /// The folder with its modules.
    pub(crate) modules: PathBuf,
}

impl Kernel {
    /// The kernel that was unpacked into `folder`, if one was.
    fn unpacked(folder: &Path) -> Option<Self> {
        let entry = fs::read_dir(folder.join("lib/modules"))
            .ok()?
            .find_map(Result::ok)?;
        let version = entry.file_name().into_string().ok()?;
        let image = folder.join("boot").join(format!("vmlinuz-{version}"));
        image.is_file().then(|| Self {
            modules: entry.path(),
            version,
            image,
        })
    }
}

/// Busybox goes into machines that have no shared libraries.
fn is_static(program: &Path) -> bool {
    Command::new("ldd")
        .arg(program)
        .output()
        .is_ok_and(|output| !output.status.success())
}

fn missing_packages() -> Vec<&'static str> {
    PROGRAMS
        .into_iter()
        .filter(|(program, _)| {
            process::find(program).is_none_or(|path| *program == "busybox" && !is_static(&path))
        })
        .map(|(_, package)| package)
        .collect()
}

/// Installs the programs that are missing.
///
/// # Errors
/// Some are missing and we are not root, or there is no `apt-get`; the message lists them.
pub(crate) fn install() -> Result<()> {
    let missing = missing_packages();
    if missing.is_empty() {
        return Ok(());
    }
    distribution::install("the rig", &missing)?;
    let still = missing_packages();
    if !still.is_empty() {
        bail!(
            "apt-get installed {}, but these are still not found: {}",
            missing.join(" "),
            still.join(" ")
        );
    }
    Ok(())
}

/// The kernel package that the meta-package depends on, from apt's lists.
fn newest_kernel_package() -> Option<String> {
    let text = process::output(Command::new("apt-cache").args(["depends", KERNEL_META_PACKAGE]));
    text.ok()?
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .filter(|package| package.starts_with("linux-image-"))
        .map(str::to_owned)
}

fn download(package: &str, folder: &Path) -> Result<()> {
    process::run(apt_get(&["download", package]).current_dir(folder))
}

/// The stock kernel, downloaded once and kept in `folder`.
///
/// # Errors
/// There is no `apt-get` to download it with, or the download or unpacking fails.
pub(crate) fn kernel(folder: &Path) -> Result<Kernel> {
    let unpacked = folder.join("kernel");
    if let Some(kernel) = Kernel::unpacked(&unpacked) {
        return Ok(kernel);
    }
    let by_hand = format!(
        "download Debian's package linux-image-<version>-cloud-amd64, unpack it with \
         `dpkg -x <package> {}`, and run this again",
        unpacked.display()
    );
    if process::find("apt-get").is_none() {
        bail!("the rig needs a stock kernel and there is no apt-get to get it with: {by_hand}");
    }
    let partial = folder.join("kernel.partial");
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial)?;
    // The lists may be empty or so old that the server no longer has the package.
    let downloaded = match newest_kernel_package() {
        Some(package) => {
            eprintln!("downloading {package}");
            download(&package, &partial).is_ok()
        }
        None => false,
    };
    if !downloaded {
        if !is_root() {
            bail!(
                "apt's lists name no kernel that can be downloaded: run `sudo apt-get update`, or {by_hand}"
            );
        }
        process::run(&mut apt_get(&["update"]))?;
        let package = newest_kernel_package()
            .with_context(|| format!("apt has no package {KERNEL_META_PACKAGE}: {by_hand}"))?;
        eprintln!("downloading {package}");
        download(&package, &partial)?;
    }
    let package = fs::read_dir(&partial)?
        .find_map(|entry| {
            Some(entry.ok()?.path()).filter(|p| p.extension() == Some("deb".as_ref()))
        })
        .context("apt-get download left no package")?;
    let tree = partial.join("tree");
    process::run(Command::new("dpkg").arg("-x").arg(&package).arg(&tree))?;
    fs::rename(&tree, &unpacked)?;
    fs::remove_dir_all(&partial)?;
    Kernel::unpacked(&unpacked)
        .with_context(|| format!("{} holds no kernel after unpacking", unpacked.display()))
}
