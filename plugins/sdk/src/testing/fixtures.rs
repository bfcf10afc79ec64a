//! Fixtures: recorded facts and the decision that is expected, in files.
//!
//! `{"hook": "cleanup", "facts": {…}, "expect": {"RetryAfter": 200}}`: facts and decision are
//! written as in the API, the decision journal and `roost plugin test`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::Host;
use crate::types::Vm;

/// A policy that decides a hook, by JSON. [`crate::export!`] implements it.
pub trait Decides {
    /// The decision of `hook` on `facts`.
    ///
    /// # Errors
    /// The policy does not decide the hook, or `facts` are not its facts.
    fn decide_json(hook: &str, facts: Value) -> Result<Value, String>;
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    hook: String,
    facts: Value,
    expect: Value,
    #[serde(default)]
    host: HostState,
}

/// What the policy finds if it asks the host.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HostState {
    kv: BTreeMap<String, String>,
    vms: Vec<Vm>,
}

/// Decides on every `.json` file of `folder` and compares with what is expected.
///
/// # Panics
/// A decision differs (the message says where), a file is not a fixture, or there is none.
pub fn run_fixtures<P: Decides>(folder: impl AsRef<Path>) {
    run_fixtures_on::<P>(folder, &Host::new("acme"));
}

/// [`run_fixtures`], each of them on a copy of `host`.
///
/// # Panics
/// As [`run_fixtures`].
pub fn run_fixtures_on<P: Decides>(folder: impl AsRef<Path>, host: &Host) {
    let folder = folder.as_ref();
    let entries = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{} can't be read: {error}", folder.display()));
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no fixtures", folder.display());
    let mut failures = String::new();
    for file in &files {
        if let Err(reason) = run::<P>(file, host.clone()) {
            let _ = writeln!(failures, "{}:\n{reason}", file.display());
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

fn run<P: Decides>(file: &Path, mut host: Host) -> Result<(), String> {
    let text = fs::read(file).map_err(|error| error.to_string())?;
    let fixture: Fixture = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    for (key, value) in &fixture.host.kv {
        host = host.with_key(key, value.as_bytes());
    }
    for vm in fixture.host.vms {
        host = host.with_vm(vm);
    }
    let decision = host.run(|| P::decide_json(&fixture.hook, fixture.facts))?;
    match difference(&fixture.expect, &decision).as_slice() {
        [] => Ok(()),
        lines => Err(lines.join("\n")),
    }
}

/// Where `actual` is not as expected, a line for each place; nothing if it is. A member that an
/// expected object does not name is not compared, so that a fixture may leave out a reason's
/// wording.
#[must_use]
pub fn difference(expected: &Value, actual: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", expected, actual, &mut lines);
    lines
}

fn compare(path: &str, expected: &Value, actual: &Value, lines: &mut Vec<String>) {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) if !expected.is_empty() => {
            for (key, expected) in expected {
                let actual = actual.get(key).unwrap_or(&Value::Null);
                compare(&format!("{path}/{key}"), expected, actual, lines);
            }
        }
        (Value::Array(expected), Value::Array(actual)) if expected.len() == actual.len() => {
            for (index, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                compare(&format!("{path}/{index}"), expected, actual, lines);
            }
        }
        _ if expected == actual => {}
        _ => {
            let at = if path.is_empty() {
                "the decision"
            } else {
                path
            };
            lines.push(format!("  {at}\n  - {expected}\n  + {actual}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::difference;

    #[test]
    fn what_is_expected_is_compared_and_nothing_else() {
        let actual = json!({ "action": { "RestartAfter": 5 }, "reason": "because" });
        assert!(difference(&json!({ "action": { "RestartAfter": 5 } }), &actual).is_empty());
        let lines = difference(&json!({ "action": { "RestartAfter": 6 } }), &actual);
        assert_eq!(lines, ["  /action/RestartAfter\n  - 6\n  + 5"]);
        assert_eq!(difference(&json!({ "other": 1 }), &actual).len(), 1);
    }

    #[test]
    fn an_empty_object_is_no_way_to_expect_anything() {
        assert_eq!(difference(&json!({}), &json!({ "Deny": "no" })).len(), 1);
        assert_eq!(difference(&json!([]), &json!([{ "item": "x" }])).len(), 1);
    }
}
