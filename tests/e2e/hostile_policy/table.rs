//! Every way to be hostile that we know of, each a test of its own. A new one is a line here.

use crate::components::{
    GROW, LOOP, ZEROS, admission, beside, cleanup, counting, describing, giving_up, impostor,
    looking_for, nested, slow_to_compile, validating,
};
use crate::host::Host;
use crate::scene::{Case, NAME, calls, contained, fails, harmless, refused, stuck};

macro_rules! hostile {
    ($($name:ident: $case:expr;)*) => {
        $(#[test]
        fn $name() {
            contained(&$case);
        })*
    };
}

hostile! {
    // Time.
    an_endless_loop_in_the_call: fails(|_| cleanup(LOOP, ""), "deadline", "did not answer within");
    an_endless_loop_in_the_start_function: refused(
        |_| cleanup("unreachable", "(func $start (loop (br 0))) (start $start)"),
        "did not answer within");
    an_endless_loop_in_describe: refused(|_| describing(LOOP), "did not answer within");
    an_endless_loop_in_validate_settings: refused(|_| validating(LOOP), "did not answer within");
    a_component_made_to_be_slow_to_compile: Case {
        options: &["--compile-time", "2"],
        ..refused(|_| slow_to_compile(), "compiling it took longer than 2s")
    };

    // Space.
    memory_that_grows: fails(|_| cleanup(GROW, ""), "memory", "16777216 bytes of memory");
    memory_that_grows_in_describe: refused(|_| describing(GROW), "16777216 bytes of memory");
    a_table_that_grows: fails(
        |_| cleanup(
            "(if (i32.eq (table.grow (ref.null func) (i32.const 1000000)) (i32.const -1))
                (then unreachable)) i32.const 256",
            "(table 1 funcref)"),
        "memory", "more than its limit");
    instances_without_number: refused(|_| beside("", 100), "instances");
    memories_without_number: refused(|_| beside("(memory 1)", 40), "memories");
    recursion_without_end: fails(
        |_| cleanup("(call $deeper) i32.const 256", "(func $deeper (call $deeper))"),
        "trap", "stack");

    // Answers.
    a_huge_answer: fails(
        |_| giving_up("(drop (memory.grow (i32.const 64)))", 0, 2 << 20, ""),
        "nonsense", "fuel");
    an_answer_beyond_its_memory: fails(
        |_| giving_up("", 65_000, 10_000, ""), "nonsense", "out of bounds");
    an_answer_that_is_not_utf_8: fails(
        |_| giving_up("", 1024, 2, r#"(data (i32.const 1024) "\c3\28")"#), "nonsense", "utf-8");
    an_answer_of_control_characters: harmless(
        |_| giving_up("", 1024, 12, r#"(data (i32.const 1024) "\1b[2J\r\n\07\e2\80\aeok")"#),
        control_characters_reach_no_terminal);
    a_delay_of_u64_max: fails(
        |_| cleanup("(i64.store (i32.const 520) (i64.const -1)) i32.const 512", ""),
        "nonsense", "a delay of 18446744073709551615 ms");
    an_answer_nested_deeper_than_any_type_of_ours: refused(
        |_| nested(90), "does not match roost:policy@0.1.0");
    an_answer_nested_deeper_than_any_type_may_be: refused(|_| nested(1000), "it does not compile");

    // Files.
    a_component_of_100_mb: refused(|_| oversized(100 << 20), "larger than");
    a_truncated_component: refused(
        |_| { let whole = cleanup(ZEROS, ""); whole[..whole.len() / 2].to_vec() },
        "it does not compile");
    a_precompiled_artifact: refused(precompiled, "native code");

    // What it reaches for.
    an_import_that_is_not_granted: refused(
        |_| admission(GET_VALUE, "unreachable", ""), "needs the grant \"kv\"");
    an_import_that_nobody_is_granted: refused(|_| calling_http(), "which no policy gets");
    another_tenants_vm: Case {
        push: &["--grant", "query"],
        ..harmless(owned_by_another, another_tenants_vm_is_none)
    };
    state_of_another_tenant_in_a_warm_instance: harmless(
        |_| counting(), a_warm_instance_serves_one_tenant);

    // What it claims to be.
    an_export_of_the_right_name_with_the_wrong_type: refused(
        |_| impostor(
            "decide: func(attempts: u32) -> u64;",
            r#"(func (export "roost:policy/cleanup@0.1.0#decide") (param i32) (result i64)
                i64.const 0)"#),
        "roost:policy/cleanup@0.1.0 does not match");
}

const GET_VALUE: &str = r#"(import "roost:policy/host@0.1.0" "kv-get" (func (param i32 i32 i32)))"#;

/// A policy with a section behind it that nobody reads.
fn oversized(bytes: usize) -> Vec<u8> {
    let mut component = cleanup(ZEROS, "");
    component.resize(bytes, 0);
    component
}

/// What this very host compiled, without its seal of 32 bytes.
fn precompiled(host: &Host) -> Vec<u8> {
    let artifacts = std::fs::read_dir(host.data().join("policies")).unwrap();
    let artifact = artifacts
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|ending| ending == "artifact"));
    std::fs::read(artifact.unwrap()).unwrap().split_off(32)
}

/// A policy that would send what it sees elsewhere.
fn calling_http() -> Vec<u8> {
    wat::parse_str(
        r#"(component
            (import "wasi:http/outgoing-handler@0.2.0" (instance (export "handle" (func))))
            (instance $none) (export "roost:policy/observer@0.1.0" (instance $none)))"#,
    )
    .unwrap()
}

fn control_characters_reach_no_terminal(host: &Host) {
    host.roost(&["plugin", "bind", "cleanup", NAME]);
    let (vm, _) = stuck(host);
    host.until("it is asked", || calls(host, "cleanup", &vm).pop());
    let actions = host.until("what a person must do", || {
        let actions = host.roost(&["actions", "list"]);
        let items = actions["items"].as_array()?;
        items.first().map(|action| action["what"].clone())
    });
    assert_eq!(actions, "\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}\u{fffd}ok");
    let show = |format: &str| {
        let output = host.run_as(format, &["actions", "list"]);
        String::from_utf8(output.stdout).unwrap()
    };
    for shown in [show("table"), show("json")] {
        assert!(shown.contains("[2J"), "{shown}");
        let moves = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!shown.contains(moves), "{shown:?}");
    }
}

/// A VM of the tenant `a`.
fn owned_by_another(host: &Host) -> Vec<u8> {
    let kernel = host.file("of-a", roost_guests::HELLO);
    let create = ["vm", "create", "--tenant", "a", "--name", "own"];
    let vm = host.roost(&[&create[..], &["--kernel", &kernel]].concat());
    looking_for(vm["id"].as_str().unwrap())
}

/// What is said when a VM of a tenant is denied.
fn denial(host: &Host, tenant: &str) -> String {
    let kernel = host.file("denied", roost_guests::HELLO);
    let create = ["vm", "create", "--tenant", tenant, "--name", "denied"];
    let arguments = [&create[..], &["--kernel", &kernel, "--label", "denied=yes"]].concat();
    host.refused(&arguments).trim_end().to_owned()
}

/// Has it decide about the VMs that are to be denied, and no others.
fn bind_to_denied(host: &Host, instance: &str) {
    let bind = ["plugin", "bind", "admission", NAME, "--label", "denied=yes"];
    host.roost(&[&bind[..], &["--instance", instance]].concat());
}

fn another_tenants_vm_is_none(host: &Host) {
    bind_to_denied(host, "fresh");
    let (of_a, of_b) = (denial(host, "a"), denial(host, "b"));
    assert!(of_a.ends_with(": seen"), "{of_a}");
    assert!(of_b.ends_with(": none"), "{of_b}");
}

fn a_warm_instance_serves_one_tenant(host: &Host) {
    bind_to_denied(host, "warm");
    for (tenant, asked) in [("a", 1), ("a", 2), ("b", 1), ("a", 3), ("b", 2)] {
        let denial = denial(host, tenant);
        assert!(
            denial.ends_with(&format!(": {asked}")),
            "{tenant}: {denial}"
        );
    }
}
