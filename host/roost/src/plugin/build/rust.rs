//! Rust: cargo, with the linker that comes with it.
//!
//! Debian's compiler has no standard library for WebAssembly but can come with the sources of its
//! own; where rustup's has none either, it is built from those.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{find, place, run};
use crate::plugin::project::Project;

const TARGET: &str = "wasm32-unknown-unknown";
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";

pub(super) fn build(project: &Project) -> Result<()> {
    let Some(cargo) = find(project, &["cargo"]) else {
        bail!("cargo is not in PATH: install Rust from https://rustup.rs");
    };
    let sysroot = |rustc: &str| Some(PathBuf::from(print(project, rustc, "sysroot")?));
    let toolchain = sysroot("rustc").context("rustc does not say where it is")?;
    let mut command = Command::new(&cargo);
    command
        .args(["build", "--release", "--quiet", "--target", TARGET])
        // The linker is beside the compiler, where cargo looks only if it is rustup's.
        .env("PATH", with_linkers(&toolchain)?);
    if !toolchain.join("lib/rustlib").join(TARGET).is_dir() {
        let distribution = sysroot(DISTRIBUTION_RUSTC);
        if !distribution.is_some_and(|root| root.join("lib/rustlib/src/rust/library").is_dir()) {
            bail!("the target is not there: run `rustup target add {TARGET}`");
        }
        command
            .arg("-Zbuild-std=std,panic_abort")
            .env("RUSTC", DISTRIBUTION_RUSTC)
            .env("RUSTC_BOOTSTRAP", "1");
    }
    run(project, &mut command)?;
    place(project, &built(project, &cargo)?)
}

/// What `rustc --print` says.
fn print(project: &Project, rustc: &str, what: &str) -> Option<String> {
    let mut command = Command::new(rustc);
    command.args(["--print", what]).current_dir(&project.folder);
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

fn with_linkers(toolchain: &Path) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let machine = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let linkers = toolchain.join("lib/rustlib").join(machine).join("bin");
    let folders = [linkers].into_iter().chain(env::split_paths(&path));
    env::join_paths(folders).context("the toolchain is in a folder with a ':' in its name")
}

/// Where cargo put the component.
fn built(project: &Project, cargo: &Path) -> Result<PathBuf> {
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version=1"])
        .current_dir(&project.folder)
        .output()
        .context("cargo can't be run")?;
    let metadata: Value =
        serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
    let target = metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target_directory")?;
    let name = metadata["packages"]
        .as_array()
        .and_then(|packages| packages.iter().find(|package| is_root(package, &metadata)))
        .and_then(|package| package["name"].as_str())
        .unwrap_or(&project.manifest.name);
    let file = format!("{}.wasm", name.replace('-', "_"));
    Ok(Path::new(target).join(TARGET).join("release").join(file))
}

fn is_root(package: &Value, metadata: &Value) -> bool {
    let root = metadata["workspace_root"].as_str().unwrap_or_default();
    let manifest = package["manifest_path"].as_str().unwrap_or_default();
    Path::new(manifest).parent() == Some(Path::new(root))
}
