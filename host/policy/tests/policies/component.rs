//! Components from text: a core module's, and the WIT world that it is lifted to.
#![allow(dead_code, reason = "each test, and the benchmark, uses some of it")]

use std::path::{Path, PathBuf};

use wasm_encoder::{
    ComponentSection as _, ComponentSectionId, InstanceSection, ModuleArg, RawSection,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// What a component needs to be taken for a policy: it describes itself with empty texts and
/// accepts all settings. Address 256 holds zeros, and nothing that is allocated is ever read.
const PLUGIN: &str = r#"
    (memory (export "memory") 1)
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 32768)
    (func (export "roost:policy/plugin@0.1.0#describe") (result i32) i32.const 256)
    (func (export "roost:policy/plugin@0.1.0#validate-settings") (param i32 i32) (result i32)
        i32.const 256)
"#;

/// A world that imports all of the host; a component imports what its module does.
const IMPORTING: &str = "package test:importing;
    world importing {
        include roost:policy/cleanup-policy@0.1.0;
        import roost:policy/host@0.1.0;
    }";

fn plugin_describing(body: &str) -> String {
    PLUGIN.replacen(
        "(result i32) i32.const 256)",
        &format!("(result i32) {body})"),
        1,
    )
}

fn wit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit")
}

/// A core module, lifted to `world` of the package in `wit/`.
pub(crate) fn component(world: &str, module: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit()).unwrap();
    encode(&resolve, package, world, module)
}

/// A cleanup policy that imports functions of `roost:policy/host`. Its answer is at the address
/// that `decide` leaves.
pub(crate) fn cleanup_importing(imports: &str, decide: &str, more: &str) -> Vec<u8> {
    cleanup_in(IMPORTING, imports, decide, more)
}

/// A policy that imports functions of `roost:policy/host`, and whose `describe` is `body`.
pub(crate) fn describing_with(imports: &str, body: &str) -> Vec<u8> {
    let plugin = plugin_describing(body);
    let module = format!(
        "(module {imports} {plugin} {})",
        cleanup_decide("unreachable")
    );
    let mut resolve = Resolve::default();
    resolve.push_dir(wit()).unwrap();
    let package = resolve.push_str("importing.wit", IMPORTING).unwrap();
    encode(&resolve, package, "importing", &module)
}

/// The same in a world `importing` of a package that is given as text.
pub(crate) fn cleanup_in(wit: &str, imports: &str, decide: &str, more: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    resolve.push_dir(self::wit()).unwrap();
    let package = resolve.push_str("importing.wit", wit).unwrap();
    let module = format!(
        "(module {imports} {PLUGIN} {} {more})",
        cleanup_decide(decide)
    );
    encode(&resolve, package, "importing", &module)
}

/// A core module, lifted to `world` of a package that is given as text.
pub(crate) fn component_of(wit: &str, world: &str, module: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("test.wit", wit).unwrap();
    encode(&resolve, package, world, module)
}

fn encode(resolve: &Resolve, package: wit_parser::PackageId, world: &str, module: &str) -> Vec<u8> {
    encode_module(resolve, package, world, wat::parse_str(module).unwrap())
}

fn encode_module(
    resolve: &Resolve,
    package: wit_parser::PackageId,
    world: &str,
    mut module: Vec<u8>,
) -> Vec<u8> {
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8).unwrap();
    let encoder = ComponentEncoder::default().module(&module).unwrap();
    encoder.validate(true).encode().unwrap()
}

/// A cleanup policy whose answer is at the address that `decide` leaves. `more` may hold further
/// parts of the module.
pub(crate) fn cleanup_with(decide: &str, more: &str) -> Vec<u8> {
    component(
        "cleanup-policy",
        &format!("(module {PLUGIN} {} {more})", cleanup_decide(decide)),
    )
}

/// A cleanup policy whose answer is at the address that `decide` leaves.
pub(crate) fn cleanup(decide: &str) -> Vec<u8> {
    cleanup_with(decide, "")
}

/// A cleanup policy that always waits for `ms`.
pub(crate) fn cleanup_after(ms: u64) -> Vec<u8> {
    cleanup(&format!(
        "(i64.store (i32.const 520) (i64.const {ms})) i32.const 512"
    ))
}

/// The facts of a cleanup are few enough to be passed as 16 values.
fn cleanup_decide(body: &str) -> String {
    format!(
        r#"(func (export "roost:policy/cleanup@0.1.0#decide")
            (param i64 i64 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32) (result i32)
            {body})"#
    )
}

/// An observer that looks at nothing.
pub(crate) fn observer() -> Vec<u8> {
    let module = format!(
        r#"(module {PLUGIN} (func (export "roost:policy/observer@0.1.0#observe")
            (param i64 i64 i32 i32 i32 i32 i32 i32)))"#
    );
    component("observer-policy", &module)
}

/// A cleanup policy that asks for all VMs, looks at none of them, and says to retry at once.
pub(crate) fn listing_vms() -> Vec<u8> {
    cleanup_importing(
        r#"(import "roost:policy/host@0.1.0" "list-vms" (func $list
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))"#,
        "(call $list (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 1024)) i32.const 512",
        "",
    )
}

/// A policy for every hook, made of a core module with the exports of
/// [`trapping_module`].
pub(crate) fn policy_of(module: &[u8]) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit()).unwrap();
    encode_module(&resolve, package, "policy", module.to_vec())
}

/// A policy for every hook, each of which traps.
pub(crate) fn trapping() -> Vec<u8> {
    component("policy", &trapping_module())
}

/// The core module of [`trapping`], as text.
pub(crate) fn trapping_module() -> String {
    let decide = |hook: &str| {
        format!(
            r#"(func (export "roost:policy/{hook}@0.1.0#decide") (param i32) (result i32)
                unreachable)"#
        )
    };
    format!(
        r#"(module {PLUGIN} {} {} {} {}
            (func (export "roost:policy/observer@0.1.0#observe")
                (param i64 i64 i32 i32 i32 i32 i32 i32) unreachable))"#,
        decide("admission"),
        cleanup_decide("unreachable"),
        decide("recovery"),
        decide("billing"),
    )
}

/// A billing policy whose answer, a list, is at the address that `decide` leaves.
pub(crate) fn billing(decide: &str) -> Vec<u8> {
    let module = format!(
        r#"(module {PLUGIN}
            (func (export "roost:policy/billing@0.1.0#decide") (param i32) (result i32) {decide}))"#
    );
    component("billing-policy", &module)
}

/// A cleanup policy whose `describe` is `body`.
pub(crate) fn describing(body: &str) -> Vec<u8> {
    let plugin = plugin_describing(body);
    component(
        "cleanup-policy",
        &format!("(module {plugin} {})", cleanup_decide("unreachable")),
    )
}

/// A cleanup policy in whose component a module of `fields` is instantiated so many times.
pub(crate) fn cleanup_beside(fields: &str, times: u32) -> Vec<u8> {
    beside(
        &wat::parse_str(format!("(module {fields})")).unwrap(),
        times,
    )
}

/// A cleanup policy in whose component `module` is instantiated so many times. It is behind the
/// sections that were there, the first of which holds the policy's only core module.
pub(crate) fn beside(module: &[u8], times: u32) -> Vec<u8> {
    let mut component = cleanup_after(4);
    let section = RawSection {
        id: ComponentSectionId::CoreModule as u8,
        data: module,
    };
    section.append_to_component(&mut component);
    let mut instances = InstanceSection::new();
    for _ in 0..times {
        instances.instantiate(1, Vec::<(&str, ModuleArg)>::new());
    }
    instances.append_to_component(&mut component);
    component
}
