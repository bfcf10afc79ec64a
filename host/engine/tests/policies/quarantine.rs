//! A revision that keeps failing is left alone, over restarts, until time or an operator says
//! otherwise.

use roost_model::*;

use crate::host::component::{ALLOW, TRAP, admission};
use crate::host::{Host, in_process};
use crate::{by, name, state};

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_is_an_event_outlives_the_host_and_ends_at_an_operators_word() {
    let host = Host::start(in_process()).await;
    host.install("p", Hook::Admission, admission(ALLOW)).await;
    host.push("p", admission(TRAP)).await;
    host.activate("p", None).await;
    let mut failures = 0;
    while state(&host.plugin("p"), 2) != "quarantined" {
        failures += 1;
        assert!(failures < 100, "it is never quarantined");
        host.create(&format!("vm-{failures}"), roost_guests::HELLO)
            .await;
    }
    let quarantined = host
        .event(0, |kind| {
            matches!(kind, EventKind::PluginQuarantined { .. })
        })
        .await;
    let EventKind::PluginQuarantined {
        plugin,
        revision,
        until_ms,
        ..
    } = quarantined.event.kind
    else {
        unreachable!()
    };
    assert_eq!((plugin.as_str(), revision), ("p", 2));
    assert!(until_ms.unwrap() > quarantined.event.at_ms);

    let host = host.restart(in_process()).await;
    let shown = host.engine.show_plugin(&name("p")).unwrap();
    assert_eq!(state(&shown.plugin, 2), "quarantined");
    assert_eq!(shown.quarantine.unwrap().revision, 2);
    host.create("while-quarantined", roost_guests::HELLO).await;
    let last = host.decisions(Hook::Admission).pop().unwrap();
    assert_eq!(by(&last.decided_by), "builtin");
    assert_eq!(last.calls[0].outcome, CallOutcome::Quarantined);

    let readmitted = host.engine.readmit_plugin(&name("p")).unwrap();
    assert_eq!(state(&readmitted, 2), "active");
    host.event(quarantined.number, |kind| {
        matches!(
            kind,
            EventKind::PluginReadmitted {
                by_operator: true,
                ..
            }
        )
    })
    .await;
    assert_eq!(host.engine.store().quarantines().unwrap(), []);
    host.create("asked-again", roost_guests::HELLO).await;
    let last = host.decisions(Hook::Admission).pop().unwrap();
    assert!(matches!(last.calls[0].outcome, CallOutcome::Failed { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_leaves_the_quarantined_revision_and_decides_at_once() {
    let host = Host::start(in_process()).await;
    host.install("p", Hook::Admission, admission(ALLOW)).await;
    host.push("p", admission(TRAP)).await;
    host.activate("p", None).await;
    let mut n = 0;
    while state(&host.plugin("p"), 2) != "quarantined" {
        n += 1;
        assert!(n < 100, "it is never quarantined");
        host.create(&format!("vm-{n}"), roost_guests::HELLO).await;
    }
    let back = host.engine.roll_back_plugin(&name("p")).await.unwrap();
    assert_eq!((state(&back, 1), state(&back, 2)), ("active", "retired"));
    host.create("after", roost_guests::HELLO).await;
    let last = host.decisions(Hook::Admission).pop().unwrap();
    assert_eq!(by(&last.decided_by), "p 1");
}
