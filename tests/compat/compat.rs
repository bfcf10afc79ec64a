//! Policies that were built against a published version of the contract go on working.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

fn frozen() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/compat/0.1.0")
}

/// The component of a source, made with the frozen contract and nothing of today's.
fn build(source: &str) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_dir(frozen().join("wit")).unwrap();
    let (worlds, world) = match source {
        "host" => {
            let world = "package compat:host;\n\
                world host {\n\
                    include roost:policy/cleanup-policy@0.1.0;\n\
                    import roost:policy/host@0.1.0;\n\
                }\n";
            (resolve.push_str("host.wit", world).unwrap(), "host")
        }
        world => (package, world),
    };
    let world = resolve.select_world(&[worlds], Some(world)).unwrap();
    let wat = fs::read(frozen().join(format!("{source}.wat"))).unwrap();
    let mut module = wat::parse_bytes(&wat).unwrap().into_owned();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let mut encoder = ComponentEncoder::default().module(&module).unwrap();
    encoder.encode().unwrap()
}

fn roost(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_roost"))
        .args(arguments)
        .args(["-o", "json"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "roost {}: {errors}",
        arguments.join(" ")
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn vm() -> Value {
    json!({
        "id": "vm-0123456789abcdef0123456789abcdef", "name": "web", "tenant": "acme",
        "labels": [["tier", "front"]], "vcpus": 2, "memory-mib": 128, "state": "failed",
        "desired": "running", "incarnation": 3, "created-at-ms": 5,
        "attributes": [["later", "added"]],
    })
}

/// Facts of a hook as 0.1.0 has them, and what the sources decide on them.
fn question(hook: &str) -> (Value, Value) {
    let context = json!({ "now-ms": 9, "seed": 7, "settings": "{}", "attributes": [["a", "b"]] });
    let usage = json!({ "vms": 1, "vcpus": 2, "memory-mib": 128 });
    match hook {
        "admission" => (
            json!({ "context": context, "request": "boot", "vm": vm(), "node": usage,
                    "tenant": usage, "attributes": [] }),
            json!({ "deny": "frozen" }),
        ),
        "cleanup" => (
            json!({ "context": context, "vm-id": vm()["id"], "resource": "tap", "attempts": 3,
                    "since-ms": 1, "error": "busy", "attributes": [] }),
            json!({ "retry-after": 700 }),
        ),
        "recovery" => (
            json!({ "context": context, "vm": vm(), "attempts": 1, "attributes": [],
                    "incident": { "id": "inc-1", "kind": "worker-exit", "detail": "signal 9",
                                  "at-ms": 8, "incarnation": 3, "attributes": [] },
                    "history": [{ "kind": "worker-exit", "at-ms": 4, "incarnation": 2,
                                  "action": "restart" }] }),
            json!({ "action": { "restart-after": 1500 }, "reason": "frozen" }),
        ),
        "billing" => (
            json!({ "context": context, "vm": vm(), "attributes": [],
                    "windows": [{ "incarnation": 1, "sequence": 1, "start-ms": 1, "end-ms": 2,
                                  "vcpus": 2, "memory-bytes": 3, "vcpu-cpu-ns": 4,
                                  "running-ns": 5, "serial-tx-bytes": 6, "close": "grid",
                                  "source": "exact", "attributes": [] }] }),
            json!([{ "incarnation": 1, "sequence": 1, "item": "frozen", "quantity": 2,
                     "unit": "frozen", "unit-price-nanos": 3, "currency": "EUR" }]),
        ),
        "observer" => (json!({ "context": context, "event": "{}" }), Value::Null),
        other => panic!("no question for {other}"),
    }
}

/// Builds a source and has it decide `hooks`.
fn asked(source: &str, hooks: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let component = folder.path().join("frozen.wasm");
    fs::write(&component, build(source)).unwrap();
    let component = component.to_str().unwrap();
    let inspected = roost(&["plugin", "inspect", component]);
    assert_eq!(inspected["about"]["hooks"], json!(hooks), "{inspected}");
    for hook in hooks {
        let (facts, expected) = question(hook);
        let fixture = folder.path().join(format!("{hook}.json"));
        fs::write(
            &fixture,
            json!({ "hook": hook, "facts": facts }).to_string(),
        )
        .unwrap();
        let run = [
            "plugin",
            "run",
            fixture.to_str().unwrap(),
            "--component",
            component,
        ];
        assert_eq!(roost(&run)["decision"], expected, "{source}: {hook}");
    }
}

#[test]
fn an_admission_policy_of_0_1_0_still_decides() {
    asked("admission-policy", &["admission"]);
}

#[test]
fn a_cleanup_policy_of_0_1_0_still_decides() {
    asked("cleanup-policy", &["cleanup"]);
}

#[test]
fn a_recovery_policy_of_0_1_0_still_decides() {
    asked("recovery-policy", &["recovery"]);
}

#[test]
fn a_billing_policy_of_0_1_0_still_decides() {
    asked("billing-policy", &["billing"]);
}

#[test]
fn an_observer_of_0_1_0_is_still_told() {
    asked("observer-policy", &["observer"]);
}

#[test]
fn a_policy_of_0_1_0_that_decides_everything_still_does() {
    let all = ["admission", "cleanup", "recovery", "billing", "observer"];
    asked("policy", &all);
}

#[test]
fn a_policy_of_0_1_0_that_imports_all_of_the_host_still_decides() {
    asked("host", &["cleanup"]);
}
