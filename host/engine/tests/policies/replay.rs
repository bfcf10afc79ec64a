//! Asking a candidate about recorded facts.

use roost_engine::{Candidate, EngineError, Replay};
use roost_model::*;

use crate::host::component::{ALLOW, DENY, TRAP, admission, recovery};
use crate::host::{Host, in_process};
use crate::{by, name};

fn replay(candidate: Candidate) -> Replay {
    Replay {
        plugin: name("p"),
        candidate,
        hook: None,
        limit: None,
    }
}

fn component(bytes: Vec<u8>) -> Candidate {
    Candidate::Component {
        bytes,
        settings: String::new(),
        grants: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_shows_where_a_candidate_decides_otherwise_and_changes_nothing() {
    let host = Host::start(in_process()).await;
    host.install("p", Hook::Admission, admission(ALLOW)).await;
    for n in 0..5 {
        host.create(&format!("vm-{n}"), roost_guests::HELLO).await;
    }
    let before = (host.plugin("p"), host.engine.store().last_event().unwrap());

    let same = host
        .engine
        .replay(replay(component(admission(ALLOW))))
        .await;
    let same = same.unwrap();
    assert_eq!((same.replayed, same.same, same.differing), (5, 5, 0));
    assert!(same.complete && same.items.is_empty());

    let denies = host.engine.replay(replay(component(admission(DENY)))).await;
    let denies = denies.unwrap();
    assert_eq!((denies.replayed, denies.differing), (5, 5));
    let item = &denies.items[0];
    assert_eq!(
        (&item.recorded, by(&item.recorded_by)),
        (&"allow".into(), "p 1".to_owned())
    );
    assert_eq!(item.candidate, Some(serde_json::json!({ "deny": "no" })));
    assert!(item.number > denies.items[4].number, "the newest first");

    let traps = host.engine.replay(replay(component(admission(TRAP)))).await;
    let traps = traps.unwrap();
    assert_eq!((traps.failed, traps.items.len()), (5, 5));
    assert!(traps.items[0].error.as_ref().unwrap().contains("trap"));

    let two = Replay {
        limit: Some(2),
        ..replay(Candidate::Revision(None))
    };
    let two = host.engine.replay(two).await.unwrap();
    assert_eq!((two.replayed, two.candidate.revision), (2, Some(1)));

    let after = (host.plugin("p"), host.engine.store().last_event().unwrap());
    assert_eq!(after, before);
    assert_eq!(host.decisions(Hook::Admission).len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_is_asked_only_about_what_it_exports() {
    let host = Host::start(in_process()).await;
    host.install("p", Hook::Admission, admission(ALLOW)).await;
    host.create("vm", roost_guests::HELLO).await;
    let other = host.engine.replay(replay(component(recovery(ALLOW)))).await;
    assert_eq!(other.unwrap().replayed, 0);
    let not_exported = Replay {
        hook: Some(Hook::Billing),
        ..replay(Candidate::Revision(None))
    };
    let refused = host.engine.replay(not_exported).await;
    assert!(
        matches!(refused, Err(EngineError::NotExported { .. })),
        "{refused:?}"
    );
    let broken = host.engine.replay(replay(component(b"no".to_vec()))).await;
    assert!(
        matches!(broken, Err(EngineError::Component(_))),
        "{broken:?}"
    );
    // A place that a refusal took is free again.
    host.engine
        .replay(replay(Candidate::Revision(None)))
        .await
        .unwrap();
}
