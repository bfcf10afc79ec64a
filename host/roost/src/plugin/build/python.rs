//! Python: componentize-py, which puts CPython, its library and the source into one component.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{file_name, find, run};
use crate::plugin::project::Project;

/// Imports the policy and has what it raises reach the operator.
const NOTE: &str = include_str!("notes/roost_policy.py");
/// Where that is written.
const BINDINGS: &str = "bindings";

pub(super) fn build(project: &Project) -> Result<()> {
    let Some(tool) = find(project, &["componentize-py"]) else {
        bail!(
            "componentize-py is not there: run `python3 -m venv .venv && \
             .venv/bin/pip install -r requirements.txt` in the project's folder"
        );
    };
    let folder = project.folder.join(BINDINGS);
    let module = folder.join("roost_policy.py");
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&module, NOTE))
        .with_context(|| format!("{} can't be written", module.display()))?;
    let mut command = Command::new(tool);
    command
        .args([
            "--quiet",
            "--wit-path",
            "wit",
            "--world",
            &project.manifest.world,
        ])
        .args(["componentize", "roost_policy", "-p", ".", "-p", BINDINGS])
        .args(["--output", &file_name(project)])
        // No imports: a policy has the time and the chance of its facts.
        .arg("--stub-wasi");
    run(project, &mut command)
}
