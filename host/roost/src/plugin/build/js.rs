//! JavaScript: componentize-qjs, which puts the QuickJS interpreter and the source into one
//! component.

use std::process::Command;

use anyhow::{Result, bail};

use super::{file_name, find, run};
use crate::plugin::project::Project;

pub(super) fn build(project: &Project) -> Result<()> {
    let Some(tool) = find(project, &["componentize-qjs"]) else {
        bail!("componentize-qjs is not there: run `npm install` in the project's folder");
    };
    let mut command = Command::new(tool);
    command
        .args(["--wit", "wit", "--world", &project.manifest.world])
        .args(["--js", "policy.js", "--output", &file_name(project)])
        // No imports: a policy has the time and the chance of its facts.
        .args(["--sync", "--stub-wasi", "--opt-size"]);
    run(project, &mut command)
}
