//! Policies from text, with no toolchain: core modules, lifted to a world of the contract.

use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{PackageId, Resolve};

/// What a component needs to be taken for a policy: it describes itself with empty texts and
/// accepts all settings. Address 256 holds zeros; whatever is allocated is at 32768.
const PLUGIN: &str = r#"
    (memory (export "memory") 1)
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 32768)
    (func (export "roost:policy/plugin@0.1.0#describe") (result i32) i32.const 256)
    (func (export "roost:policy/plugin@0.1.0#validate-settings") (param i32 i32) (result i32)
        i32.const 256)
"#;

/// Allows.
pub(crate) const ALLOW: &str = "i32.const 256";
/// Denies, for the reason `no`.
pub(crate) const DENY: &str = "
    (i32.store8 (i32.const 512) (i32.const 2))
    (i32.store (i32.const 520) (i32.const 1024)) (i32.store (i32.const 524) (i32.const 2))
    (i32.store16 (i32.const 1024) (i32.const 0x6f6e))
    i32.const 512";
/// Allows, with 32 vCPUs.
pub(crate) const ALLOW_WITH_32_VCPUS: &str = "
    (i32.store8 (i32.const 512) (i32.const 1))
    (i32.store8 (i32.const 520) (i32.const 1)) (i32.store (i32.const 524) (i32.const 32))
    i32.const 512";
pub(crate) const TRAP: &str = "unreachable";
/// Restarts a VM in an hour.
pub(crate) const RESTART_LATER: &str =
    "(i64.store (i32.const 520) (i64.const 3600000)) i32.const 512";
/// Leaves a VM stopped.
pub(crate) const LEAVE_STOPPED: &str = "(i32.store8 (i32.const 512) (i32.const 2)) i32.const 512";
/// Marks a VM failed.
pub(crate) const MARK_FAILED: &str = "(i32.store8 (i32.const 512) (i32.const 3)) i32.const 512";

/// Deletes a VM.
pub(crate) const DESTROY: &str = "(i32.store8 (i32.const 512) (i32.const 4)) i32.const 512";

fn encode(resolve: &Resolve, package: PackageId, world: &str, module: &str) -> Vec<u8> {
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let mut module = wat::parse_str(format!("(module {module})")).unwrap();
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8).unwrap();
    let encoder = ComponentEncoder::default().module(&module).unwrap();
    encoder.validate(true).encode().unwrap()
}

fn contract() -> (Resolve, PackageId) {
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(&wit).unwrap();
    (resolve, package)
}

/// A policy of one hook whose `decide` takes its facts by address and leaves the answer's.
fn deciding(hook: &str, decide: &str) -> Vec<u8> {
    let (resolve, package) = contract();
    let module = format!(
        r#"{PLUGIN}
        (func (export "roost:policy/{hook}@0.1.0#decide") (param i32) (result i32) {decide})"#
    );
    encode(&resolve, package, &format!("{hook}-policy"), &module)
}

/// An admission policy.
pub(crate) fn admission(decide: &str) -> Vec<u8> {
    deciding("admission", decide)
}

/// A billing policy.
pub(crate) fn billing(decide: &str) -> Vec<u8> {
    deciding("billing", decide)
}

/// A recovery policy.
pub(crate) fn recovery(decide: &str) -> Vec<u8> {
    deciding("recovery", decide)
}

/// An observer.
pub(crate) fn observer(observe: &str) -> Vec<u8> {
    let (resolve, package) = contract();
    let module = format!(
        r#"{PLUGIN}
        (func (export "roost:policy/observer@0.1.0#observe")
            (param i64 i64 i32 i32 i32 i32 i32 i32) {observe})"#
    );
    encode(&resolve, package, "observer-policy", &module)
}

/// A world of the contract with functions of the host beside it.
fn importing(hook: &str, module: &str) -> Vec<u8> {
    let (mut resolve, _) = contract();
    let world = format!(
        "package test:importing;
        world importing {{
            include roost:policy/{hook}-policy@0.1.0;
            import roost:policy/host@0.1.0;
        }}"
    );
    let package = resolve.push_str("importing.wit", &world).unwrap();
    encode(&resolve, package, "importing", module)
}

/// An admission policy that allows and counts how often it did, at the key `n` of its values, as a
/// little-endian number of 8 bytes.
pub(crate) fn counting() -> Vec<u8> {
    let module = format!(
        r#"
        (import "roost:policy/host@0.1.0" "kv-get"
            (func $get (param i32 i32 i32)))
        (import "roost:policy/host@0.1.0" "kv-compare-and-swap"
            (func $swap (param i32 i32 i32 i32 i32 i32 i32 i32 i32)))
        {PLUGIN}
        (data (i32.const 1024) "n")
        (func (export "roost:policy/admission@0.1.0#decide") (param i32) (result i32)
            (call $get (i32.const 1024) (i32.const 1) (i32.const 2048))
            (i64.store (i32.const 4096)
                (if (result i64) (i32.load8_u (i32.const 2048))
                    (then (i64.add (i64.const 1) (i64.load (i32.load (i32.const 2052)))))
                    (else (i64.const 1))))
            (call $swap (i32.const 1024) (i32.const 1)
                (i32.load8_u (i32.const 2048))
                (i32.load (i32.const 2052)) (i32.load (i32.const 2056))
                (i32.const 1) (i32.const 4096) (i32.const 8)
                (i32.const 3072))
            i32.const 256)"#
    );
    importing("admission", &module)
}

/// An observer that writes a line to its log for each event.
pub(crate) fn logging_observer() -> Vec<u8> {
    let module = format!(
        r#"
        (import "roost:policy/host@0.1.0" "log" (func $log (param i32 i32 i32)))
        {PLUGIN}
        (data (i32.const 1024) "an event")
        (func (export "roost:policy/observer@0.1.0#observe")
            (param i64 i64 i32 i32 i32 i32 i32 i32)
            (call $log (i32.const 2) (i32.const 1024) (i32.const 8)))"#
    );
    importing("observer", &module)
}

/// Gives a cleanup up: `by hand`.
pub(crate) const GIVE_UP: &str = r#"
    (i32.store8 (i32.const 512) (i32.const 1))
    (i32.store (i32.const 520) (i32.const 1024)) (i32.store (i32.const 524) (i32.const 7))
    (i64.store (i32.const 1024) (i64.const 0x646e6168207962))
    i32.const 512"#;

/// A cleanup policy.
pub(crate) fn cleanup(decide: &str) -> Vec<u8> {
    let (resolve, package) = contract();
    // Its facts are few enough to come one by one.
    let module = format!(
        r#"{PLUGIN}
        (func (export "roost:policy/cleanup@0.1.0#decide")
            (param i64 i64 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32)
            (result i32) {decide})"#
    );
    encode(&resolve, package, "cleanup-policy", &module)
}
