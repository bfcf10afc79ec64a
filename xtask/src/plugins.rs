//! `cargo xtask plugins`: the policies of `plugins/`, built to WebAssembly components.
//!
//! There are two ways. A toolchain that has, or can get, the standard library of the target only
//! needs `cargo build`. Where none can be had, the distribution's compiler comes with the sources
//! of its own standard library and builds it as a part of the policies. The order below tries
//! what is there before what must be fetched, so that a machine without the first way does not
//! wait for the network each time.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{distribution, process, workspace};

const TARGET: &str = "wasm32-unknown-unknown";
/// Makes a component of what it links. It comes with the toolchain.
const LINKER: &str = "wasm-component-ld";
/// The distribution's compiler.
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";
/// Debian's packages with a current compiler and its sources.
const PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];
/// What would change how the policies are built, and is meant for other builds.
const FOREIGN: [&str; 7] = [
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
];

/// How the standard library of the target is come by.
enum Way {
    /// The toolchain has it.
    Toolchain,
    /// The distribution's compiler builds its own.
    Distribution,
}

/// The toolchain that runs us.
struct Toolchain {
    /// The folder of its linkers.
    linkers: PathBuf,
    /// Where the target's standard library is, if it is there.
    library: PathBuf,
}

/// Builds every policy into `plugins/target/components`. Files that would not change are left
/// alone, so that nothing is built again because of them.
///
/// # Errors
/// There is no way to build for WebAssembly here (the message says what to install), or the
/// build fails.
pub(crate) fn build() -> Result<()> {
    let toolchain = Toolchain::find()?;
    let way = toolchain.way()?;
    let plugins = workspace::root().join("plugins");
    let target = plugins.join("target");
    match way {
        Way::Toolchain => eprintln!("building the policies"),
        Way::Distribution => {
            eprintln!(
                "building the policies with the distribution's compiler (the first time also \
                 the standard library for WebAssembly: about a minute)"
            );
        }
    }
    let mut command = workspace::cargo();
    command
        .args(["build", "--release", "--quiet", "--workspace"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(&plugins)
        .env("CARGO_TARGET_DIR", &target)
        .env("PATH", toolchain.path()?);
    for name in FOREIGN {
        command.env_remove(name);
    }
    if let Way::Distribution = way {
        command
            .arg("-Zbuild-std=std,panic_abort")
            .env("RUSTC", DISTRIBUTION_RUSTC)
            .env("RUSTC_BOOTSTRAP", "1");
    }
    let components = target.join("components");
    fs::create_dir_all(&components)
        .with_context(|| format!("cannot make {}", components.display()))?;
    for built in components_of(&messages(&mut command)?) {
        let stem = built.file_stem().unwrap_or_default().to_string_lossy();
        let name = stem.replace('_', "-");
        if copy(&built, &components.join(format!("{name}.wasm")))? {
            eprintln!("  {name}");
        }
    }
    Ok(())
}

impl Toolchain {
    fn find() -> Result<Self> {
        let print = |arguments: &[&str]| {
            let folder = process::output(Command::new("rustc").args(arguments))?;
            Ok::<_, anyhow::Error>(PathBuf::from(folder.trim()))
        };
        // …/lib/rustlib/<this machine>/lib has its linkers in a folder beside it.
        let mut linkers = print(&["--print", "target-libdir"])?;
        linkers.set_file_name("bin");
        let library = print(&["--print", "target-libdir", "--target", TARGET])?;
        Ok(Self { linkers, library })
    }

    fn has_target(&self) -> bool {
        self.library.is_dir()
    }

    /// The search path with the toolchain's linkers before all else.
    fn path(&self) -> Result<OsString> {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = [self.linkers.clone()]
            .into_iter()
            .chain(env::split_paths(&path));
        env::join_paths(folders).context("the toolchain is in a folder with a ':' in its name")
    }

    /// Finds a way to build for WebAssembly, and installs what it needs.
    fn way(&self) -> Result<Way> {
        let has_linker = self.linkers.join(LINKER).is_file() || process::find(LINKER).is_some();
        if !has_linker {
            bail!(
                "{LINKER} is neither in {} nor in PATH; it comes with toolchains that rustup \
                 installs, or by `cargo install {LINKER}`",
                self.linkers.display()
            );
        }
        if self.has_target() {
            return Ok(Way::Toolchain);
        }
        if distribution_has_sources() {
            return Ok(Way::Distribution);
        }
        if process::find("rustup").is_some() {
            eprintln!("adding the target {TARGET} to the toolchain");
            let added = process::run(Command::new("rustup").args(["target", "add", TARGET]));
            match added {
                Ok(()) if self.has_target() => return Ok(Way::Toolchain),
                Ok(()) => eprintln!("  rustup added it to another toolchain than this one"),
                Err(error) => eprintln!("  that did not work: {error:#}"),
            }
        }
        install()?;
        Ok(Way::Distribution)
    }
}

/// Whether the distribution's compiler is there with the sources of its standard library. Those
/// of another version would not do.
fn distribution_has_sources() -> bool {
    let print = process::output(Command::new(DISTRIBUTION_RUSTC).args(["--print", "sysroot"]));
    print.is_ok_and(|sysroot| {
        let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
        library.join("std/Cargo.toml").is_file()
    })
}

/// Installs the distribution's compiler with its sources.
fn install() -> Result<()> {
    distribution::install(
        &format!("a toolchain that `rustup target add {TARGET}` does not help"),
        &PACKAGES,
    )?;
    if !distribution_has_sources() {
        let list = PACKAGES.join(" ");
        bail!("{list} are installed, but {DISTRIBUTION_RUSTC} has no sources of its library");
    }
    Ok(())
}

/// Runs a build and returns what cargo says about it, one JSON object a line. Diagnostics go to
/// our own standard error.
fn messages(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the policies do not build");
    }
    String::from_utf8(output.stdout).context("cargo printed something else than UTF-8")
}

/// The `.wasm` files among the artifacts that cargo names, whether they were built or fresh.
fn components_of(messages: &str) -> Vec<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default())
        .filter_map(|name| name.as_str().map(PathBuf::from))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "wasm")
        })
        .collect()
}

/// Copies a file unless the copy is there already; says whether it did. Whoever reads the copy
/// meanwhile reads either the old or the new one.
fn copy(from: &Path, to: &Path) -> Result<bool> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    let partial = to.with_extension("partial");
    fs::write(&partial, bytes).with_context(|| format!("cannot write {}", partial.display()))?;
    fs::rename(&partial, to).with_context(|| format!("cannot make {}", to.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_components_among_the_artifacts_are_taken() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","filenames":["/t/liba.rlib","/t/a_b.wasm"]}"#,
            "\nnot JSON\n",
            r#"{"reason":"build-script-executed","filenames":["/t/c.wasm"]}"#,
        );
        assert_eq!(components_of(messages), [PathBuf::from("/t/a_b.wasm")]);
    }

    #[test]
    fn a_copy_that_would_change_nothing_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to.wasm"));
        fs::write(&from, "1").unwrap();
        assert!(copy(&from, &to).unwrap());
        assert!(!copy(&from, &to).unwrap());
        fs::write(&from, "2").unwrap();
        assert!(copy(&from, &to).unwrap());
        assert_eq!(fs::read(&to).unwrap(), b"2");
    }
}
