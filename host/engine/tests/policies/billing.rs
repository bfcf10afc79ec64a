//! A billing policy that fails gives nothing away: windows wait until one decides.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use roost_engine::{Clock, SystemClock};
use roost_model::*;

use crate::binding;
use crate::host::component::{TRAP, billing};
use crate::host::{Host, in_process};
use crate::name;

/// Boots a VM, and waits for it to run.
async fn run(host: &Host, vm: &str) -> VmId {
    let vm = host.create(vm, roost_guests::HELLO).await.id;
    host.succeed(vm, Verb::Boot).await;
    host.output(vm, "tick 1\n").await;
    vm
}

/// The machine's clock, so many ms ahead.
struct Ahead(Arc<AtomicU64>);

impl Clock for Ahead {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms() + self.0.load(Ordering::Relaxed)
    }
}

/// For how long windows have waited to be charged for, seconds, as the metrics say.
async fn lag(host: &Host) -> u64 {
    let metrics = host.engine.metrics().await.unwrap();
    let mut lines = metrics.lines();
    let lag = lines.find_map(|line| line.strip_prefix("roost_billing_lag_seconds "));
    lag.unwrap().parse().unwrap()
}

fn outbox(host: &Host) -> Vec<UsageWindow> {
    host.engine.store().outbox(usize::MAX).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_wait_for_a_policy_that_fails_over_the_end_of_their_vm_and_of_the_host() {
    let ahead = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&ahead);
    let host = Host::start_with(in_process(), move |config| {
        config.clock = Arc::new(Ahead(Arc::clone(&clock)));
    })
    .await;
    host.install("p", Hook::Billing, billing(TRAP)).await;
    let (gone, stays) = (run(&host, "gone").await, run(&host, "stays").await);
    host.succeed(stays, Verb::Shutdown).await;
    host.succeed(gone, Verb::Delete).await;
    let failed = |kind: &EventKind| matches!(kind, EventKind::PolicyFailed { .. });
    host.event(0, failed).await;
    let store = host.engine.store();
    assert_eq!(store.vm(gone).unwrap(), None);
    assert_eq!(store.departed(gone).unwrap().unwrap().id, gone);

    let host = host.restart(in_process()).await;
    let last = host.engine.store().last_event().unwrap();
    host.event(last, failed).await;
    let vms: BTreeSet<VmId> = outbox(&host).iter().map(|window| window.key.vm).collect();
    assert_eq!(vms, BTreeSet::from([gone, stays]));
    assert_eq!(host.engine.store().charges(None, 9).unwrap(), []);

    ahead.store(3_600_000, Ordering::Relaxed);
    let waited = lag(&host).await;
    assert!((3_600..7_200).contains(&waited), "{waited}");

    // The bundled policy decides from now on.
    let unbound = host.engine.unbind(Hook::Billing, &name("p")).await;
    unbound.unwrap();
    host.until("all is charged for", || outbox(&host).is_empty())
        .await;
    assert_eq!(lag(&host).await, 0);
    let store = host.engine.store();
    assert_eq!(store.departed(gone).unwrap(), None);
    let windows = store.windows(None, usize::MAX).unwrap();
    let mut charged: Vec<WindowKey> = (store.charges(None, usize::MAX).unwrap().iter())
        .filter(|charge| charge.item == "vcpu-time")
        .map(|charge| charge.window)
        .collect();
    charged.sort_unstable();
    let windows: Vec<WindowKey> = windows.iter().map(|window| window.key).collect();
    assert_eq!(charged, windows, "each window once");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_windows_wait_than_may() {
    let host = Host::start_with(in_process(), |config| config.max_waiting_windows = 0).await;
    host.install("p", Hook::Billing, billing(TRAP)).await;
    let vm = run(&host, "web").await;
    host.succeed(vm, Verb::Delete).await;
    host.until("nothing waits", || outbox(&host).is_empty())
        .await;
    let charged = |kind: &EventKind| matches!(kind, EventKind::Charged { .. });
    let charged = host.event(0, charged).await.event.kind;
    let EventKind::Charged {
        charges,
        decided_by,
    } = charged
    else {
        unreachable!()
    };
    assert_eq!((charges, decided_by), (vec![], DecidedBy::Builtin));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_prices_nothing_waits() {
    let host = Host::start(in_process()).await;
    let bundled = name("billing-meter");
    host.engine.unbind(Hook::Billing, &bundled).await.unwrap();
    // One that only monitors has nothing to say, even if it fails.
    host.push("p", billing(TRAP)).await;
    host.activate("p", None).await;
    let monitors = Binding {
        mode: BindingMode::Monitor,
        ..binding("p", Hook::Billing)
    };
    host.engine.bind(monitors).await.unwrap();
    let vm = run(&host, "web").await;
    host.succeed(vm, Verb::Delete).await;
    host.until("nothing waits", || outbox(&host).is_empty())
        .await;
    assert_eq!(host.engine.store().charges(None, 9).unwrap(), []);
}
