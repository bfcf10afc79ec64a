//! The example does what it says.

use std::path::Path;
use std::process::Command;

fn run(guest: &[u8], cmdline: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let kernel = dir.path().join("kernel");
    std::fs::write(&kernel, guest).unwrap();
    let component = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../plugins/target/components/recovery-leave-stopped.wasm");
    let output = Command::new(env!("CARGO_BIN_EXE_embed"))
        .args([kernel.as_os_str(), component.as_os_str(), cmdline.as_ref()])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_guest_that_ends_in_order_needs_no_decision() {
    let output = run(roost_guests::HELLO, "ticks=2");
    assert!(output.contains("cmdline: ticks=2\n"), "{output}");
    assert!(output.contains("tick 2\n"), "{output}");
    assert!(!output.contains("decided"), "{output}");
    assert!(output.ends_with("state: stopped\n"), "{output}");
}

#[test]
fn the_component_decides_about_a_guest_that_faults() {
    let output = run(roost_guests::TRIPLE_FAULT, "");
    assert!(
        output.contains(r#"decided: {"action":"leave-stopped"}"#),
        "{output}"
    );
    assert!(output.ends_with("state: stopped\n"), "{output}");
}
