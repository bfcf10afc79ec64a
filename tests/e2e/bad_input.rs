//! Bad input: each is a clear error, and the host goes on serving.

#[allow(dead_code)]
#[path = "host.rs"]
mod host;

use host::Host;

/// After whatever was refused, a VM still boots and prints.
fn assert_serves(host: &Host) {
    host.boot_hello("proof");
    host.roost(&["vm", "delete", "proof"]);
}

fn create(host: &Host, more: &[&str]) -> String {
    let kernel = host.file("good", roost_guests::HELLO);
    let arguments = [&["vm", "create", "--name", "bad"], more].concat();
    let arguments: Vec<&str> = arguments
        .iter()
        .map(|a| if *a == "GOOD" { kernel.as_str() } else { a })
        .collect();
    host.refused(&arguments)
}

#[test]
fn what_is_no_kernel_or_no_vm_is_refused_by_name() {
    let host = Host::start();
    let text = host.file("text", b"not a kernel\n");
    let truncated = host.file("cut", &roost_guests::HELLO[..200]);
    let initrd = host.file("initrd", &vec![1; 100 << 20]);
    let cases: [(&[&str], &str); 11] = [
        (&["--kernel", &text], "expected an ELF vmlinux or a bzImage"),
        (&["--kernel", &truncated], "truncated"),
        (&["--kernel", "/no/such/file"], "there is no file"),
        (&["--kernel", "no:image"], "there is no image no:image"),
        (
            &["--kernel", "GOOD", "--initrd", &initrd, "--memory", "64"],
            "initrd",
        ),
        (&["--kernel", "GOOD", "--vcpus", "0"], "vcpus is 0"),
        (&["--kernel", "GOOD", "--vcpus", "10000"], "vcpus is 10000"),
        (&["--kernel", "GOOD", "--memory", "0"], "memory_mib is 0"),
        (
            &["--kernel", "GOOD", "--memory", "10485760"],
            "memory_mib is 10485760",
        ),
        (&["--kernel", "GOOD", "--cmdline", "a\u{1}b"], "0x01"),
        (&["--kernel", "GOOD", "--label", "x"], "KEY=VALUE"),
    ];
    for (arguments, expected) in cases {
        let error = create(&host, arguments);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    assert_eq!(
        host.roost(&["vm", "list"])["items"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
    assert_serves(&host);
}

/// Each limit is the option of `roost serve` that it is named after.
#[test]
fn a_vm_that_there_is_no_room_for_is_refused_with_the_options_name() {
    for limit in roost_model::CapacityLimit::all() {
        let host = Host::start_with(&[&format!("--{limit}"), "0"]);
        let error = create(&host, &["--kernel", "GOOD"]);
        let expected = format!("the limit {limit} is 0");
        assert!(error.contains(&expected), "{expected}: {error}");
    }
}

#[test]
fn unknown_fields_and_illegal_verbs_are_refused_with_the_facts() {
    let host = Host::start();
    let spec = host.file("spec.json", br#"{"name":"bad","kernel":"a:b","gpu":1}"#);
    let error = host.refused(&["vm", "create", "--spec", &spec]);
    assert!(error.contains("unknown field `gpu`"), "{error}");
    let kernel = host.file("good", roost_guests::HELLO);
    host.roost(&["vm", "create", "--name", "idle", "--kernel", &kernel]);
    let error = host.refused(&["vm", "pause", "idle"]);
    assert!(
        error.contains("pause is not legal while the VM is stopped"),
        "{error}"
    );
    assert!(error.contains("legal: boot, delete"), "{error}");
    let error = host.refused(&["vm", "boot", "nobody"]);
    assert!(error.contains("there is no VM \"nobody\""), "{error}");
    assert_eq!(
        host.roost(&["vm", "delete", "nobody"])["already_absent"],
        true
    );
    assert_serves(&host);
}

#[test]
fn hostile_components_are_refused_and_nothing_else_happens() {
    let host = Host::start();
    let component = |body: &str| wat::parse_str(format!("(component {body})")).unwrap();
    let looping = component(
        r#"(core module $m (func $s (loop (br 0))) (start $s)
             (memory (export "mem") 1) (func (export "describe") (result i32) (i32.const 0))
             (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0)))
           (core instance $i (instantiate $m))
           (instance $p) (export "roost:policy/recovery@0.1.0" (instance $p))"#,
    );
    let cases: [(&str, Vec<u8>, &str); 6] = [
        (
            "text",
            b"hello".to_vec(),
            "expected a WebAssembly component",
        ),
        ("empty", Vec::new(), "expected a WebAssembly component"),
        ("module", wat::parse_str("(module)").unwrap(), "core module"),
        ("nothing", component(""), "no policy interface"),
        ("native", b"\x7fELF and more".to_vec(), "native code"),
        ("looping", looping, "the component is refused"),
    ];
    for (name, bytes, expected) in cases {
        let file = host.file(name, &bytes);
        let error = host.refused(&["plugin", "push", "bad", &file]);
        assert!(error.contains(expected), "{name}: {error}");
    }
    // What is left of it is what was refused, and why.
    let plugin = host.roost(&["plugin", "show", "bad"]);
    let revisions = plugin["revisions"].as_array().unwrap();
    assert!(!revisions.is_empty());
    assert!(
        revisions.iter().all(|r| r["state"] == "failed"),
        "{revisions:?}"
    );
    let error = host.refused(&["plugin", "activate", "bad"]);
    assert!(error.contains("no revision that passed"), "{error}");
    assert_serves(&host);
}
