//! A node that lacks KVM while its host runs.

mod host;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use host::Host;
use host::fake::Fake;
use roost_model::{FailureKind, OperationState, Verb, VmState};
use roost_worker::InProcessBackend;

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn where_no_vm_can_be_made_a_boot_says_why_and_so_does_readiness() {
    let no_kvm = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap();
    let host = Host::start(Arc::new(InProcessBackend::new(no_kvm))).await;
    let vm = host.create("vm", roost_guests::HELLO).await.id;
    let operation = host.engine.submit(vm, Verb::Boot, None).await.unwrap();
    let operation = host.engine.wait(operation.id, LONG).await.unwrap();
    let OperationState::Failed { error } = operation.state else {
        panic!("{operation:?}");
    };
    assert!(error.contains("KVM_GET_API_VERSION"), "{error}");
    let VmState::Failed { failure } = host.record(vm).state else {
        panic!("{:?}", host.record(vm));
    };
    assert_eq!(
        (failure.kind, &failure.detail),
        (FailureKind::Start, &error)
    );
    let ready = host.engine.ready().await;
    let kvm = ready.iter().find(|check| check.name == "kvm").unwrap();
    assert!(
        !kvm.ok && kvm.detail.contains("KVM_GET_API_VERSION"),
        "{kvm:?}"
    );
    host.succeed(vm, Verb::Delete).await;
    assert_eq!(host.run_dirs(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn kvm_that_is_lost_leaves_running_vms_alone_and_comes_back() {
    let backend = Fake::new();
    let host = Host::start(backend.clone()).await;
    let vm = host.create("vm", roost_guests::HELLO).await.id;
    host.succeed(vm, Verb::Boot).await;
    backend.unusable.store(true, Ordering::Relaxed);
    let is_ready = async || host.engine.ready().await.iter().all(|check| check.ok);
    assert!(!is_ready().await);
    assert_eq!(host.record(vm).state, VmState::Running);
    backend.unusable.store(false, Ordering::Relaxed);
    assert!(is_ready().await);
}
