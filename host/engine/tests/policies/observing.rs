//! Observers are told of events, and hold up nobody.

use roost_model::*;

use crate::host::component::{TRAP, logging_observer, observer};
use crate::host::{Host, in_process};
use crate::name;

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_is_told_of_every_event_once() {
    let host = Host::start(in_process()).await;
    host.install("watcher", Hook::Observer, logging_observer())
        .await;
    let bound = host
        .event(
            0,
            |kind| matches!(kind, EventKind::PluginBound { plugin, .. } if plugin == "watcher"),
        )
        .await;
    for n in 0..5 {
        host.create(&format!("vm-{n}"), roost_guests::HELLO).await;
    }
    let last = host.engine.store().last_event().unwrap();
    // The line is the last that is left of a call.
    let lines = || host.engine.plugin_logs(&name("watcher"), 0, 999).unwrap();
    host.until("the observer is told", || {
        lines().len() as u64 >= last - bound.number
    })
    .await;
    let lines = lines();
    assert_eq!(host.calls("watcher"), lines.len() as u64);
    // It may have been told of its own binding, too.
    let told = lines.len() as u64;
    assert!(
        (last - bound.number..=last - bound.number + 1).contains(&told),
        "{told}"
    );
    assert_eq!(
        (lines[0].level, lines[0].message.as_str()),
        ("info", "an event")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_that_fails_makes_no_events_to_fail_about() {
    let host = Host::start(in_process()).await;
    host.install("traps", Hook::Observer, observer(TRAP)).await;
    host.create("vm", roost_guests::HELLO).await;
    // The line is the last that is left of a failed call.
    host.until("the observer failed", || {
        let lines = host.engine.plugin_logs(&name("traps"), 0, 9).unwrap();
        host.calls("traps") > 0 && !lines.is_empty()
    })
    .await;
    let events = host.engine.store().events(0, usize::MAX).unwrap();
    let failures = events
        .iter()
        .filter(|event| matches!(event.event.kind, EventKind::PolicyFailed { .. }));
    assert_eq!(failures.count(), 0);
}
