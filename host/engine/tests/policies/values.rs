//! Values of plugins: written with the effect of the decision, or not at all.

use std::collections::BTreeSet;

use roost_engine::{EngineError, Push};
use roost_model::*;

use crate::host::component::counting;
use crate::host::{Host, in_process};
use crate::{binding, name, push};

impl Host {
    /// What the counting policy has counted.
    fn counted(&self) -> u64 {
        let snapshot = self.engine.store().snapshot().unwrap();
        let value = snapshot.kv_get(&name("counts"), "n").unwrap();
        value.map_or(0, |value| u64::from_le_bytes(value.try_into().unwrap()))
    }

    async fn count(&self) {
        let granted = Push {
            grants: Some(BTreeSet::from([Grant::Kv])),
            ..push("counts", counting())
        };
        self.engine.push_plugin(granted).await.unwrap();
        self.activate("counts", None).await;
        self.engine
            .bind(binding("counts", Hook::Admission))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_not_granted_is_refused_when_it_is_pushed() {
    let host = Host::start(in_process()).await;
    match host.engine.push_plugin(push("counts", counting())).await {
        Err(error @ EngineError::Refused { .. }) => {
            assert!(error.to_string().contains("kv"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_at_once_count_each_vm_once_and_those_without_effect_not() {
    let host = Host::start(in_process()).await;
    let template = host.create("template", roost_guests::HELLO).await.spec;
    host.count().await;
    let creating = (0..24).map(|n| {
        let (engine, mut spec) = (host.engine.clone(), template.clone());
        // Two of each name: one of them is created.
        spec.name = name(&format!("vm-{}", n / 2));
        tokio::spawn(async move { engine.create(spec).await })
    });
    let mut created = 0;
    for creating in creating.collect::<Vec<_>>() {
        match creating.await.unwrap() {
            Ok(_) => created += 1,
            Err(EngineError::NameTaken { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(created, 12);
    assert_eq!(host.counted(), 12);
    let kv = host.engine.show_plugin(&name("counts")).unwrap().kv;
    assert_eq!((kv.keys, kv.bytes), (1, 9));
    let host = host.restart(in_process()).await;
    assert_eq!(host.counted(), 12);
    host.create("one-more", roost_guests::HELLO).await;
    assert_eq!(host.counted(), 13);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_watches_stores_nothing() {
    let host = Host::start(in_process()).await;
    host.count().await;
    let monitor = Binding {
        mode: BindingMode::Monitor,
        ..binding("counts", Hook::Admission)
    };
    host.engine.bind(monitor).await.unwrap();
    host.create("vm", roost_guests::HELLO).await;
    assert_eq!(host.counted(), 0);
}
