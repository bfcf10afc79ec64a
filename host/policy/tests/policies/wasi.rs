//! Components whose toolchain insists on WASI get one with nothing inside.

use std::collections::BTreeSet;

use roost_model::{Grant, Hook};
use roost_policy::{
    ActivePlugin, CallError, CleanupDecision, Level, LoadError, LoadedPlugin, PolicyHost,
};

use crate::component::{cleanup_in, component_of};
use crate::{binding, facts, runtime, subject};

/// As much of WASI 0.2 (github.com/WebAssembly/WASI, `wit` folders) as the tests import.
const WIT: &str = "
    package test:wasi;

    world importing {
        include roost:policy/cleanup-policy@0.1.0;
        import wasi:clocks/wall-clock@0.2.3;
        import wasi:clocks/monotonic-clock@0.2.3;
        import wasi:random/random@0.2.3;
        import wasi:cli/environment@0.2.3;
        import wasi:cli/stderr@0.2.3;
        import wasi:cli/exit@0.2.3;
    }

    package wasi:clocks@0.2.3 {
        interface wall-clock {
            record datetime { seconds: u64, nanoseconds: u32 }
            now: func() -> datetime;
        }
        interface monotonic-clock {
            use wasi:io/poll@0.2.3.{pollable};
            subscribe-duration: func(when: u64) -> pollable;
        }
    }
    package wasi:random@0.2.3 {
        interface random { get-random-u64: func() -> u64; }
    }
    package wasi:io@0.2.3 {
        interface poll { resource pollable { block: func(); } }
        interface error { resource error; }
        interface streams {
            use error.{error};
            variant stream-error { last-operation-failed(error), closed }
            resource output-stream {
                blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
            }
        }
    }
    package wasi:cli@0.2.3 {
        interface environment { get-environment: func() -> list<tuple<string, string>>; }
        interface stderr {
            use wasi:io/streams@0.2.3.{output-stream};
            get-stderr: func() -> output-stream;
        }
        interface exit { exit: func(status: result); }
    }";

fn import(interface: &str, name: &str, signature: &str) -> String {
    format!(r#"(import "wasi:{interface}@0.2.3" "{name}" (func $f {signature}))"#)
}

fn component(imports: &str, decide: &str, more: &str) -> Vec<u8> {
    cleanup_in(WIT, imports, decide, more)
}

/// Answers with the number that `value`, an i64, leaves.
fn answering(value: &str) -> String {
    format!("(i64.store (i32.const 520) {value}) i32.const 512")
}

fn load(component: &[u8]) -> LoadedPlugin {
    let granted = BTreeSet::from([Grant::Wasi]);
    runtime().load_with(component, &granted).unwrap()
}

fn delay(plugin: &LoadedPlugin, seed: u64) -> u64 {
    match plugin.cleanup(&facts::cleanup(1, seed)).unwrap() {
        CleanupDecision::RetryAfter(ms) => ms,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_is_linked_only_where_it_is_granted() {
    let wasi = component(
        &import("random/random", "get-random-u64", "(result i64)"),
        &answering("(call $f)"),
        "",
    );
    let error = runtime().load(&wasi).err().unwrap();
    assert!(
        matches!(&error, LoadError::NotGranted { grant: Grant::Wasi, import }
            if import == "wasi:random/random@0.2.3#get-random-u64"),
        "{error}"
    );
    assert_eq!(load(&wasi).needs(), &BTreeSet::from([Grant::Wasi]));
}

#[test]
fn the_clock_is_that_of_the_facts() {
    let plugin = load(&component(
        &import("clocks/wall-clock", "now", "(param i32)"),
        &format!(
            "(call $f (i32.const 2048)) {}",
            answering("(i64.rem_u (i64.load (i32.const 2048)) (i64.const 1000000))")
        ),
        "",
    ));
    let now_ms = facts::context(1).now_ms;
    assert_eq!(delay(&plugin, 1), now_ms / 1000 % 1_000_000);
}

#[test]
fn what_is_random_comes_from_the_seed() {
    let plugin = load(&component(
        &import("random/random", "get-random-u64", "(result i64)"),
        &answering("(i64.and (call $f) (i64.const 0xffff))"),
        "",
    ));
    assert_eq!(delay(&plugin, 1), delay(&plugin, 1));
    assert_ne!(delay(&plugin, 1), delay(&plugin, 2));
}

#[test]
fn there_is_no_environment() {
    let plugin = load(&component(
        &import("cli/environment", "get-environment", "(param i32)"),
        &format!(
            "(i32.store (i32.const 2052) (i32.const 9)) (call $f (i32.const 2048)) {}",
            answering("(i64.load32_u (i32.const 2052))")
        ),
        "",
    ));
    assert_eq!(delay(&plugin, 1), 0);
}

#[test]
fn nobody_sleeps_and_nobody_exits() {
    let sleeps = load(&component(
        &import(
            "clocks/monotonic-clock",
            "subscribe-duration",
            "(param i64) (result i32)",
        ),
        "(drop (call $f (i64.const 3600000000000))) unreachable",
        "",
    ));
    let exits = load(&component(
        &import("cli/exit", "exit", "(param i32)"),
        "(call $f (i32.const 0)) unreachable",
        "",
    ));
    for plugin in [sleeps, exits] {
        let error = plugin.cleanup(&facts::cleanup(1, 1)).unwrap_err();
        assert!(
            matches!(&error, CallError::Nonsense(text) if text.contains("not available")),
            "{error}"
        );
    }
}

#[test]
fn what_is_written_to_standard_error_is_in_the_log() {
    let component = component(
        r#"(import "wasi:cli/stderr@0.2.3" "get-stderr" (func $stderr (result i32)))
           (import "wasi:io/streams@0.2.3" "[method]output-stream.blocking-write-and-flush"
               (func $write (param i32 i32 i32 i32)))"#,
        &format!(
            "(call $write (call $stderr) (i32.const 1024) (i32.const 9) (i32.const 2048)) {}",
            answering("(i64.load8_u (i32.const 2048))")
        ),
        r#"(data (i32.const 1024) "one\0a\0atwo\0a")"#,
    );
    let host = PolicyHost::new(runtime());
    host.set_active(vec![ActivePlugin {
        name: "writes".to_owned(),
        revision: 1,
        settings: "{}".to_owned(),
        plugin: host
            .runtime()
            .load_with(&component, &BTreeSet::from([Grant::Wasi]))
            .unwrap(),
        bindings: vec![binding(Hook::Cleanup, "writes", 9)],
    }]);
    let decided = host.cleanup(facts::cleanup(1, 1), subject("a", &[]));
    assert_eq!(decided.failures, []);
    let said: Vec<_> = decided.calls[0]
        .log
        .iter()
        .map(|l| (l.level, l.message.as_str()))
        .collect();
    assert_eq!(said, [(Level::Error, "one"), (Level::Error, "two")]);
}

#[test]
fn http_is_not_among_it() {
    let wit = "package wasi:http@0.2.3; interface outgoing-handler { handle: func(); }
        interface c { f: func(); } world w { import outgoing-handler; export c; }";
    let module = r#"(module (import "wasi:http/outgoing-handler@0.2.3" "handle" (func))
        (func (export "wasi:http/c@0.2.3#f")))"#;
    let component = component_of(wit, "w", module);
    let all: BTreeSet<Grant> = Grant::ALL.into();
    let error = runtime().load_with(&component, &all).err().unwrap();
    assert!(
        matches!(&error, LoadError::Import(name)
            if name == "wasi:http/outgoing-handler@0.2.3#handle"),
        "{error}"
    );
}
