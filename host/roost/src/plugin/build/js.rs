//! JavaScript: componentize-qjs, which puts the QuickJS interpreter and the source into one
//! component.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{file_name, find, run};
use crate::plugin::project::Project;

/// Has what a policy throws reach the operator.
const NOTE: &str = include_str!("notes/note.js");
/// The policy with that behind it. Beside the policy, so that what it imports is found.
const BUILT: &str = "policy.built.js";

pub(super) fn build(project: &Project) -> Result<()> {
    let Some(tool) = find(project, &["componentize-qjs"]) else {
        bail!("componentize-qjs is not there: run `npm install` in the project's folder");
    };
    let source = project.folder.join("policy.js");
    let source = fs::read_to_string(&source)
        .with_context(|| format!("{} can't be read", source.display()))?;
    let built = project.folder.join(BUILT);
    fs::write(&built, source + NOTE)
        .with_context(|| format!("{} can't be written", built.display()))?;
    let mut command = Command::new(tool);
    command
        .args(["--wit", "wit", "--world", &project.manifest.world])
        .args(["--js", BUILT, "--output", &file_name(project)])
        // No imports: a policy has the time and the chance of its facts.
        .args(["--sync", "--stub-wasi", "--opt-size"]);
    run(project, &mut command)
}
