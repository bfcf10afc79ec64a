//! Components that are hostile, on a host that is running VMs and cleaning up after them.

mod components;
#[allow(dead_code)]
#[path = "../host.rs"]
mod host;
mod scene;
mod table;

use components::{GROW, LOOP, recovery};
use host::{Host, kill};
use serde_json::Value;

#[test]
fn a_decision_that_loops_or_grows_is_made_by_the_host_and_the_vm_comes_back() {
    // An emulated CPU takes a while to grow that far.
    let host = Host::start_with(&["--policy-deadline", "2000"]);
    host.boot_hello("web");
    for (round, (decide, expected)) in [(LOOP, "did not answer within"), (GROW, "memory")]
        .into_iter()
        .enumerate()
    {
        let file = host.file("bad.wasm", &recovery(decide));
        host.roost(&["plugin", "push", "bad", &file]);
        host.roost(&["plugin", "activate", "bad"]);
        host.roost(&["plugin", "bind", "recovery", "bad"]);
        kill(host.worker("web").unwrap());
        let incarnation = round + 2;
        host.until("the next incarnation", || {
            let record = host.roost(&["vm", "show", "web"]);
            (record["incarnation"] == incarnation && record["state"] == "running").then_some(())
        });
        let events = host.roost(&["events"]);
        let of = |kind: &str| -> Vec<Value> {
            let events = events["items"].as_array().unwrap();
            events
                .iter()
                .filter(|event| event["kind"] == kind)
                .cloned()
                .collect()
        };
        let failed = of("policy-failed");
        let error = failed.last().unwrap()["error"].as_str().unwrap();
        assert!(error.contains(expected), "{error}");
        assert_eq!(
            of("recovery-decided").last().unwrap()["decided_by"]["by"],
            "builtin"
        );
    }
}
