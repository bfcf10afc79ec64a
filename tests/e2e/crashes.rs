//! What is killed comes back or is cleaned up.

#[allow(dead_code)]
#[path = "host.rs"]
mod host;

use std::os::unix::fs::MetadataExt as _;

use host::{Host, is_alive, kill, signal};

#[test]
fn a_killed_worker_is_an_incident_and_a_new_incarnation_prints() {
    let host = Host::start();
    host.boot_hello("web");
    kill(host.worker("web").unwrap());
    host.until("incarnation 2", || {
        let record = host.roost(&["vm", "show", "web"]);
        (record["incarnation"] == 2 && record["state"] == "running").then_some(())
    });
    host.until("its ticks", || {
        host.log("web").contains("tick 1\n").then_some(())
    });
    let incidents = host.roost(&["incidents", "web"]);
    assert_eq!(incidents["items"][0]["incident_kind"], "worker-exit");
    assert_eq!(incidents["items"][0]["status"], "signal 9");
    assert_eq!(incidents["items"][0]["decision"]["action"], "restart");
}

#[test]
fn a_guest_ticks_on_through_the_death_of_its_host_and_is_ruled_by_the_next() {
    let mut host = Host::start();
    host.boot_hello("web");
    let worker = host.worker("web");
    let before = host.log("web");
    host.kill_and_restart();
    host.until("adoption", || {
        let record = host.roost(&["vm", "show", "web"]);
        (record["state"] == "running").then_some(())
    });
    assert_eq!(host.worker("web"), worker);
    host.until("more ticks", || {
        (host.log("web").len() > before.len()).then_some(())
    });
    assert!(
        host.log("web").starts_with(&before),
        "its output goes on where it was"
    );
    host.roost(&["vm", "pause", "web"]);
    host.roost(&["vm", "resume", "web"]);
    let audit = host.roost(&["audit"]);
    assert_eq!(audit["divergences"], serde_json::json!([]));
    assert_eq!(audit["checked"], 1);
    for nothing in [["actions", "list"], ["cleanup", "list"]] {
        assert_eq!(host.roost(&nothing)["items"], serde_json::json!([]));
    }
    host.roost(&["vm", "delete", "web"]);
    assert!(!is_alive(worker.unwrap()));
    assert_eq!(
        std::fs::read_dir(host.data().join("run")).unwrap().count(),
        0
    );
}

#[test]
fn host_and_worker_killed_together_leave_an_incident_and_a_working_vm() {
    let mut host = Host::start();
    host.boot_hello("web");
    let worker = host.worker("web").unwrap();
    kill(worker);
    host.kill_and_restart();
    host.until("incarnation 2", || {
        let record = host.roost(&["vm", "show", "web"]);
        (record["incarnation"] == 2 && record["state"] == "running").then_some(())
    });
    let usage = host.roost(&["usage", "web"]);
    let windows = usage["windows"].as_array().unwrap();
    let crashed: Vec<_> = windows.iter().filter(|w| w["incarnation"] == 1).collect();
    assert_eq!(crashed.last().unwrap()["source"], "last-acknowledged");
}

#[test]
fn a_second_host_on_the_same_data_is_refused_before_it_touches_anything() {
    let host = Host::start();
    host.boot_hello("web");
    let worker = host.worker("web");
    let socket = host.data().join("roost.sock");
    let inode = |path: &std::path::Path| std::fs::metadata(path).unwrap().ino();
    let before = inode(&socket);
    let events = |host: &Host| {
        let events = host.roost(&["events"]);
        let of_hosts = events["items"].as_array().unwrap().iter();
        of_hosts
            .filter(|event| event["kind"] == "host-started")
            .count()
    };
    let elsewhere = host.dir.path().join("elsewhere.sock");
    let elsewhere = elsewhere.to_str().unwrap();
    for more in [&[] as &[&str], &["--listen", elsewhere], &["--stop-vms"]] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_roost"))
            .args(["serve", "--data"])
            .arg(host.data())
            .args(more)
            .output()
            .unwrap();
        assert!(!output.status.success());
        assert_eq!(output.stdout, b"");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("in use by another process"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert_eq!(inode(&socket), before);
        assert!(!std::path::Path::new(elsewhere).exists());
    }
    assert_eq!(host.worker("web"), worker);
    assert_eq!(events(&host), 1);
    host.roost(&["vm", "pause", "web"]);
}

#[test]
fn a_worker_that_hangs_is_killed_and_a_new_incarnation_prints() {
    let host = Host::start();
    host.boot_hello("web");
    let hung = host.worker("web").unwrap();
    signal("-STOP", hung);
    host.until("incarnation 2", || {
        let record = host.roost(&["vm", "show", "web"]);
        (record["incarnation"] == 2 && record["state"] == "running").then_some(())
    });
    assert!(!is_alive(hung));
    host.until("its ticks", || {
        host.log("web").contains("tick 1\n").then_some(())
    });
    let incidents = host.roost(&["incidents", "web"]);
    assert_eq!(incidents["items"][0]["incident_kind"], "worker-hung");
    assert_eq!(incidents["items"][0]["unanswered"], 3);
}

#[test]
fn a_boot_deadline_holds_through_the_death_of_the_host() {
    let mut host = Host::start();
    let kernel = host.file("silent", roost_guests::SILENT);
    host.roost(&[
        "vm",
        "create",
        "--name",
        "silent",
        "--kernel",
        &kernel,
        "--memory",
        "64",
        "--boot-deadline",
        "3",
    ]);
    host.roost(&["vm", "boot", "silent"]);
    host.kill_and_restart();
    host.until("the incident", || {
        let incidents = host.roost(&["incidents", "silent"]);
        let items = incidents["items"].as_array().cloned().unwrap_or_default();
        let stalled = |incident: &&serde_json::Value| {
            incident["incident_kind"] == "boot-stalled" && incident["incarnation"] == 1
        };
        let found = items.iter().find(stalled).cloned();
        found.map(|incident| assert_eq!(incident["deadline_ms"], 3000))
    });
    // No other incident came before it: the next host took the worker over.
    let events = host.roost(&["events"]);
    let adopted = |event: &serde_json::Value| event["kind"] == "worker-adopted";
    assert!(events["items"].as_array().unwrap().iter().any(adopted));
}

#[test]
fn a_guest_that_ends_is_restarted_under_always_until_the_vm_is_given_up_or_its_user_boots_it() {
    let host = Host::start();
    let component = host.file("recovery-restart.wasm", b"");
    host.roost(&["plugin", "download", "recovery-restart", "1", &component]);
    let settings =
        r#"{"restart": "always", "base_ms": 1, "max_attempts": 2, "window_ms": 3600000}"#;
    host.roost(&[
        "plugin",
        "push",
        "recovery-restart",
        &component,
        "--settings",
        settings,
    ]);
    host.roost(&["plugin", "activate", "recovery-restart"]);
    let kernel = host.file("hello", roost_guests::HELLO);
    host.roost(&[
        "vm",
        "create",
        "--name",
        "brief",
        "--kernel",
        &kernel,
        "--memory",
        "64",
        "--cmdline",
        "ticks=1",
        "--recover-on-end",
    ]);
    for last in [3, 6] {
        host.roost(&["vm", "boot", "brief"]);
        host.until("it is given up", || {
            let record = host.roost(&["vm", "show", "brief"]);
            (record["incarnation"] == last && record["state"] == "failed").then_some(())
        });
        let incidents = host.roost(&["incidents", "brief"]);
        let told: Vec<_> = incidents["items"].as_array().unwrap()[..3]
            .iter()
            .map(|incident| {
                let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
                let kind = text(&incident["incident_kind"]);
                (kind, text(&incident["decision"]["action"]))
            })
            .collect();
        let of = |action: &str| ("guest-ended".to_owned(), action.to_owned());
        assert_eq!(told, [of("mark-failed"), of("restart"), of("restart")]);
    }
}
