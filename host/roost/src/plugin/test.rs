//! `roost plugin test`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::component::{Component, Loaded};
use super::fixture::{Difference, Fixture, differences, files};
use crate::cli::Format;
use crate::output;

/// Decide on every fixture of a folder here, without a host, and compare.
///
/// Ends with status 1 if a decision is not as expected.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost plugin test\n  \
    roost plugin test fixtures --component limits.wasm\n\n\
    A fixture is {\"hook\": \"cleanup\", \"facts\": {…}, \"expect\": {\"retry-after\": 200}}. What \
    `expect` leaves out of an object is not compared. A policy that asks the host finds what \
    `host` says: {\"kv\": {\"key\": \"value\"}, \"vms\": […]}. `roost decisions N --fixture` makes one of a \
    recorded decision.")]
pub(crate) struct Test {
    /// The folder with the fixtures.
    #[arg(default_value = "fixtures")]
    fixtures: PathBuf,
    /// The component; that of the project in this folder if absent.
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
}

/// What came of a fixture.
#[derive(Serialize)]
struct Outcome {
    fixture: String,
    passed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differences: Vec<Difference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Test {
    pub(super) fn run(self, format: Format) -> Result<()> {
        let files = files(&self.fixtures)?;
        let plugin = Component::read(self.component)?.load()?;
        let outcomes: Vec<_> = files.iter().map(|file| outcome(&plugin, file)).collect();
        let failed = outcomes.iter().filter(|outcome| !outcome.passed).count();
        let passed = outcomes.len() - failed;
        match format {
            Format::Json => output::json(&json!({
                "passed": passed,
                "failed": failed,
                "items": outcomes,
            }))?,
            Format::Table => {
                outcomes.iter().try_for_each(print)?;
                output::line(&format!("{passed} passed, {failed} failed"))?;
            }
        }
        if failed > 0 {
            bail!("{failed} of {} fixtures failed", outcomes.len());
        }
        Ok(())
    }
}

fn outcome(plugin: &Loaded, file: &Path) -> Outcome {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let mut outcome = Outcome {
        fixture: name.into_owned(),
        passed: false,
        decision: None,
        differences: Vec::new(),
        error: None,
    };
    match decide(plugin, file) {
        Err(error) => outcome.error = Some(format!("{error:#}")),
        Ok((decision, differences)) => {
            outcome.passed = differences.is_empty();
            outcome.differences = differences;
            outcome.decision = Some(decision);
        }
    }
    outcome
}

fn decide(plugin: &Loaded, file: &Path) -> Result<(Value, Vec<Difference>)> {
    let fixture = Fixture::read(file)?;
    let expected = fixture.expect.as_ref().context("it expects nothing")?;
    let (decision, _) = plugin.decide(&fixture)?;
    let differences = differences(expected, &decision);
    Ok((decision, differences))
}

fn print(outcome: &Outcome) -> Result<()> {
    let verdict = if outcome.passed { "ok    " } else { "FAILED" };
    output::line(&output::printable(&format!(
        "{verdict}  {}",
        outcome.fixture
    )))?;
    if let Some(error) = &outcome.error {
        output::line(&output::printable(&format!("        {error}")))?;
    }
    for difference in &outcome.differences {
        let at = match difference.at.as_str() {
            "" => "the decision",
            at => at,
        };
        for line in [
            format!("        {at}"),
            format!("        - {}", difference.expected),
            format!("        + {}", difference.actual),
        ] {
            output::line(&output::printable(&line))?;
        }
    }
    Ok(())
}
