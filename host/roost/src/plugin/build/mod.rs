//! `roost plugin build`: a component of a project, with the tools of its language.
//!
//! What is not here is named, with the command that installs it; nothing is installed unasked.

mod c;
mod js;
mod python;
mod rust;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::json;

use super::component::{Component, digest};
use super::project::{Language, Project};
use super::report::report;
use crate::cli::Format;

/// Build the component of the project in a folder, and look whether a host would take it.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost plugin build\n  \
    roost plugin build plugins/night-watch")]
pub(crate) struct Build {
    /// The folder of the project.
    #[arg(default_value = ".")]
    folder: PathBuf,
}

impl Build {
    pub(super) fn run(self, format: Format) -> Result<()> {
        let project = Project::find(&self.folder)?;
        match project.manifest.language {
            Language::Rust => rust::build(&project)?,
            Language::Js => js::build(&project)?,
            Language::Python => python::build(&project)?,
            Language::C => c::build(&project)?,
        }
        let component = Component::read(Some(project.component()))?;
        let plugin = component.load()?.plugin;
        let hooks: Vec<_> = plugin.hooks().iter().map(|hook| hook.name()).collect();
        let size = component.bytes.len();
        let built = json!({
            "file": component.file,
            "size_bytes": size,
            "digest": digest(&component.bytes),
            "hooks": hooks,
        });
        report(format, &built, || {
            let file = component.file.display();
            format!("{file}: {size} bytes, decides {}", hooks.join(", "))
        })
    }
}

/// The first of `programs` that is there: in the project's own folders, or in `PATH`.
fn find(project: &Project, programs: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let own = ["node_modules/.bin", ".venv/bin"].map(|folder| project.folder.join(folder));
    let folders: Vec<_> = own.into_iter().chain(env::split_paths(&path)).collect();
    programs.iter().find_map(|program| {
        let found = folders
            .iter()
            .map(|folder| folder.join(program))
            .find(|p| p.is_file())?;
        // Commands run in the project's folder, from which a relative path would be another one.
        std::path::absolute(found).ok()
    })
}

/// Runs a tool in the project's folder. What it prints goes to standard error: standard output is
/// for what this command says.
fn run(project: &Project, tool: &mut Command) -> Result<()> {
    let name = tool.get_program().to_string_lossy().into_owned();
    let output = tool
        .current_dir(&project.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{name} can't be run"))?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stdout));
        bail!("{name} ended with {}", output.status);
    }
    Ok(())
}

/// Puts what a tool made where the project's component is.
fn place(project: &Project, made: &Path) -> Result<()> {
    let component = project.component();
    fs::copy(made, &component).with_context(|| {
        format!(
            "{} can't be copied to {}",
            made.display(),
            component.display()
        )
    })?;
    Ok(())
}

/// The component's name, relative to the project's folder.
fn file_name(project: &Project) -> String {
    format!("{}.wasm", project.manifest.name)
}
