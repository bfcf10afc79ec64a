//! What is refused when it is pushed, and what is said about it.

use std::collections::BTreeSet;

use roost_model::Hook;
use roost_policy::{
    CallError, LoadError, PolicyRuntime, RuntimeConfig, SettingsError, bundled, digest,
};

use crate::component::{cleanup, cleanup_after, component_of, describing};
use crate::{bundled_bytes, load_bundled, runtime};

fn refusal(bytes: &[u8]) -> LoadError {
    runtime().load(bytes).err().expect("it is refused")
}

#[test]
fn the_bundled_policies_load_and_say_what_they_decide() {
    let runtime = runtime();
    for policy in bundled() {
        let plugin = runtime.load(policy.bytes).unwrap();
        assert_eq!(plugin.hooks(), &BTreeSet::from([policy.hook]));
        assert_eq!(plugin.description().name, policy.name);
        assert_eq!(plugin.digest(), digest(policy.bytes));
        assert_eq!(plugin.description().version, env!("CARGO_PKG_VERSION"));
        assert!(!plugin.description().summary.is_empty());
        plugin.validate_settings("{}").unwrap();
    }
}

#[test]
fn what_is_no_component_is_refused_by_what_it_is() {
    let core_module = wat::parse_str("(module)").unwrap();
    let cases: [(&[u8], &str); 5] = [
        (b"", "it is empty"),
        (b"apiVersion: v1\n", "it is text"),
        (&core_module, "it is a core module"),
        (b"\x7fELF\x02\x01\x01", "it is native code"),
        (b"\x00\xff\x00\xff", "it is something else"),
    ];
    for (bytes, said) in cases {
        let error = refusal(bytes).to_string();
        assert!(error.starts_with(said), "{error}");
    }
}

#[test]
fn native_code_is_not_taken_even_if_it_is_our_own() {
    let scratch = tempfile::tempdir().unwrap();
    let runtime = PolicyRuntime::with(RuntimeConfig {
        cache: Some(scratch.path().to_owned()),
        ..RuntimeConfig::default()
    });
    let runtime = runtime.unwrap();
    runtime.load(&cleanup_after(5)).unwrap();
    let artifacts = std::fs::read_dir(scratch.path()).unwrap();
    let artifact = artifacts
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .find(|bytes| bytes.len() > 1000)
        .unwrap();
    // With its seal, and without.
    for bytes in [&artifact[..], &artifact[32..]] {
        let error = runtime.load(bytes).err().unwrap();
        assert!(
            matches!(error, LoadError::Precompiled | LoadError::NotAComponent(_)),
            "{error}"
        );
    }
    assert!(matches!(
        runtime.load(&artifact[32..]),
        Err(LoadError::Precompiled)
    ));
}

#[test]
fn a_component_that_was_cut_or_damaged_anywhere_is_refused() {
    let runtime = runtime();
    let whole = cleanup_after(5);
    assert!(runtime.load(&whole).is_ok());
    for length in (8..whole.len()).step_by(whole.len() / 40) {
        let error = runtime.load(&whole[..length]).err();
        assert!(
            error.is_some(),
            "{length} bytes of {} are taken",
            whole.len()
        );
    }
    let mut damaged = whole.clone();
    for position in (8..whole.len()).step_by(whole.len() / 40) {
        damaged[position] ^= 0xff;
        // Some damage is to names and data that nobody checks: it must only not take us down.
        let _ = runtime.load(&damaged);
        damaged[position] ^= 0xff;
    }
    assert!(runtime.load(&whole).is_ok());
}

#[test]
fn a_component_that_is_too_large_is_refused_before_it_is_read() {
    let mut large = bundled_bytes("cleanup-backoff").to_vec();
    large.resize((64 << 20) + 1, 0);
    assert!(matches!(refusal(&large), LoadError::TooLarge { bytes, .. } if bytes == large.len()));
}

#[test]
fn a_component_that_exports_no_policy_is_refused_with_what_it_exports() {
    let nothing = wat::parse_str("(component)").unwrap();
    assert_eq!(
        refusal(&nothing).to_string(),
        "it exports no policy interface, but: nothing"
    );
    let other = component_of(
        "package a:b; interface c { f: func(); } world w { export c; }",
        "w",
        r#"(module (func (export "a:b/c#f")))"#,
    );
    assert_eq!(
        refusal(&other).to_string(),
        "it exports no policy interface, but: a:b/c"
    );
}

#[test]
fn an_import_is_refused_by_its_name() {
    let wit = "package a:b; interface clock { now: func() -> u64; }
        interface c { f: func(); } world w { import clock; export c; }";
    let module = r#"(module (import "a:b/clock" "now" (func (result i64)))
        (func (export "a:b/c#f")))"#;
    let error = refusal(&component_of(wit, "w", module));
    assert!(
        matches!(&error, LoadError::Import(name) if name == "a:b/clock#now"),
        "{error}"
    );
}

#[test]
fn an_export_of_the_wrong_type_is_refused_by_its_interface() {
    let wit = "package roost:policy@0.1.0;
        interface cleanup { decide: func(attempts: u32) -> u64; }
        interface plugin {
            record description { name: string, version: string, summary: string,
                attributes: list<tuple<string, string>> }
            describe: func() -> description;
            validate-settings: func(settings: string) -> result<_, string>;
        }
        world w { export cleanup; export plugin; }";
    let module = r#"(module
        (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 32768)
        (func (export "roost:policy/cleanup@0.1.0#decide") (param i32) (result i64) i64.const 0)
        (func (export "roost:policy/plugin@0.1.0#describe") (result i32) i32.const 256)
        (func (export "roost:policy/plugin@0.1.0#validate-settings") (param i32 i32) (result i32)
            i32.const 256))"#;
    let error = refusal(&component_of(wit, "w", module));
    assert!(
        matches!(&error, LoadError::WrongType { interface, .. }
            if interface == "roost:policy/cleanup@0.1.0"),
        "{error}"
    );
}

#[test]
fn a_policy_that_does_not_describe_itself_is_refused_by_what_is_missing() {
    let wit = "package roost:policy@0.1.0;
        interface observer { observe: func(); } world w { export observer; }";
    let module = r#"(module (func (export "roost:policy/observer@0.1.0#observe")))"#;
    let error = refusal(&component_of(wit, "w", module));
    assert!(
        matches!(&error, LoadError::WrongType { interface, .. }
            if interface == "roost:policy/plugin@0.1.0"),
        "{error}"
    );
}

#[test]
fn a_describe_that_hangs_or_traps_is_a_refusal_and_not_a_hang() {
    let hangs = refusal(&describing("(loop $again br $again) unreachable"));
    assert!(
        matches!(hangs, LoadError::Describe(CallError::Deadline(_))),
        "{hangs}"
    );
    let traps = refusal(&describing("unreachable"));
    assert!(
        matches!(traps, LoadError::Describe(CallError::Trap { .. })),
        "{traps}"
    );
}

#[test]
fn a_description_is_cleaned_and_cut() {
    // The name is 1,000 escape characters.
    let body = "(memory.fill (i32.const 1024) (i32.const 0x1b) (i32.const 1000))
        (i32.store (i32.const 512) (i32.const 1024)) (i32.store (i32.const 516) (i32.const 1000))
        i32.const 512";
    let plugin = runtime().load(&describing(body)).unwrap();
    assert_eq!(plugin.description().name, "\u{fffd}".repeat(256));
}

#[test]
fn features_that_policies_do_not_need_are_off() {
    for module in [
        r#"(module (memory i64 1))"#,
        r#"(module (memory 1 2 shared))"#,
        r#"(module (type (struct (field i32))))"#,
        r#"(module (tag (param i32)))"#,
    ] {
        let component = wat::parse_str(format!("(component (core {}", &module[1..]) + ")").unwrap();
        let error = refusal(&component);
        assert!(matches!(error, LoadError::Compile(_)), "{module}: {error}");
    }
}

#[test]
fn a_component_of_several_parts_that_pass_strings_compiles() {
    // Toolchains of interpreted languages make such; the adapters between the parts need
    // multi-memory.
    let part = r#"(core module $m (memory (export "memory") 1)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
        (func (export "f") (param i32 i32) (result i32) i32.const 0))
        (core instance $i (instantiate $m))
        (func $out (param "s" string) (result string) (canon lift (core func $i "f")
            (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))"#;
    let component = format!(
        r#"(component
            (component $inner {part} (export "f" (func $out)))
            (component $outer
                (import "f" (func $f (param "s" string) (result string)))
                (core module $libc (memory (export "memory") 1)
                    (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024))
                (core instance $libc (instantiate $libc))
                (core func $lowered (canon lower (func $f)
                    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
                (core module $user (import "" "f" (func (param i32 i32 i32)))
                    (func (export "run") (call 0 (i32.const 0) (i32.const 0) (i32.const 8))))
                (core instance $user (instantiate $user
                    (with "" (instance (export "f" (func $lowered))))))
                (func (export "run") (canon lift (core func $user "run"))))
            (instance $i (instantiate $inner))
            (instance $o (instantiate $outer (with "f" (func $i "f"))))
            (export "run" (func $o "run")))"#
    );
    let error = refusal(&wat::parse_str(component).unwrap());
    assert_eq!(
        error.to_string(),
        "it exports no policy interface, but: run"
    );
}

#[test]
fn settings_are_json_of_a_bounded_size_that_the_plugin_accepts() {
    let runtime = runtime();
    let plugin = load_bundled(&runtime, "cleanup-backoff");
    plugin.validate_settings(r#"{"base_ms": 5}"#).unwrap();
    let refused = |settings: &str| plugin.validate_settings(settings).unwrap_err();
    assert!(matches!(refused("base_ms: 5"), SettingsError::NotJson(_)));
    assert!(matches!(
        refused(&" ".repeat(70_000)),
        SettingsError::TooLong { .. }
    ));
    let unknown = refused(r#"{"bass_ms": 5}"#);
    assert!(unknown.to_string().contains("bass_ms"), "{unknown}");
    assert!(matches!(
        refused(r#"{"base_ms": 0}"#),
        SettingsError::Refused(_)
    ));
    assert!(matches!(refused("[]"), SettingsError::NotJson(_)));
}

#[test]
fn a_hook_that_is_not_exported_is_not_asked() {
    let plugin = runtime().load(&cleanup("unreachable")).unwrap();
    let facts = crate::facts::recovery(0, 1);
    assert_eq!(
        plugin.recovery(&facts).unwrap_err(),
        CallError::NotExported(Hook::Recovery)
    );
}
