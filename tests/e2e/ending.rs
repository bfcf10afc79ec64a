//! How a host ends, and what becomes of its VMs; how a node is emptied.

#[allow(dead_code)]
#[path = "host.rs"]
mod host;

use host::{Host, is_alive};
use serde_json::Value;

fn state(host: &Host, vm: &str) -> (String, String) {
    let record = host.roost(&["vm", "show", vm]);
    let text = |member: &str| record[member].as_str().unwrap().to_owned();
    (text("state"), text("desired"))
}

fn is(state: &str, desired: &str) -> (String, String) {
    (state.to_owned(), desired.to_owned())
}

fn until_running(host: &Host, vm: &str, incarnation: u64) {
    host.until("the next incarnation", || {
        let record = host.roost(&["vm", "show", vm]);
        (record["incarnation"] == incarnation && record["state"] == "running").then_some(())
    });
}

#[test]
fn a_host_that_ends_leaves_its_vms_and_takes_its_socket_away() {
    let mut host = Host::start();
    host.boot_hello("web");
    let worker = host.worker("web").unwrap();
    host.signal("TERM");
    assert!(host.wait_for_end().success());
    assert!(is_alive(worker));
    assert!(!host.data().join("roost.sock").exists());
    host.start_again();
    host.until("adoption", || {
        (host.worker("web") == Some(worker)).then_some(())
    });
    assert_eq!(state(&host, "web"), is("running", "running"));
}

/// The guests here do not hear the power button: only the second signal ends them.
#[test]
fn with_stop_vms_a_second_signal_ends_guests_that_do_not_end_and_the_next_host_boots_them() {
    let mut host = Host::start_with(&["--stop-vms", "--stop-vms-deadline", "600"]);
    host.boot_hello("web");
    host.boot_hello("held");
    host.roost(&["vm", "pause", "held"]);
    let worker = host.worker("web").unwrap();
    host.signal("TERM");
    host.until("the end of the VM that hears nothing", || {
        (state(&host, "held") == is("stopped", "stopped")).then_some(())
    });
    // The API answers all the while, and nothing new is begun.
    host.until("the intent", || {
        (state(&host, "web").0 == "stopping").then_some(())
    });
    let error = host.refused(&["vm", "boot", "held"]);
    assert!(error.contains("the host is shutting down"), "{error}");
    assert!(is_alive(worker));

    host.signal("INT");
    assert!(host.wait_for_end().success());
    assert!(!is_alive(worker));
    host.start_again();
    until_running(&host, "web", 2);
    assert_eq!(state(&host, "held"), is("stopped", "stopped"));
    host.until("its ticks", || {
        host.log("web").contains("tick 1\n").then_some(())
    });
}

#[test]
fn a_host_that_is_killed_while_it_ends_with_its_vms_loses_none_of_them() {
    let now = ["--stop-vms", "--stop-vms-deadline", "0"];
    let fault = ["--fault", "write-stopped:before=host"];
    let mut host = Host::start_with(&[&now[..], &fault[..]].concat());
    host.boot_hello("web");
    host.signal("TERM");
    assert!(!host.wait_for_end().success());
    host.start_again_with(&now);
    until_running(&host, "web", 2);
    let operations = host.roost(&["operations", "web"]);
    let items = operations["items"].as_array().unwrap();
    assert!(
        items
            .iter()
            .all(|operation| operation["status"] == "succeeded")
    );
    assert_eq!(items[1]["verb"], "shutdown");
    assert_eq!(items[1]["origin"], "host");
}

#[test]
fn a_drained_node_takes_and_boots_nothing_until_it_is_told_to_also_after_a_kill() {
    let mut host = Host::start();
    host.boot_hello("web");
    let begun = host.roost(&["drain", "--deadline", "600", "--no-wait"]);
    assert_eq!(begun["state"], "draining");
    assert_eq!(begun["vms"][0]["name"], "web");
    let refused = |host: &Host| {
        let kernel = host.file("hello", roost_guests::HELLO);
        let create = ["vm", "create", "--name", "new", "--kernel", &kernel];
        for command in [
            &create[..],
            &["vm", "boot", "web"],
            &["vm", "reboot", "web"],
        ] {
            let error = host.refused(command);
            let legal = error.contains("is draining") || error.contains("not legal");
            assert!(legal, "{command:?}: {error}");
        }
        assert!(host.refused(&create).contains("the node is draining"));
    };
    refused(&host);
    host.kill_and_restart();
    refused(&host);
    let status = host.roost(&["drain", "--status"]);
    assert_eq!(status["since_ms"], begun["since_ms"]);
    assert_eq!(status["stop_at_ms"], begun["stop_at_ms"]);

    let report = host.roost(&["drain", "--deadline", "0"]);
    assert_eq!(report["state"], "drained");
    assert_eq!(
        (&report["remaining"], &report["vms"]),
        (&0.into(), &Value::Array(vec![]))
    );
    assert_eq!(state(&host, "web"), is("stopped", "stopped"));
    assert_eq!(host.worker("web"), None);
    host.kill_and_restart();
    refused(&host);
    let shown = host.run_as("table", &["drain", "--status"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(
        shown,
        "the node is drained: no VM runs, and none is taken\n"
    );

    assert_eq!(host.roost(&["drain", "--cancel"])["state"], "off");
    assert_eq!(state(&host, "web"), is("stopped", "stopped"));
    host.roost(&["vm", "boot", "web"]);
    let kinds = host.roost(&["events"]);
    let kinds: Vec<_> = kinds["items"].as_array().unwrap().iter().collect();
    let count = |kind: &str| kinds.iter().filter(|event| event["kind"] == kind).count();
    assert_eq!((count("node-draining"), count("node-drain-ended")), (2, 1));
}
