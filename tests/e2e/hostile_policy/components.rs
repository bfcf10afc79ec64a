//! Hostile components, from text or from parts.

use std::fmt::Write as _;
use std::path::Path;

use wasm_encoder::{
    CodeSection, ComponentBuilder, ComponentSection as _, ComponentSectionId, Function,
    FunctionSection, InstanceSection, Module, ModuleArg, RawSection, TypeSection, ValType,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{PackageId, Resolve};

/// Never ends.
pub(crate) const LOOP: &str = "(loop (br 0)) unreachable";
/// Takes memory until it is given no more, and then traps, as allocators do.
pub(crate) const GROW: &str =
    "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
/// An empty description, or the first case of a variant. Address 256 holds zeros.
pub(crate) const ZEROS: &str = "i32.const 256";

/// A plugin in text: `plugin` is exported with what `describe` and `validate-settings` do.
pub(crate) struct Text<'a> {
    pub(crate) imports: &'a str,
    pub(crate) describe: &'a str,
    pub(crate) validate: &'a str,
    /// More of the module: the hooks, and what they need.
    pub(crate) more: &'a str,
}

impl Default for Text<'_> {
    fn default() -> Self {
        Self {
            imports: "",
            describe: ZEROS,
            validate: ZEROS,
            more: "",
        }
    }
}

impl Text<'_> {
    /// The component, of a world of the contract that may import the host.
    pub(crate) fn of(&self, hook: &str) -> Vec<u8> {
        let Self {
            imports,
            describe,
            validate,
            more,
        } = self;
        let module = format!(
            r#"(module {imports}
                (memory (export "memory") 1)
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 32768)
                (func (export "roost:policy/plugin@0.1.0#describe") (result i32) {describe})
                (func (export "roost:policy/plugin@0.1.0#validate-settings")
                    (param i32 i32) (result i32) {validate})
                {more})"#
        );
        let mut resolve = Resolve::default();
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
        resolve.push_dir(wit).unwrap();
        let world = format!(
            "package test:hostile;
            world hostile {{
                include roost:policy/{hook}-policy@0.1.0;
                import roost:policy/host@0.1.0;
            }}"
        );
        let package = resolve.push_str("hostile.wit", &world).unwrap();
        encode(&resolve, package, "hostile", &module)
    }
}

fn encode(resolve: &Resolve, package: PackageId, world: &str, module: &str) -> Vec<u8> {
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let mut module = wat::parse_str(module).unwrap();
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8).unwrap();
    let mut encoder = ComponentEncoder::default().module(&module).unwrap();
    encoder.encode().unwrap()
}

/// A policy of another contract that calls itself by the names of ours.
pub(crate) fn impostor(wit: &str, decide: &str) -> Vec<u8> {
    let wit = format!(
        "package roost:policy@0.1.0;
        interface cleanup {{ {wit} }}
        interface plugin {{
            record description {{ name: string, version: string, summary: string,
                attributes: list<tuple<string, string>> }}
            describe: func() -> description;
            validate-settings: func(settings: string) -> result<_, string>;
        }}
        world impostor {{ export cleanup; export plugin; }}"
    );
    let module = format!(
        r#"(module
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 32768)
            (func (export "roost:policy/plugin@0.1.0#describe") (result i32) i32.const 256)
            (func (export "roost:policy/plugin@0.1.0#validate-settings")
                (param i32 i32) (result i32) i32.const 256)
            {decide})"#
    );
    let mut resolve = Resolve::default();
    let package = resolve.push_str("impostor.wit", &wit).unwrap();
    encode(&resolve, package, "impostor", &module)
}

/// A recovery policy.
pub(crate) fn recovery(decide: &str) -> Vec<u8> {
    let more = format!(
        r#"(func (export "roost:policy/recovery@0.1.0#decide") (param i32) (result i32) {decide})"#
    );
    Text {
        more: &more,
        ..Text::default()
    }
    .of("recovery")
}

/// A plugin whose `describe` is this.
pub(crate) fn describing(describe: &str) -> Vec<u8> {
    let more = deciding("unreachable", "");
    Text {
        describe,
        more: &more,
        ..Text::default()
    }
    .of("cleanup")
}

/// A plugin whose `validate-settings` is this.
pub(crate) fn validating(validate: &str) -> Vec<u8> {
    let more = deciding("unreachable", "");
    Text {
        validate,
        more: &more,
        ..Text::default()
    }
    .of("cleanup")
}

/// `decide` of a cleanup policy; its answer is at the address that it leaves. The facts are few
/// enough to be passed as values.
fn deciding(decide: &str, more: &str) -> String {
    format!(
        r#"(func (export "roost:policy/cleanup@0.1.0#decide")
            (param i64 i64 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32) (result i32)
            {decide})
        {more}"#
    )
}

/// A cleanup policy.
pub(crate) fn cleanup(decide: &str, more: &str) -> Vec<u8> {
    let more = deciding(decide, more);
    Text {
        more: &more,
        ..Text::default()
    }
    .of("cleanup")
}

/// A cleanup policy that gives up, saying the text of so many bytes at this address.
pub(crate) fn giving_up(before: &str, address: u32, length: u32, more: &str) -> Vec<u8> {
    let decide = format!(
        "{before} (i32.store8 (i32.const 512) (i32.const 1))
        (i32.store (i32.const 520) (i32.const {address}))
        (i32.store (i32.const 524) (i32.const {length})) i32.const 512"
    );
    cleanup(&decide, more)
}

/// An admission policy.
pub(crate) fn admission(imports: &str, decide: &str, more: &str) -> Vec<u8> {
    let more = format!(
        r#"(func (export "roost:policy/admission@0.1.0#decide") (param i32) (result i32) {decide})
        {more}"#
    );
    Text {
        imports,
        more: &more,
        ..Text::default()
    }
    .of("admission")
}

/// An admission policy that denies; its reason is how often this instance was asked, as a digit.
pub(crate) fn counting() -> Vec<u8> {
    admission(
        "",
        "(i32.store8 (i32.const 600) (i32.add (i32.load8_u (i32.const 600)) (i32.const 1)))
        (i32.store8 (i32.const 1024) (i32.add (i32.load8_u (i32.const 600)) (i32.const 48)))
        (i32.store8 (i32.const 512) (i32.const 2))
        (i32.store (i32.const 520) (i32.const 1024)) (i32.store (i32.const 524) (i32.const 1))
        i32.const 512",
        "",
    )
}

/// An admission policy that denies; its reason is `seen` if the host shows it the VM with this id,
/// else `none`.
pub(crate) fn looking_for(vm: &str) -> Vec<u8> {
    let decide = format!(
        "(call $get_vm (i32.const 1024) (i32.const {}) (i32.const 2048))
        (i32.store8 (i32.const 512) (i32.const 2))
        (i32.store (i32.const 520)
            (select (i32.const 1200) (i32.const 1204) (i32.load8_u (i32.const 2048))))
        (i32.store (i32.const 524) (i32.const 4)) i32.const 512",
        vm.len()
    );
    admission(
        r#"(import "roost:policy/host@0.1.0" "get-vm" (func $get_vm (param i32 i32 i32)))"#,
        &decide,
        &format!(r#"(data (i32.const 1024) "{vm}") (data (i32.const 1200) "seennone")"#),
    )
}

/// A cleanup policy in whose component a module of `fields` is instantiated so many times. It is
/// behind the sections that were there, the first of which holds the policy's only core module.
pub(crate) fn beside(fields: &str, times: u32) -> Vec<u8> {
    let mut component = cleanup(ZEROS, "");
    let module = wat::parse_str(format!("(module {fields})")).unwrap();
    let section = RawSection {
        id: ComponentSectionId::CoreModule as u8,
        data: &module,
    };
    section.append_to_component(&mut component);
    let mut instances = InstanceSection::new();
    for _ in 0..times {
        instances.instantiate(1, Vec::<(&str, ModuleArg)>::new());
    }
    instances.append_to_component(&mut component);
    component
}

/// A component whose function answers with lists of lists of lists …
pub(crate) fn nested(depth: usize) -> Vec<u8> {
    let mut text = String::from(
        r#"(component (core module $m (memory (export "memory") 1)
            (func (export "decide") (result i32) i32.const 256))
        (core instance $i (instantiate $m)) (type $t0 (list u8))"#,
    );
    for level in 1..depth {
        write!(text, " (type $t{level} (list $t{}))", level - 1).unwrap();
    }
    let top = depth - 1;
    write!(
        text,
        r#" (func $decide (result $t{top}) (canon lift (core func $i "decide")
                (memory (core memory $i "memory"))))
            (instance $cleanup (export "decide" (func $decide)))
            (export "roost:policy/cleanup@0.1.0" (instance $cleanup)))"#
    )
    .unwrap();
    wat::parse_str(&text).unwrap()
}

/// A component of some MB whose code takes a compiler many seconds.
pub(crate) fn slow_to_compile() -> Vec<u8> {
    const FUNCTIONS: u32 = 3000;
    const STEPS: i64 = 400;
    let mut body = Function::new([]);
    {
        let mut code = body.instructions();
        for step in 0..STEPS {
            code.local_get(0).i64_const(step).i64_add();
            code.local_get(1).i64_mul().local_set(0);
        }
        code.local_get(0).end();
    }
    let mut types = TypeSection::new();
    let of = [ValType::I64, ValType::I64];
    types.ty().function(of, [ValType::I64]);
    let mut functions = FunctionSection::new();
    let mut code = CodeSection::new();
    for _ in 0..FUNCTIONS {
        functions.function(0);
        code.function(&body);
    }
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&code);
    let mut component = ComponentBuilder::default();
    component.core_module(None, &module);
    component.finish()
}
