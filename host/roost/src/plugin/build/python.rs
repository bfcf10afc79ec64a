//! Python: componentize-py, which puts CPython, its library and the source into one component.

use std::process::Command;

use anyhow::{Result, bail};

use super::{file_name, find, run};
use crate::plugin::project::Project;

pub(super) fn build(project: &Project) -> Result<()> {
    let Some(tool) = find(project, &["componentize-py"]) else {
        bail!(
            "componentize-py is not there: run `python3 -m venv .venv && \
             .venv/bin/pip install -r requirements.txt` in the project's folder"
        );
    };
    let mut command = Command::new(tool);
    command
        .args([
            "--quiet",
            "--wit-path",
            "wit",
            "--world",
            &project.manifest.world,
        ])
        .args(["componentize", "policy", "--output", &file_name(project)])
        // No imports: a policy has the time and the chance of its facts.
        .arg("--stub-wasi");
    run(project, &mut command)
}
