//! Requests to a VM that is busy, on the command line.

#[allow(dead_code)]
#[path = "host.rs"]
mod host;

use host::Host;
use serde_json::Value;

fn id(operation: &Value) -> &str {
    operation["id"].as_str().unwrap()
}

/// A VM whose guest is told to end, hears nothing, and is waited for.
fn shutting_down(host: &Host) -> Value {
    host.boot_hello("web");
    let shutdown = host.roost(&["vm", "shutdown", "web", "--deadline", "600", "--no-wait"]);
    host.until("the wait for the guest", || {
        let shown = host.roost(&["operations", "show", id(&shutdown)]);
        (shown["doing"] == "waiting for the guest to end by itself").then_some(())
    });
    shutdown
}

#[test]
fn a_request_to_a_busy_vm_waits_its_turn_and_is_waited_for() {
    let host = Host::start();
    let shutdown = shutting_down(&host);
    let boot = host.roost(&["vm", "boot", "web", "--no-wait"]);
    assert_eq!(boot["status"], "queued");
    let refused = host.refused(&["vm", "boot", "web"]);
    assert!(
        refused.contains("after boot, boot is not legal"),
        "{refused}"
    );
    // Bounded, and told by the status.
    let late = host.refused(&["operations", "wait", id(&boot), "--timeout", "0"]);
    assert!(late.contains("queued: waiting for its turn"), "{late}");

    let cancelled = host.roost(&["operation", "cancel", id(&shutdown)]);
    assert_eq!(cancelled["status"], "cancelled");
    let failed = host.refused(&["operations", "wait", id(&boot)]);
    assert!(
        failed.contains("not legal while the VM is running"),
        "{failed}"
    );
    let over = host.refused(&["operation", "cancel", id(&boot)]);
    assert!(over.contains("it has failed already"), "{over}");
    // The list is where it was, by itself and by name.
    for list in [&["operations", "web"][..], &["operations", "list", "web"]] {
        let listed = host.roost(list);
        assert_eq!(listed["items"][0]["status"], "failed", "{listed}");
        assert_eq!(listed["items"].as_array().unwrap().len(), 4);
    }
    host.until("it ticks on", || {
        host.log("web").contains("tick 3\n").then_some(())
    });
    assert_eq!(host.roost(&["vm", "show", "web"])["incarnation"], 1);
}

#[test]
fn an_operation_whose_id_was_told_outlives_the_host() {
    let mut host = Host::start();
    let shutdown = shutting_down(&host);
    let boot = host.roost(&["vm", "boot", "web", "--no-wait"]);
    host.kill_and_restart();
    let waiting = host.roost(&["operations", "show", id(&boot)]);
    assert_eq!(waiting["status"], "queued");
    // A delete is the last, and nobody waits for the guest of a VM that is to go away.
    let delete = host.roost(&["vm", "delete", "web"]);
    assert_eq!(delete["status"], "succeeded");
    for operation in [&shutdown, &boot] {
        let done = host.roost(&["operations", "show", id(operation)]);
        assert_eq!(done["status"], "succeeded", "{done}");
    }
    assert_eq!(host.roost(&["vm", "list"])["items"], serde_json::json!([]));
}
