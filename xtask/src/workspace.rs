//! Where things are in the repository, and cargo.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{plugins, process};

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// `cargo`, the one that runs us, in the root of the repository.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The target triple of this machine, which stands in `rustc -vV`.
///
/// # Errors
/// There is no compiler.
pub(crate) fn native_target() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = process::output(Command::new(rustc).arg("-vV"))?;
    version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("rustc -vV names no host")
}

/// The folder that cargo builds into.
///
/// # Errors
/// `cargo metadata` fails.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let text = process::output(cargo().args(["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    metadata["target_directory"]
        .as_str()
        .map(PathBuf::from)
        .context("cargo metadata names no target_directory")
}

/// Builds the policies and the `roost` binary, which embeds them; returns where that is.
///
/// # Errors
/// The build fails.
pub(crate) fn build_roost(release: bool) -> Result<PathBuf> {
    let profile = if release { "release" } else { "debug" };
    plugins::build()?;
    eprintln!("building roost ({profile})");
    let mut build = cargo();
    build.args(["build", "--package", "roost"]);
    if release {
        build.arg("--release");
    }
    process::run(&mut build)?;
    Ok(target_directory()?.join(profile).join("roost"))
}

/// Builds the example of `roost-vmm` that boots a Linux kernel, with the features that the whole
/// workspace and its tests have: what those built is not built again.
///
/// # Errors
/// The build fails.
pub(crate) fn build_vmm_example(release: bool) -> Result<PathBuf> {
    let profile = if release { "release" } else { "debug" };
    let mut build = cargo();
    build.args(["build", "--workspace", "--example", "linux"]);
    if release {
        build.arg("--release");
    }
    process::run(&mut build)?;
    Ok(target_directory()?.join(profile).join("examples/linux"))
}

/// An executable that cargo built.
pub(crate) struct Built {
    /// Where it is.
    pub(crate) executable: PathBuf,
    /// The package's name.
    pub(crate) package: String,
    /// The package's folder, in which cargo starts tests.
    pub(crate) folder: PathBuf,
    /// The target's name.
    pub(crate) name: String,
    /// A test, rather than a program that a test starts.
    pub(crate) test: bool,
}

/// Builds the tests of the whole workspace, and the programs that they start. Dependencies have
/// other features in a build of some packages alone, and would be built once more for that.
///
/// # Errors
/// The build fails.
pub(crate) fn build_tests() -> Result<Vec<Built>> {
    let output = cargo()
        .args([
            "test",
            "--workspace",
            "--no-run",
            "--message-format=json-render-diagnostics",
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("`cargo test --no-run` ended with {}", output.status);
    }
    let mut built = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: Value = serde_json::from_str(line)
            .with_context(|| format!("cargo printed a line that is no JSON: {line:?}"))?;
        let (Some(executable), Some(package), Some(manifest), Some(name)) = (
            message["executable"].as_str(),
            message["package_id"].as_str().and_then(package_name),
            message["manifest_path"].as_str(),
            message["target"]["name"].as_str(),
        ) else {
            continue;
        };
        built.push(Built {
            executable: executable.into(),
            package: package.to_owned(),
            folder: Path::new(manifest)
                .parent()
                .unwrap_or(Path::new("/"))
                .to_owned(),
            name: name.to_owned(),
            test: message["profile"]["test"] == true,
        });
    }
    Ok(built)
}

/// The name in a package id specification, which leaves it out where it is the folder's.
fn package_name(id: &str) -> Option<&str> {
    let (place, version) = id.rsplit_once('#')?;
    match version.split_once('@') {
        Some((name, _)) => Some(name),
        None => place.rsplit('/').next(),
    }
}

/// The `roost` binary that the tests of the whole workspace use: after them, this builds nothing.
///
/// # Errors
/// The build fails.
pub(crate) fn tested_roost() -> Result<PathBuf> {
    plugins::build()?;
    build_tests()?
        .into_iter()
        .find(|built| built.name == "roost" && !built.test)
        .map(|built| built.executable)
        .context("the tests of the workspace use no `roost` binary")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_by_its_id_or_its_folder() {
        for (id, name) in [
            (
                "path+file:///roost/host/api#roost-api@0.1.0",
                Some("roost-api"),
            ),
            ("path+file:///roost/host/roost#0.1.0", Some("roost")),
            ("roost", None),
        ] {
            assert_eq!(package_name(id), name);
        }
    }
}
