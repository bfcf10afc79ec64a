//! Plugins that hang, grow, trap or answer with garbage: the call ends with an error that says
//! so, and whoever is asked next is none the worse.

use roost_policy::{CallError, CallLimits, LoadedPlugin, PolicyRuntime};

use crate::component::{billing, cleanup, cleanup_after, cleanup_with};
use crate::{facts, load_bundled, runtime};

/// A cleanup policy's error, after which a bundled policy still decides.
fn error_of(component: &[u8]) -> CallError {
    let runtime = runtime();
    let hostile = runtime.load(component).unwrap();
    let error = hostile.cleanup(&facts::cleanup(1, 1)).unwrap_err();
    assert_still_serves(&runtime);
    error
}

fn assert_still_serves(runtime: &PolicyRuntime) {
    let plugin = load_bundled(runtime, "cleanup-backoff");
    plugin.cleanup(&facts::cleanup(1, 1)).unwrap();
}

#[test]
fn an_endless_loop_ends_at_the_deadline() {
    let error = error_of(&cleanup("(loop $again br $again) unreachable"));
    assert_eq!(
        error,
        CallError::Deadline(std::time::Duration::from_secs(1))
    );
}

#[test]
fn an_endless_loop_while_it_is_instantiated_ends_at_the_deadline() {
    // The start function of a module runs before any export can be called, `describe` too.
    let component = cleanup_with(
        "unreachable",
        "(func $start (loop $again br $again)) (start $start)",
    );
    let runtime = runtime();
    let error = runtime.load(&component).err().unwrap();
    assert!(
        error.to_string().contains("did not answer within"),
        "{error}"
    );
    assert_still_serves(&runtime);
}

#[test]
fn an_endless_loop_in_the_allocator_that_the_host_calls_ends_at_the_deadline() {
    let wat = r#"(module (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (loop $again br $again) unreachable)
        (func (export "roost:policy/plugin@0.1.0#describe") (result i32) i32.const 256)
        (func (export "roost:policy/plugin@0.1.0#validate-settings") (param i32 i32) (result i32)
            i32.const 256)
        (func (export "roost:policy/cleanup@0.1.0#decide")
            (param i64 i64 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32) (result i32)
            i32.const 512))"#;
    let error = error_of(&crate::component::component("cleanup-policy", wat));
    assert!(matches!(error, CallError::Deadline(_)), "{error}");
}

#[test]
fn memory_beyond_the_limit_is_not_given_and_the_error_says_so() {
    // As allocators do: grow, and trap where there is no more.
    let error = error_of(&cleanup(
        "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
         unreachable",
    ));
    assert_eq!(
        error,
        CallError::Memory {
            limit_bytes: 16 << 20
        }
    );
}

#[test]
fn a_component_that_starts_with_more_memory_than_the_limit_is_refused() {
    let component = cleanup_after(1);
    let limits = CallLimits {
        memory_bytes: 32 << 10,
        ..CallLimits::default()
    };
    let error = PolicyRuntime::new(limits).unwrap().load(&component).err();
    assert!(error.is_some());
}

#[test]
fn growing_in_an_endless_loop_ends_at_the_deadline() {
    let error = error_of(&cleanup(
        "(loop $again (drop (memory.grow (i32.const 1))) br $again) unreachable",
    ));
    assert!(matches!(error, CallError::Deadline(_)), "{error}");
}

#[test]
fn a_table_beyond_the_limit_is_not_given() {
    let error = error_of(&cleanup_with(
        "(if (i32.eq (table.grow (ref.null func) (i32.const 1000000)) (i32.const -1))
            (then unreachable))
         i32.const 512",
        "(table 1 funcref)",
    ));
    assert!(matches!(error, CallError::Memory { .. }), "{error}");
}

#[test]
fn recursion_without_end_is_a_trap() {
    let error = error_of(&cleanup_with(
        "(call $deeper) i32.const 512",
        "(func $deeper (call $deeper))",
    ));
    assert!(
        matches!(&error, CallError::Trap { text, .. } if text.contains("stack")),
        "{error}"
    );
}

#[test]
fn each_kind_of_trap_is_named() {
    for (body, said) in [
        ("unreachable", "unreachable"),
        ("(i32.div_u (i32.const 1) (i32.const 0))", "divide by zero"),
        ("(i32.load (i32.const -4))", "out of bounds"),
    ] {
        let error = error_of(&cleanup(body));
        assert!(
            matches!(&error, CallError::Trap { text, .. } if text.contains(said)),
            "{body}: {error}"
        );
    }
}

#[test]
fn answers_that_are_not_what_the_type_says_are_errors() {
    let text_of = |pointer: u32, length: u32| {
        format!(
            "(i32.store8 (i32.const 512) (i32.const 1))
             (i32.store (i32.const 520) (i32.const {pointer}))
             (i32.store (i32.const 524) (i32.const {length})) i32.const 512"
        )
    };
    let cases = [
        ("an address beyond memory", "i32.const -8".to_owned()),
        ("an address that is not aligned", "i32.const 513".to_owned()),
        (
            "no such case",
            "(i32.store8 (i32.const 512) (i32.const 9)) i32.const 512".to_owned(),
        ),
        ("a text beyond memory", text_of(65_000, 10_000)),
        ("a text of 4 GiB", text_of(0, u32::MAX)),
        (
            "a text that is not UTF-8",
            format!(
                "(i32.store8 (i32.const 1024) (i32.const 0xff)) {}",
                text_of(1024, 1)
            ),
        ),
    ];
    for (what, body) in cases {
        let error = error_of(&cleanup(&body));
        assert!(
            matches!(error, CallError::Trap { .. } | CallError::Nonsense(_)),
            "{what}: {error}"
        );
    }
}

#[test]
fn an_answer_larger_than_the_limit_is_not_copied() {
    let large = "(drop (memory.grow (i32.const 64))) (i32.store8 (i32.const 512) (i32.const 1))
        (i32.store (i32.const 520) (i32.const 0))
        (i32.store (i32.const 524) (i32.const 0x200000)) i32.const 512";
    let error = error_of(&cleanup(large));
    assert!(matches!(error, CallError::Nonsense(_)), "{error}");
}

#[test]
fn a_list_of_millions_of_charges_is_not_copied() {
    let runtime = runtime();
    // 250,000 charges of 56 bytes, all zeros, fit into 14 MB of memory.
    let list = "(drop (memory.grow (i32.const 224)))
        (i32.store (i32.const 512) (i32.const 1024)) (i32.store (i32.const 516) (i32.const 250000))
        i32.const 512";
    let plugin = runtime.load(&billing(list)).unwrap();
    let error = plugin
        .billing(&facts::billing(vec![facts::window(1)]))
        .unwrap_err();
    assert!(matches!(error, CallError::Nonsense(_)), "{error}");
    assert_still_serves(&runtime);
}

#[test]
fn no_call_sees_what_another_left_in_memory() {
    // It waits for as many ms as it was called before, as far as it can tell.
    let counting = "(i32.store (i32.const 600) (i32.add (i32.load (i32.const 600)) (i32.const 1)))
        (i64.store (i32.const 520) (i64.extend_i32_u (i32.load (i32.const 600)))) i32.const 512";
    let plugin: LoadedPlugin = runtime().load(&cleanup(counting)).unwrap();
    let answers: Vec<_> = (0..3)
        .map(|_| plugin.cleanup(&facts::cleanup(1, 1)).unwrap())
        .collect();
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[1], answers[2]);
}

#[test]
fn more_calls_at_once_than_there_are_places_for_all_get_their_turn() {
    let plugin = runtime().load(&cleanup_after(5)).unwrap();
    std::thread::scope(|scope| {
        let ask = || plugin.cleanup(&facts::cleanup(1, 1)).unwrap();
        let calls: Vec<_> = (0..100).map(|_| scope.spawn(ask)).collect();
        for call in calls {
            call.join().unwrap();
        }
    });
}

#[test]
fn a_component_of_more_instances_than_the_limit_is_refused() {
    let many = crate::component::cleanup_beside("", 100);
    let runtime = runtime();
    let error = runtime.load(&many).err().unwrap();
    assert!(error.to_string().contains("instances"), "{error}");
    assert_still_serves(&runtime);
}

#[test]
fn a_component_of_more_memories_or_tables_than_the_limit_is_refused() {
    for more in ["(memory 1)", "(table 1 funcref)"] {
        let many = crate::component::cleanup_beside(more, 40);
        let runtime = runtime();
        assert!(runtime.load(&many).is_err(), "{more}");
        assert_still_serves(&runtime);
    }
}
