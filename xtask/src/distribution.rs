//! Packages of the machine's distribution: installed where `apt-get` is there and we are root,
//! else named.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// Whether we may install anything.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `apt-get`, that asks nothing.
pub(crate) fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .args(["-q", "-y", "-o", "Dpkg::Use-Pty=0"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Installs `packages` (Debian's names).
///
/// # Errors
/// We are not root, or there is no `apt-get`: the message says that `who` needs the packages, and
/// how to install them. Or `apt-get` fails.
pub(crate) fn install(who: &str, packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if !is_root() || process::find("apt-get").is_none() {
        bail!(
            "{who} needs these packages (Debian's names): {list}; install them, for example with \
             `sudo apt-get install --no-install-recommends {list}`, and run this again"
        );
    }
    eprintln!("installing {list}");
    process::run(&mut apt_get(&["update"]))?;
    process::run(apt_get(&["install", "--no-install-recommends"]).args(packages))
}
