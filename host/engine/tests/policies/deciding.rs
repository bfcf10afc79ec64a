//! The journal of decisions: what is in it, and with what it is written.

use roost_engine::EngineError;
use roost_model::*;

use crate::host::component::{ALLOW, DENY, LEAVE_STOPPED, MARK_FAILED, TRAP, admission, recovery};
use crate::host::{Host, in_process};
use crate::{binding, by, name};

#[tokio::test(flavor = "multi_thread")]
async fn every_decision_of_a_vms_life_is_in_the_journal() {
    let host = Host::start(in_process()).await;
    let vm = host.create("lives", roost_guests::TRIPLE_FAULT).await.id;
    host.succeed(vm, Verb::Boot).await;
    host.event(0, |kind| matches!(kind, EventKind::RecoveryDecided { .. }))
        .await;
    host.succeed(vm, Verb::Delete).await;

    let admissions = host.decisions(Hook::Admission);
    let requests: Vec<_> = admissions.iter().map(|d| &d.facts["request"]).collect();
    assert_eq!(requests[..2], ["create", "boot"]);
    let recoveries = host.decisions(Hook::Recovery);
    let incidents = host.engine.store().incidents(Some(vm), usize::MAX).unwrap();
    let decided = incidents.iter().filter(|i| i.decision.is_some()).count();
    assert_eq!(recoveries.len(), decided, "one for each incident");
    let billings = host.decisions(Hook::Billing);
    let windows = billings
        .iter()
        .flat_map(|d| d.facts["windows"].as_array().unwrap());
    let closed = host.engine.store().windows(Some(vm), usize::MAX).unwrap();
    assert_eq!(
        windows.count(),
        closed.len(),
        "each window was asked about once"
    );
    for decision in admissions.iter().chain(&recoveries).chain(&billings) {
        assert_eq!(decision.vm, Some(vm));
        assert_eq!(decision.tenant, Some(Tenant::default()));
        assert!(matches!(decision.decided_by, DecidedBy::Plugin { .. }));
        assert!(!decision.differs);
        assert_eq!(decision.facts["context"]["settings"], "");
        assert!(!decision.decision.is_null());
        assert_eq!(decision.calls.len(), 1);
    }
    assert_eq!(recoveries[0].incarnation, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_is_in_the_journal_and_nothing_else_is_left_of_it() {
    let host = Host::start(in_process()).await;
    let template = host.create("template", roost_guests::HELLO).await;
    host.install("strict", Hook::Admission, admission(DENY))
        .await;
    let mut spec = template.spec.clone();
    spec.name = name("refused");
    match host.engine.create(spec).await {
        Err(EngineError::Denied { by, reason }) => {
            assert_eq!((by.as_str(), reason.as_str()), ("strict revision 1", "no"));
        }
        other => panic!("{other:?}"),
    }
    let last = host.decisions(Hook::Admission).pop().unwrap();
    assert_eq!(last.decision, serde_json::json!({ "deny": "no" }));
    assert_eq!(host.engine.store().vms().unwrap().len(), 1);
    assert_eq!(host.engine.store().vm(last.vm.unwrap()).unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_watches_is_recorded_where_it_differs_and_not_used() {
    let host = Host::start(in_process()).await;
    host.install("p", Hook::Admission, admission(ALLOW)).await;
    host.push("p", admission(DENY)).await;
    host.engine.shadow_plugin(&name("p"), None).await.unwrap();
    for (plugin, component) in [("agrees", ALLOW), ("traps", TRAP)] {
        host.push(plugin, admission(component)).await;
        host.activate(plugin, None).await;
        let monitor = Binding {
            mode: BindingMode::Monitor,
            ..binding(plugin, Hook::Admission)
        };
        host.engine.bind(monitor).await.unwrap();
    }
    host.create("created", roost_guests::HELLO).await;

    let decision = host.decisions(Hook::Admission).pop().unwrap();
    assert_eq!(by(&decision.decided_by), "p 1");
    assert!(decision.differs);
    let call = |plugin: &str, revision| {
        let mut calls = decision.calls.iter();
        calls
            .find(|c| c.plugin == plugin && c.revision == revision)
            .unwrap()
    };
    let used = call("p", 1);
    assert_eq!((used.mode, used.differs), (CallMode::Enforce, false));
    let shadow = call("p", 2);
    assert_eq!((shadow.mode, shadow.differs), (CallMode::Shadow, true));
    let denied = serde_json::json!({ "deny": "no" });
    assert_eq!(
        shadow.outcome,
        CallOutcome::Decided {
            decision: Some(denied)
        }
    );
    let agrees = call("agrees", 1);
    assert_eq!((agrees.mode, agrees.differs), (CallMode::Monitor, false));
    let traps = call("traps", 1);
    assert!(!traps.differs);
    assert!(
        matches!(&traps.outcome, CallOutcome::Failed { failure, .. } if failure == "trap"),
        "{traps:?}"
    );
    let lines = host.engine.plugin_logs(&name("traps"), 0, 99).unwrap();
    assert_eq!((lines.len(), lines[0].level), (1, "error"));

    // Once it is not in the shadow any more, it is not asked.
    host.engine.unshadow_plugin(&name("p")).await.unwrap();
    host.create("later", roost_guests::HELLO).await;
    let decision = host.decisions(Hook::Admission).pop().unwrap();
    assert!(!decision.differs);
    assert!(decision.calls.iter().all(|call| call.revision == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_and_its_decision_are_one_commit() {
    let host = Host::start(in_process()).await;
    host.install("stays", Hook::Recovery, recovery(LEAVE_STOPPED))
        .await;
    host.push("stays", recovery(MARK_FAILED)).await;
    host.engine
        .shadow_plugin(&name("stays"), None)
        .await
        .unwrap();
    let vm = host.create("faults", roost_guests::TRIPLE_FAULT).await.id;
    host.succeed(vm, Verb::Boot).await;
    // The moment that the event is there, the decision is, too.
    host.event(0, |kind| matches!(kind, EventKind::RecoveryDecided { .. }))
        .await;
    let decisions = host.decisions(Hook::Recovery);
    assert_eq!(decisions.len(), 1);
    assert_eq!(decisions[0].decision["action"], "leave-stopped");
    assert!(decisions[0].differs);
    assert_eq!(host.record(vm).state, VmState::Stopped);
}
