//! The message of a panic reaches the operator.

use roost_policy::CallError;

use crate::component::{cleanup_importing, cleanup_with};
use crate::{facts, runtime};

fn text_of(component: &[u8]) -> String {
    let plugin = runtime().load(component).unwrap();
    match plugin.cleanup(&facts::cleanup(1, 1)).unwrap_err() {
        CallError::Trap { code, text } => {
            assert_eq!(code, "unreachable-code-reached");
            text
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_component_that_imports_the_log_writes_its_panic_there() {
    let text = text_of(&cleanup_importing(
        r#"(import "roost:policy/host@0.1.0" "log" (func $log (param i32 i32 i32)))"#,
        "(call $log (i32.const 4) (i32.const 1024) (i32.const 11)) unreachable",
        r#"(data (i32.const 1024) "panicked: x")"#,
    ));
    assert!(text.contains("it said: panicked: x"), "{text}");
}

#[test]
fn one_without_imports_leaves_a_note_in_its_memory() {
    let note = "(i64.store (i32.const 4096) (i64.const 0x7074736f6f722d31))
        (i64.store (i32.const 4104) (i64.const 0x65746f6e3a63696e))
        (i64.store (i32.const 4112) (i64.const 11)) (call $panic) unreachable";
    let text = text_of(&cleanup_with(
        note,
        r#"(data (i32.const 4120) "panicked: y") (func $panic unreachable)"#,
    ));
    assert!(text.contains("it said: panicked: y"), "{text}");
    assert!(text.contains("in panic"), "{text}");
}

#[test]
fn without_either_the_functions_are_named() {
    let text = text_of(&cleanup_with(
        "(call $lookup) unreachable",
        "(func $lookup unreachable)",
    ));
    assert!(text.contains("in lookup"), "{text}");
    assert!(!text.contains("it said"), "{text}");
}
