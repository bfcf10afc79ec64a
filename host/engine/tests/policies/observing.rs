//! Observers are told of events, and hold up nobody.

use std::cell::Cell;

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
    let lines = || host.engine.plugin_logs(&name("watcher"), 0, 999).unwrap();
    // It may have been told of its own binding, too.
    let expected = last - bound.number..=last - bound.number + 1;
    let told = Cell::new(0);
    // A call is counted before its line is there.
    host.until("the observer is told", || {
        told.set(lines().len() as u64);
        told.get() >= *expected.start() && host.calls("watcher") == told.get()
    })
    .await;
    assert!(expected.contains(&told.get()), "{told:?}");
    let lines = lines();
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
