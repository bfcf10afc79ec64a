//! Fixtures: recorded facts, and the decision that is expected.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use roost_model::Hook;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::local_host::State;

/// `{"hook": "cleanup", "facts": {…}, "expect": {"retry-after": 200}}`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fixture {
    pub(super) hook: Hook,
    pub(super) facts: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expect: Option<Value>,
    /// What the policy finds if it asks the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) host: Option<State>,
}

impl Fixture {
    pub(super) fn read(file: &Path) -> Result<Self> {
        let text = fs::read(file).with_context(|| format!("{} can't be read", file.display()))?;
        serde_json::from_slice(&text).with_context(|| {
            let shape = r#"{"hook": …, "facts": …, "expect": …}"#;
            format!("{} is no fixture of the form {shape}", file.display())
        })
    }

    pub(super) fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The settings that the facts carry.
    pub(super) fn settings(&self) -> &str {
        self.facts["context"]["settings"].as_str().unwrap_or("{}")
    }
}

/// The fixtures of a folder, by name.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("{} can't be read", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            files.push(path);
        }
    }
    if files.is_empty() {
        bail!("{} has no fixtures (*.json)", folder.display());
    }
    files.sort();
    Ok(files)
}

/// A place where a decision is not as expected.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Difference {
    /// A JSON pointer into the decision; empty: all of it.
    pub(super) at: String,
    pub(super) expected: Value,
    pub(super) actual: Value,
}

/// Where `actual` is not as expected. Members that an expected object does not name are not
/// compared, so that a fixture may leave out the wording of a reason; an empty object expects one.
pub(super) fn differences(expected: &Value, actual: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(String::new(), expected, actual, &mut found);
    found
}

fn compare(at: String, expected: &Value, actual: &Value, found: &mut Vec<Difference>) {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) if !expected.is_empty() => {
            for (key, expected) in expected {
                let actual = actual.get(key).unwrap_or(&Value::Null);
                compare(format!("{at}/{key}"), expected, actual, found);
            }
        }
        (Value::Array(expected), Value::Array(actual)) if expected.len() == actual.len() => {
            for (index, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                compare(format!("{at}/{index}"), expected, actual, found);
            }
        }
        _ if expected == actual => {}
        _ => found.push(Difference {
            at,
            expected: expected.clone(),
            actual: actual.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_says_where_it_is() {
        let actual = json!([{ "item": "a", "quantity": 2 }, { "item": "b", "quantity": 3 }]);
        let expected = json!([{ "item": "a" }, { "quantity": 4 }]);
        let found = differences(&expected, &actual);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].at.as_str(), &found[0].actual),
            ("/1/quantity", &json!(3))
        );
    }

    #[test]
    fn nothing_can_be_expected_by_accident() {
        assert_eq!(differences(&json!({}), &json!({ "deny": "no" })).len(), 1);
        assert_eq!(differences(&json!([]), &json!([1])).len(), 1);
        assert_eq!(
            differences(&json!("allow"), &json!({ "deny": "no" })).len(),
            1
        );
        assert!(differences(&json!([]), &json!([])).is_empty());
    }
}
