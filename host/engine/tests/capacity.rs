//! What VMs may claim of a node: each limit holds, for one after another and for many at once.

mod host;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use host::Host;
use host::component::{ALLOW_WITH_32_VCPUS, admission};
use host::fake::Fake;
use roost_engine::EngineError;
use roost_model::{
    Amounts, Capacity, CapacityExceeded, CapacityLimit, Hook, Quantity, Scope, Tenant, Verb,
    VmRecord, VmSpec,
};

/// The policy that is bundled for admission.
const POLICY: &str = "admission-limits";

fn tenant(name: &str) -> Tenant {
    name.parse().unwrap()
}

/// A spec of two vCPUs and 64 MiB that was created once, so that its kernel is there.
async fn template(host: &Host) -> VmSpec {
    let more = serde_json::json!({ "vcpus": 2 });
    let record = host
        .create_with("template", roost_guests::HELLO, more)
        .await;
    host.succeed(record.id, Verb::Delete).await;
    record.spec
}

fn named(template: &VmSpec, tenant: Tenant, number: u32) -> VmSpec {
    VmSpec {
        name: format!("vm-{number}").parse().unwrap(),
        tenant,
        ..template.clone()
    }
}

/// A host with no limit but `limit`, which has room for `vms` of the template.
async fn with_room(limit: CapacityLimit, vms: u64) -> (Host, VmSpec, u64) {
    let one = Amounts {
        vms: 1,
        vcpus: 2,
        memory_mib: 64,
        descriptors: roost_model::DESCRIPTORS_PER_VM,
    };
    let most = vms * one.get(limit.quantity);
    let host = Host::start_with(Fake::new(), move |config| {
        config.audit_interval = None;
        config.capacity = Capacity::only(limit, most);
    })
    .await;
    let template = template(&host).await;
    assert_eq!(Amounts::of(&template), one);
    (host, template, most)
}

fn exceeded(created: Result<VmRecord, EngineError>) -> CapacityExceeded {
    match created {
        Err(EngineError::Capacity(exceeded)) => exceeded,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_limit_refuses_by_its_name_before_a_policy_is_asked() {
    for limit in CapacityLimit::all() {
        let (host, template, most) = with_room(limit, 2).await;
        let create = |owner: &str, number| {
            let spec = named(&template, tenant(owner), number);
            host.engine.create(spec)
        };
        let first = create("a", 1).await.unwrap();
        create("a", 2).await.unwrap();
        let asked = host.calls(POLICY);

        let refused = CapacityExceeded {
            limit,
            most,
            in_use: most,
            requested: most / 2,
        };
        assert_eq!(exceeded(create("a", 3).await), refused, "{limit}");
        assert_eq!(host.calls(POLICY), asked, "{limit}");
        let of_another = create("b", 1).await;
        match limit.scope {
            Scope::Node => assert_eq!(exceeded(of_another), refused, "{limit}"),
            Scope::Tenant => assert!(of_another.is_ok(), "{limit}: {of_another:?}"),
        }

        host.succeed(first.id, Verb::Delete).await;
        let again = create("a", 3).await;
        assert!(again.is_ok(), "{limit}: {again:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn creates_that_race_do_not_pass_a_limit_together() {
    for limit in CapacityLimit::all() {
        let (host, template, most) = with_room(limit, 3).await;
        let creates: Vec<_> = (0..16)
            .map(|number| {
                let engine = host.engine.clone();
                let spec = named(&template, tenant("a"), number);
                tokio::spawn(async move { engine.create(spec).await })
            })
            .collect();
        let mut created = 0;
        for create in creates {
            match create.await.unwrap() {
                Ok(_) => created += 1,
                refused => assert_eq!(exceeded(refused).in_use, most, "{limit}"),
            }
        }
        assert_eq!(created, 3, "{limit}");
        assert_eq!(host.engine.store().vms().unwrap().len(), 3, "{limit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_adds_to_a_spec_counts() {
    let limit = CapacityLimit {
        scope: Scope::Node,
        quantity: Quantity::Vcpus,
    };
    let (host, template, most) = with_room(limit, 4).await;
    let generous = admission(ALLOW_WITH_32_VCPUS);
    host.install("generous", Hook::Admission, generous).await;
    let refused = exceeded(host.engine.create(named(&template, tenant("a"), 1)).await);
    assert_eq!(
        refused,
        CapacityExceeded {
            limit,
            most,
            in_use: 0,
            requested: 32,
        }
    );
    assert_eq!(host.engine.store().vms().unwrap(), []);
}

/// Every limit is lowered at once, to nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_lowered_limit_leaves_what_is_there_and_refuses_what_is_new() {
    let most = Arc::new(AtomicU64::new(1000));
    let lowered = Arc::clone(&most);
    let backend = Fake::new();
    let host = Host::start_with(backend.clone(), move |config| {
        config.audit_interval = None;
        let most = Some(lowered.load(Ordering::Relaxed));
        for quantity in Quantity::ALL {
            config.capacity.node = config.capacity.node.with(*quantity, most);
            config.capacity.tenant = config.capacity.tenant.with(*quantity, most);
        }
    })
    .await;
    let template = template(&host).await;
    let old = named(&template, tenant("a"), 1);
    let old = host.engine.create(old).await.unwrap().id;

    most.store(0, Ordering::Relaxed);
    let host = host.restart(backend).await;
    host.succeed(old, Verb::Boot).await;
    let new = named(&template, tenant("a"), 2);
    let refused = exceeded(host.engine.create(new).await);
    assert_eq!((refused.most, refused.in_use), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_vms_that_are_created_at_once_share_their_commits() {
    let host = Host::start_with(Fake::new(), |config| config.audit_interval = None).await;
    let template = template(&host).await;
    let before = host.engine.store().transactions();
    let creates: Vec<_> = (0..1000)
        .map(|number| {
            let (engine, spec) = (host.engine.clone(), named(&template, tenant("a"), number));
            tokio::spawn(async move { engine.create(spec).await })
        })
        .collect();
    let mut ids = std::collections::BTreeSet::new();
    for create in creates {
        ids.insert(create.await.unwrap().unwrap().id);
    }
    let commits = host.engine.store().transactions() - before;
    assert_eq!(ids.len(), 1000);
    assert_eq!(host.engine.store().vms().unwrap().len(), 1000);
    // Each has a commit; nobody waits for its turn to make it.
    assert!(commits <= 250, "{commits} transactions for 1000 VMs");
}
