//! Every policy that needs nothing of a host runs under stock `wasmtime`, and decides there as it
//! does here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{languages, process, workspace};

/// A policy and where its fixtures are.
struct Policy {
    component: PathBuf,
    fixtures: PathBuf,
}

/// Asks every built policy about each of its fixtures, here and under stock `wasmtime`.
///
/// # Errors
/// There is no wasmtime, or the two do not agree.
pub(crate) fn check() -> Result<()> {
    let wasmtime = languages::wasmtime()?;
    let roost = workspace::build_roost(false)?;
    let mut decisions = 0;
    for policy in policies()? {
        let imports = imports(&roost, &policy.component)?;
        let name = policy
            .component
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy();
        if imports.is_empty() {
            decisions += compare(&wasmtime, &roost, &policy)
                .with_context(|| format!("{name} under stock wasmtime"))?;
        } else {
            println!("{name} asks the host ({imports}), which wasmtime has not");
        }
    }
    ensure!(decisions > 0, "no policy has fixtures");
    println!("{decisions} decisions, the same under stock wasmtime");
    Ok(())
}

/// What `cargo xtask plugins` built.
fn policies() -> Result<Vec<Policy>> {
    let root = workspace::root();
    let components = root.join("plugins/target/components");
    let entries = fs::read_dir(&components)
        .with_context(|| format!("{} can't be read", components.display()))?;
    let mut policies = Vec::new();
    for entry in entries {
        let component = entry?.path();
        if component
            .extension()
            .is_none_or(|extension| extension != "wasm")
        {
            continue;
        }
        let name = component.file_stem().unwrap_or_default();
        // One of those that tests need: it has more hooks than `--invoke` can tell apart.
        if root.join("tests/policies").join(name).is_dir() {
            continue;
        }
        let fixtures = ["plugins", "examples/plugins"]
            .map(|folder| root.join(folder).join(name).join("fixtures"))
            .into_iter()
            .find(|folder| folder.is_dir())
            .with_context(|| format!("{} has no fixtures", component.display()))?;
        policies.push(Policy {
            component,
            fixtures,
        });
    }
    policies.sort_by(|a, b| a.component.cmp(&b.component));
    Ok(policies)
}

fn json(command: &mut Command) -> Result<Value> {
    let text = process::output(command.args(["-o", "json"]))?;
    serde_json::from_str(&text).context("roost did not print JSON")
}

/// What a component imports, for a person.
fn imports(roost: &Path, component: &Path) -> Result<String> {
    let found = json(
        Command::new(roost)
            .args(["plugin", "inspect"])
            .arg(component),
    )?;
    let imports = found["imports"].as_array().context("no list of imports")?;
    let functions = imports
        .iter()
        .flat_map(|import| import["functions"].as_array().into_iter().flatten())
        .filter_map(Value::as_str);
    Ok(functions.collect::<Vec<_>>().join(", "))
}

fn compare(wasmtime: &Path, roost: &Path, policy: &Policy) -> Result<usize> {
    let stock = |call: &str| {
        let mut command = Command::new(wasmtime);
        command
            .args(["run", "--invoke", call])
            .arg(&policy.component);
        process::output(&mut command).map(|text| text.trim().to_owned())
    };
    let description = stock("describe()")?;
    ensure!(
        description.contains("version: "),
        "describe() said {description}"
    );
    let mut decisions = 0;
    for entry in fs::read_dir(&policy.fixtures)? {
        let file = entry?.path();
        let fixture: Value = serde_json::from_slice(&fs::read(&file)?)
            .with_context(|| format!("{} is not JSON", file.display()))?;
        let here = json(
            Command::new(roost)
                .args(["plugin", "run"])
                .arg(&file)
                .arg("--component")
                .arg(&policy.component),
        )?;
        let expected = wave(&here["decision"], Of::Decision);
        let there = stock(&format!("decide({})", wave(&fixture["facts"], Of::Facts)))?;
        if there != expected {
            bail!(
                "{}: wasmtime says {there}, Roost {expected}",
                file.display()
            );
        }
        decisions += 1;
    }
    Ok(decisions)
}

/// The fields of the records that are printed, in the order of the WIT, which JSON does not keep.
const ORDER: [&str; 9] = [
    "action",
    "reason",
    "incarnation",
    "sequence",
    "item",
    "quantity",
    "unit",
    "unit-price-nanos",
    "currency",
];

/// Where a value stands, which says what a text or an array in it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Facts,
    /// Pairs: labels or attributes.
    Pairs,
    Pair,
    /// A variant whose cases are written as in the WIT.
    Decision,
    /// Anything with a name or a place of its own.
    Value,
}

/// The notation of `--invoke` (WAVE) for what JSON says.
fn wave(value: &Value, of: Of) -> String {
    match value {
        Value::String(case) if of == Of::Decision => case.clone(),
        Value::Object(case) if of == Of::Decision && case.len() == 1 => {
            let payload =
                |(name, value): (&String, &Value)| format!("{name}({})", wave(value, Of::Value));
            case.iter().map(payload).collect()
        }
        Value::Object(record) => {
            let mut members: Vec<_> = record.iter().collect();
            members.sort_by_key(|(name, _)| ORDER.iter().position(|known| known == name));
            let mut fields: Vec<_> = members
                .into_iter()
                .map(|(name, value)| {
                    let of = match name.as_str() {
                        "request" => Of::Decision,
                        // That of an earlier incident, among the facts, is a text.
                        "action" if of == Of::Decision => Of::Decision,
                        "labels" | "attributes" => Of::Pairs,
                        "windows" | "context" | "vm" | "incident" => Of::Facts,
                        _ => Of::Value,
                    };
                    format!("{name}: {}", wave(value, of))
                })
                .collect();
            // The one field that JSON may leave out, of the records that have it.
            if of == Of::Facts && !record.contains_key("attributes") {
                fields.push("attributes: []".to_owned());
            }
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(items) => {
            let (open, close, inner) = match of {
                Of::Pairs => ('[', ']', Of::Pair),
                Of::Pair => ('(', ')', Of::Value),
                Of::Facts => ('[', ']', Of::Facts),
                _ => ('[', ']', Of::Value),
            };
            let items: Vec<_> = items.iter().map(|item| wave(item, inner)).collect();
            format!("{open}{}{close}", items.join(", "))
        }
        // A text of JSON is one of WAVE, but for the escapes of apostrophes in what wasmtime prints.
        Value::String(text) => Value::from(text.as_str()).to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn facts_and_decisions_are_written_as_wasmtime_reads_them() {
        let facts = json!({ "request": "create", "vm": { "labels": [["a", "b"]] } });
        assert_eq!(
            wave(&facts, Of::Facts),
            r#"{request: create, vm: {labels: [("a", "b")], attributes: []}, attributes: []}"#
        );
        let past = json!({ "history": [{ "action": "restart" }] });
        assert_eq!(
            wave(&past, Of::Facts),
            r#"{history: [{action: "restart"}], attributes: []}"#
        );
        let decision = json!({ "action": { "restart-after": 5 }, "reason": "x" });
        assert_eq!(
            wave(&decision, Of::Decision),
            r#"{action: restart-after(5), reason: "x"}"#
        );
        assert_eq!(
            wave(&json!({ "deny": "no" }), Of::Decision),
            r#"deny("no")"#
        );
        assert_eq!(
            wave(&json!([{ "unit": "ms" }]), Of::Decision),
            r#"[{unit: "ms"}]"#
        );
    }
}
