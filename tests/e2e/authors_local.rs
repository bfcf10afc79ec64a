//! The commands for authors that need no host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn component(name: &str) -> String {
    let file = format!("plugins/target/components/{name}.wasm");
    root().join(file).to_str().unwrap().to_owned()
}

fn roost(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_roost"))
        .arg("plugin")
        .args(arguments)
        .output()
        .unwrap()
}

fn succeeds(arguments: &[&str]) -> String {
    let output = roost(arguments);
    let printed = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}\n{printed}{errors}");
    printed
}

fn refused(arguments: &[&str]) -> String {
    let output = roost(arguments);
    assert!(!output.status.success(), "{arguments:?} succeeded");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!error.contains("panicked"), "{error}");
    error
}

/// Name, folder of the fixtures, and whether it asks the host.
const POLICIES: [(&str, &str); 9] = [
    ("admission-limits", "plugins/admission-limits"),
    ("billing-meter", "plugins/billing-meter"),
    ("cleanup-backoff", "plugins/cleanup-backoff"),
    ("recovery-restart", "plugins/recovery-restart"),
    ("billing-tiers", "examples/plugins/billing-tiers"),
    ("cleanup-escalate", "examples/plugins/cleanup-escalate"),
    ("maintenance-window", "examples/plugins/maintenance-window"),
    ("night-watch", "examples/plugins/night-watch"),
    ("tenant-quotas", "examples/plugins/tenant-quotas"),
];

#[test]
fn every_policy_decides_as_its_fixtures_expect() {
    for (name, folder) in POLICIES {
        let fixtures = root().join(folder).join("fixtures");
        let printed = succeeds(&[
            "test",
            fixtures.to_str().unwrap(),
            "--component",
            &component(name),
        ]);
        assert!(printed.contains(" 0 failed"), "{name}: {printed}");
    }
}

#[test]
fn a_decision_that_is_not_as_expected_is_shown_where_it_differs() {
    let folder = tempfile::tempdir().unwrap();
    let good = root().join("plugins/cleanup-backoff/fixtures/third-attempt.json");
    let mut fixture: Value = serde_json::from_slice(&fs::read(good).unwrap()).unwrap();
    fixture["expect"] = json!({ "retry-after": 151 });
    fs::write(folder.path().join("wrong.json"), fixture.to_string()).unwrap();
    let component = component("cleanup-backoff");
    let arguments = [
        "test",
        folder.path().to_str().unwrap(),
        "--component",
        &component,
    ];
    let output = roost(&arguments);
    assert!(!output.status.success());
    let printed = String::from_utf8(output.stdout).unwrap();
    let shown = "FAILED  wrong\n        /retry-after\n        - 151\n        + 150\n";
    assert!(printed.contains(shown), "{printed}");
    let json = roost(&[&arguments[..], &["-o", "json"]].concat());
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["items"][0]["differences"][0]["actual"], 150);
}

#[test]
fn settings_that_the_policy_refuses_are_an_error_with_its_words() {
    let fixture = root().join("plugins/cleanup-backoff/fixtures/third-attempt.json");
    let error = refused(&[
        "run",
        fixture.to_str().unwrap(),
        "--component",
        &component("cleanup-backoff"),
        "--settings",
        r#"{"base_ms":0}"#,
    ]);
    assert!(error.contains("base_ms is at least 1"), "{error}");
}

#[test]
fn inspect_tells_what_is_in_a_component_and_what_it_needs() {
    let found = succeeds(&["inspect", &component("recovery-restart"), "-o", "json"]);
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["about"]["name"], "recovery-restart");
    assert_eq!(found["about"]["hooks"], json!(["recovery"]));
    assert_eq!(found["imports"], json!([]));
    assert_eq!(found["needs"], json!([]));
    let digest = found["digest"].as_str().unwrap();
    assert_eq!(digest.len(), "sha256:".len() + 64);
    let found = succeeds(&["inspect", &component("tenant-quotas"), "-o", "json"]);
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["needs"], json!(["log", "kv"]), "{found}");
}

#[test]
fn what_is_no_component_or_no_fixture_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.wasm");
    fs::write(&text, "hello").unwrap();
    let text = text.to_str().unwrap();
    assert!(refused(&["inspect", text]).contains("is no component"));
    let fixture = root().join("plugins/cleanup-backoff/fixtures/third-attempt.json");
    let error = refused(&["run", fixture.to_str().unwrap(), "--component", text]);
    assert!(error.contains("it is text"), "{error}");
    let error = refused(&["run", text, "--component", &component("cleanup-backoff")]);
    assert!(error.contains("is no fixture of the form"), "{error}");
    let empty = folder.path().to_str().unwrap();
    let error = refused(&["test", empty, "--component", &component("cleanup-backoff")]);
    assert!(error.contains("has no fixtures"), "{error}");
    let other = root().join("plugins/billing-meter/fixtures/a-minute.json");
    let error = refused(&[
        "run",
        other.to_str().unwrap(),
        "--component",
        &component("cleanup-backoff"),
    ]);
    assert!(error.contains("does not export billing"), "{error}");
}

#[test]
fn bench_prints_one_value_a_line() {
    let fixture = root().join("plugins/cleanup-backoff/fixtures/third-attempt.json");
    let printed = succeeds(&[
        "bench",
        fixture.to_str().unwrap(),
        "--component",
        &component("cleanup-backoff"),
        "--calls",
        "20",
        "-o",
        "json",
    ]);
    for line in printed.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(
            line["value"].as_f64().unwrap() > 0.0 && line["unit"].is_string(),
            "{line}"
        );
    }
    assert_eq!(printed.lines().count(), 5);
}

#[test]
fn a_project_that_can_not_be_built_says_what_to_install() {
    let folder = tempfile::tempdir().unwrap();
    for (lang, expected) in [
        ("js", "npm install"),
        ("python", "pip install -r requirements.txt"),
        ("c", "pip install ziglang"),
    ] {
        let new = Command::new(env!("CARGO_BIN_EXE_roost"))
            .args(["plugin", "new", "--lang", lang, lang])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(
            new.status.success(),
            "{}",
            String::from_utf8_lossy(&new.stderr)
        );
        let build = Command::new(env!("CARGO_BIN_EXE_roost"))
            .args(["plugin", "build", lang])
            .current_dir(folder.path())
            .env("PATH", "/nowhere")
            .output()
            .unwrap();
        let error = String::from_utf8(build.stderr).unwrap();
        assert!(
            !build.status.success() && error.contains(expected),
            "{error}"
        );
    }
    let twice = Command::new(env!("CARGO_BIN_EXE_roost"))
        .args(["plugin", "new", "--lang", "js", "js"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let error = String::from_utf8(twice.stderr).unwrap();
    assert!(
        !twice.status.success() && error.contains("is there already"),
        "{error}"
    );
}
