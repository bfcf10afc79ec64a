//! Revisions, activation, rollback, shadow, and what of them a restart keeps.

use std::collections::BTreeSet;

use roost_engine::{EngineError, Push};
use roost_model::*;
use roost_store::Change;

use crate::host::component::{ALLOW, DENY, admission, recovery};
use crate::host::{Host, in_process};
use crate::{binding, by, name, push, state};

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_goes_from_pushed_to_active_to_retired_and_back() {
    let host = Host::start(in_process()).await;
    let first = host.push("p", admission(ALLOW)).await;
    assert_eq!(
        (first.revision, first.state.clone()),
        (1, RevisionState::Validated)
    );
    assert_eq!(first.hooks, BTreeSet::from([Hook::Admission]));
    let again = host.push("p", admission(ALLOW)).await;
    assert_eq!(again, first, "pushing the newest again changes nothing");
    host.activate("p", None).await;
    host.push("p", admission(DENY)).await;
    let plugin = host.activate("p", None).await;
    assert_eq!((plugin.active, plugin.previous), (Some(2), Some(1)));
    assert_eq!(
        (state(&plugin, 1), state(&plugin, 2)),
        ("retired", "active")
    );

    let back = host.engine.roll_back_plugin(&name("p")).await.unwrap();
    assert_eq!((back.active, back.rolled_back), (Some(1), Some(2)));
    assert_eq!((state(&back, 1), state(&back, 2)), ("active", "retired"));
    let twice = host.engine.roll_back_plugin(&name("p")).await.unwrap();
    assert_eq!(twice, back, "a rollback that is repeated changes nothing");

    let forward = host.activate("p", Some(2)).await;
    assert_eq!((forward.active, forward.previous), (Some(2), Some(1)));
    assert_eq!(forward.rolled_back, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_nothing_to_roll_back_before_a_second_activation() {
    let host = Host::start(in_process()).await;
    host.push("p", admission(ALLOW)).await;
    host.activate("p", None).await;
    let refused = host.engine.roll_back_plugin(&name("p")).await;
    assert!(
        matches!(refused, Err(EngineError::NothingToRollBack(_))),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_kept_with_the_reason_and_can_not_be_used() {
    let host = Host::start(in_process()).await;
    let cases = [
        (
            push("p", b"\0asm\x0d\0\x01\0 truncated".to_vec()),
            "invalid-component",
        ),
        (
            Push {
                settings: "[]".to_owned(),
                ..push("p", admission(ALLOW))
            },
            "invalid-settings",
        ),
        (
            Push {
                settings: format!("{{\"x\":\"{}\"}}", "x".repeat(70 << 10)),
                ..push("p", admission(ALLOW))
            },
            "invalid-settings",
        ),
    ];
    for (expected, (push, kind)) in (1..).zip(cases) {
        match host.engine.push_plugin(push).await {
            Err(error @ EngineError::Refused { revision, .. }) => {
                assert_eq!((revision, error.kind()), (expected, kind), "{error}");
                let plugin = host.plugin("p");
                let kept = plugin.revision(revision).unwrap();
                let reason = error.to_string();
                assert_eq!(kept.state, RevisionState::Failed { reason });
                assert!(kept.settings.len() < 70 << 10);
            }
            other => panic!("{other:?}"),
        }
        let activated = host
            .engine
            .activate_plugin(&name("p"), Some(expected))
            .await;
        assert!(
            matches!(
                activated,
                Err(EngineError::RevisionNotUsable {
                    state: "failed",
                    ..
                })
            ),
            "{activated:?}"
        );
        let component = host.engine.component(&name("p"), expected);
        assert!(matches!(
            component,
            Err(EngineError::ComponentNotKept { .. })
        ));
    }
    let none = host.engine.activate_plugin(&name("p"), None).await;
    assert!(
        matches!(none, Err(EngineError::NothingUsable(_))),
        "{none:?}"
    );
    host.event(0, |kind| {
        matches!(kind, EventKind::PluginRefused { revision: 3, .. })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_lacks_a_bound_hook_is_not_activated() {
    let host = Host::start(in_process()).await;
    host.install("p", Hook::Admission, admission(ALLOW)).await;
    host.push("p", recovery(ALLOW)).await;
    let refused = host.engine.activate_plugin(&name("p"), None).await;
    assert!(
        matches!(
            refused,
            Err(EngineError::HookBound {
                hook: Hook::Admission,
                ..
            })
        ),
        "{refused:?}"
    );
    assert_eq!(host.plugin("p").active, Some(1));
    host.engine
        .unbind(Hook::Admission, &name("p"))
        .await
        .unwrap();
    assert_eq!(host.activate("p", None).await.active, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_revisions_are_forgotten_with_their_components() {
    let host = Host::start(in_process()).await;
    // Twelve components that differ in what they do not do.
    for n in 0..14 {
        let component = admission(&format!("(drop (i32.const {n})) {ALLOW}"));
        host.push("p", component).await;
        host.activate("p", None).await;
    }
    let plugin = host.plugin("p");
    let kept: Vec<u64> = plugin.revisions.iter().map(|r| r.revision).collect();
    // The active one, the one before, and ten more.
    assert_eq!(kept, (3..=14).collect::<Vec<_>>());
    for revision in &plugin.revisions {
        assert!(host.engine.blobs().contains(&revision.digest));
    }
    let components = std::fs::read_dir(host.dir.path().join("blobs")).unwrap();
    let bundled = 4;
    assert_eq!(components.count(), kept.len() + bundled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_something_else_uses_is_not_removed_with_a_revision() {
    let host = Host::start(in_process()).await;
    let shared = admission(ALLOW);
    host.push("keeper", shared.clone()).await;
    // The same component, refused because of its settings under another name.
    let refused = Push {
        settings: "1".to_owned(),
        ..push("other", shared)
    };
    host.engine.push_plugin(refused).await.unwrap_err();
    host.install("keeper", Hook::Admission, admission(ALLOW))
        .await;
    let host = host.restart(in_process()).await;
    host.create("asked", roost_guests::HELLO).await;
    let last = host.decisions(Hook::Admission).pop().unwrap();
    assert_eq!(by(&last.decided_by), "keeper 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_revisions_bindings_and_the_shadow() {
    let host = Host::start(in_process()).await;
    host.install("p", Hook::Admission, admission(ALLOW)).await;
    let monitor = Binding {
        mode: BindingMode::Monitor,
        instance: InstanceMode::Warm,
        ..binding("q", Hook::Admission)
    };
    host.push("q", admission(DENY)).await;
    host.activate("q", None).await;
    host.engine.bind(monitor).await.unwrap();
    host.push("p", admission(DENY)).await;
    host.engine.shadow_plugin(&name("p"), None).await.unwrap();
    host.engine
        .unbind(Hook::Billing, &name("billing-meter"))
        .await
        .unwrap();
    let (plugins, bindings) = (
        host.engine.plugins().unwrap(),
        host.engine.store().bindings().unwrap(),
    );

    let host = host.restart(in_process()).await;
    assert_eq!(host.engine.plugins().unwrap(), plugins);
    assert_eq!(host.engine.store().bindings().unwrap(), bindings);
    host.create("asked", roost_guests::HELLO).await;
    let last = host.decisions(Hook::Admission).pop().unwrap();
    assert_eq!(by(&last.decided_by), "p 1");
    let mut others: Vec<_> = last.calls[1..]
        .iter()
        .map(|call| (call.plugin.as_str(), call.revision, call.mode))
        .collect();
    others.sort_unstable();
    assert_eq!(
        others,
        [("p", 2, CallMode::Shadow), ("q", 1, CallMode::Monitor)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_a_killed_host_left_unchecked_is_checked_by_the_next() {
    let host = Host::start(in_process()).await;
    host.push("p", admission(ALLOW)).await;
    let mut plugin = host.plugin("p");
    let digest = plugin.revisions[0].digest;
    plugin.revisions[0].state = RevisionState::Uploaded;
    plugin.revisions[0].hooks.clear();
    let unchecked = vec![Change::PutPlugin(plugin)];
    host.engine.store().commit(unchecked).await.unwrap();
    let last = host.engine.store().last_event().unwrap();

    let host = host.restart(in_process()).await;
    host.event(last, |kind| matches!(kind, EventKind::PluginPushed { .. }))
        .await;
    let plugin = host.plugin("p");
    assert_eq!(
        (state(&plugin, 1), plugin.revisions[0].digest),
        ("validated", digest)
    );
    assert_eq!(plugin.revisions[0].hooks, BTreeSet::from([Hook::Admission]));
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_changes_under_load_lose_and_double_no_decision() {
    const CHANGES: usize = 500;
    let host = Host::start(in_process()).await;
    host.install("p", Hook::Admission, admission(ALLOW)).await;
    // It allows too, and is another component.
    host.push("p", admission(&format!("nop {ALLOW}"))).await;
    let template = host.create("template", roost_guests::HELLO).await.spec;
    let before = host.decisions(Hook::Admission).len();

    let changing = {
        let engine = host.engine.clone();
        tokio::spawn(async move {
            for change in 0..CHANGES {
                if change % 2 == 0 {
                    engine.activate_plugin(&name("p"), Some(2)).await.unwrap();
                } else {
                    engine.roll_back_plugin(&name("p")).await.unwrap();
                }
            }
        })
    };
    let creating = (0..4).map(|worker| {
        let (engine, template) = (host.engine.clone(), template.clone());
        tokio::spawn(async move {
            let mut created = Vec::new();
            for n in 0..100 {
                let mut spec = template.clone();
                spec.name = name(&format!("vm-{worker}-{n}"));
                created.push(engine.create(spec).await.unwrap().id);
            }
            created
        })
    });
    let mut created = BTreeSet::new();
    for worker in creating.collect::<Vec<_>>() {
        created.extend(worker.await.unwrap());
    }
    changing.await.unwrap();

    let decisions = host.decisions(Hook::Admission).split_off(before);
    let about: Vec<_> = decisions.iter().map(|d| d.vm.unwrap()).collect();
    assert_eq!(about.len(), created.len(), "one decision for each VM");
    assert_eq!(about.into_iter().collect::<BTreeSet<_>>(), created);
    let deciders: BTreeSet<_> = decisions.iter().map(|d| by(&d.decided_by)).collect();
    let both = BTreeSet::from(["p 1".to_owned(), "p 2".to_owned()]);
    assert_eq!(deciders, both, "nobody else ever decided");
    for decision in &decisions {
        assert_eq!(decision.calls.len(), 1, "{decision:?}");
    }
    assert_eq!(host.plugin("p").active, Some(1));
}
