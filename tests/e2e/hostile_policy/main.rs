//! Components that are valid and hostile, on a host that is running VMs.

#[allow(dead_code)]
#[path = "host.rs"]
mod host;

use std::path::Path;

use host::{Host, kill};
use serde_json::Value;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

/// A recovery policy in text: what `describe` and `decide` do. Address 256 holds zeros: a
/// description of empty texts.
fn recovery_policy(describe: &str, decide: &str) -> Vec<u8> {
    let module = format!(
        r#"(module
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 32768)
            (func (export "roost:policy/plugin@0.1.0#describe") (result i32) {describe})
            (func (export "roost:policy/plugin@0.1.0#validate-settings")
                (param i32 i32) (result i32) i32.const 256)
            (func (export "roost:policy/recovery@0.1.0#decide")
                (param i32) (result i32) {decide}))"#
    );
    let mut resolve = wit_parser::Resolve::default();
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    let (package, _) = resolve.push_dir(wit).unwrap();
    let world = resolve
        .select_world(&[package], Some("recovery-policy"))
        .unwrap();
    let mut module = wat::parse_str(module).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default()
        .module(&module)
        .unwrap()
        .encode()
        .unwrap()
}

const LOOP: &str = "(loop (br 0)) unreachable";
/// Takes memory until it is given no more, and then traps.
const GROW: &str = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) \
                    unreachable";
const FINE: &str = "i32.const 256";

#[test]
fn a_component_that_never_describes_itself_is_refused_and_the_host_serves() {
    let host = Host::start();
    for (body, expected) in [(LOOP, "did not answer within"), (GROW, "memory")] {
        let file = host.file("bad.wasm", &recovery_policy(body, "unreachable"));
        let error = host.refused(&["plugin", "push", "bad", &file]);
        assert!(error.contains(expected), "{error}");
    }
    host.boot_hello("proof");
}

#[test]
fn a_decision_that_loops_or_grows_is_made_by_the_host_and_the_vm_comes_back() {
    let host = Host::start();
    host.boot_hello("web");
    for (round, (decide, expected)) in [(LOOP, "did not answer within"), (GROW, "memory")]
        .into_iter()
        .enumerate()
    {
        let file = host.file("bad.wasm", &recovery_policy(FINE, decide));
        host.roost(&["plugin", "push", "bad", &file]);
        host.roost(&["plugin", "activate", "bad"]);
        host.roost(&["plugin", "bind", "recovery", "bad"]);
        kill(host.worker("web").unwrap());
        let incarnation = round + 2;
        host.until("the next incarnation", || {
            let record = host.roost(&["vm", "show", "web"]);
            (record["incarnation"] == incarnation && record["state"] == "running").then_some(())
        });
        let events = host.roost(&["events"]);
        let of = |kind: &str| -> Vec<Value> {
            let events = events["items"].as_array().unwrap();
            events
                .iter()
                .filter(|event| event["kind"] == kind)
                .cloned()
                .collect()
        };
        let failed = of("policy-failed");
        let error = failed.last().unwrap()["error"].as_str().unwrap();
        assert!(error.contains(expected), "{error}");
        assert_eq!(
            of("recovery-decided").last().unwrap()["decided_by"]["by"],
            "builtin"
        );
    }
}
