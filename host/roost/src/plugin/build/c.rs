//! C: bindings are generated here, zig or clang compiles, and the component is made here too.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};
use wit_bindgen_core::Files;
use wit_component::ComponentEncoder;
use wit_parser::Resolve;

use super::{find, run};
use crate::plugin::project::Project;

/// How a policy fails so that the operator reads why.
const FAIL: &str = include_str!("notes/roost.h");
/// What zig is called: by itself, and as it comes from PyPI.
const ZIG: [&str; 2] = ["zig", "python-zig"];

pub(super) fn build(project: &Project) -> Result<()> {
    let bindings = generate(project)?;
    let folder = project.folder.join("bindings");
    fs::create_dir_all(&folder).with_context(|| format!("{} can't be made", folder.display()))?;
    let mut sources = vec!["policy.c".to_owned()];
    for (name, content) in bindings.iter() {
        let path = folder.join(name);
        fs::write(&path, content)
            .with_context(|| format!("{} can't be written", path.display()))?;
        if !name.ends_with(".h") {
            sources.push(format!("bindings/{name}"));
        }
    }
    let header = folder.join("roost.h");
    fs::write(&header, FAIL).with_context(|| format!("{} can't be written", header.display()))?;
    let Some(zig) = find(project, &ZIG) else {
        bail!(
            "no zig is there: install it from https://ziglang.org, or run `python3 -m venv .venv && \
             .venv/bin/pip install ziglang` in the project's folder"
        );
    };
    let core = "bindings/core.wasm";
    let mut command = Command::new(zig);
    command
        .args(["cc", "--target=wasm32-wasi", "-mexec-model=reactor"])
        .args([
            "-Os",
            "-Wall",
            "-Wl,--strip-all,--stack,65536",
            "-Ibindings",
            "-o",
            core,
        ])
        .args(&sources);
    run(project, &mut command)?;
    let core = fs::read(project.folder.join(core)).context("zig made nothing")?;
    let component = component(&core)?;
    let file = project.component();
    fs::write(&file, component).with_context(|| format!("{} can't be written", file.display()))
}

/// The bindings of the project's world: a header, a source, and an object that carries the types.
fn generate(project: &Project) -> Result<Files> {
    let wit = project.folder.join("wit");
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_dir(&wit)
        .map_err(|error| anyhow!("{} is no WIT: {error:#}", wit.display()))?;
    let world = resolve
        .select_world(&[package], Some(&project.manifest.world))
        .map_err(|error| anyhow!("{error:#}"))?;
    let mut files = Files::default();
    wit_bindgen_c::Opts::default()
        .build()
        .generate(&mut resolve, world, &mut files)
        .map_err(|error| anyhow!("no bindings for {}: {error:#}", project.manifest.world))?;
    Ok(files)
}

/// A component of a core module that carries its types. What is left of WASI would be refused by a
/// host, so the encoder may refuse it first.
fn component(core: &[u8]) -> Result<Vec<u8>> {
    ComponentEncoder::default()
        .module(core)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| anyhow!("the module can't be made a component: {error:#}"))
}
