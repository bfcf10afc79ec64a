//! One VM in this process, under one Wasm policy, without the daemon.
//!
//! ```sh
//! cargo run -p embed -- KERNEL plugins/target/components/recovery-leave-stopped.wasm
//! ```
//!
//! It boots KERNEL, prints what the guest prints, and, when the guest ends, what the component
//! decided about it, if there was anything to decide.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use roost_engine::{Blobs, Config, Engine, PolicyHost, PolicyRuntime, Push, Store};
use roost_model::{Binding, EventKind, Hook, Verb, VmId, VmSpec};
use roost_worker::InProcessBackend;

/// How long one wait for output may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (kernel, component) = arguments
        .next()
        .zip(arguments.next())
        .context("usage: embed KERNEL COMPONENT [COMMAND LINE]")?;
    let cmdline = arguments.next().unwrap_or_default();

    // An engine whose guests run on threads of this process, in a directory that goes with it.
    let dir = tempfile::tempdir()?;
    let kvm = File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .context("/dev/kvm")?;
    let engine = Engine::start(
        Config::new(dir.path().join("run")),
        Store::open(&dir.path().join("store"))?,
        Blobs::open(&dir.path().join("blobs"))?,
        PolicyHost::new(PolicyRuntime::new(Default::default())?),
        Arc::new(InProcessBackend::new(kvm)),
    )
    .await?;

    // The component decides about incidents, before the bundled policy.
    let name: roost_model::Name = "embedded".parse()?;
    let component = std::fs::read(&component).with_context(|| component.clone())?;
    engine
        .push_plugin(Push {
            name: name.clone(),
            component,
            settings: String::new(),
            grants: None,
        })
        .await?;
    engine.activate_plugin(&name, None).await?;
    let binding = serde_json::json!({ "hook": Hook::Recovery, "plugin": name });
    engine
        .bind(serde_json::from_value::<Binding>(binding)?)
        .await?;

    // A VM.
    let kernel = std::fs::read(&kernel).with_context(|| kernel.clone())?;
    let mut upload = engine.blobs().create(kernel.len() as u64)?;
    upload.write(&kernel)?;
    let image = engine.add_image(upload, None).await?;
    let spec = serde_json::json!({ "name": "guest", "kernel": image.digest, "cmdline": cmdline });
    let vm = engine
        .create(serde_json::from_value::<VmSpec>(spec)?)
        .await?
        .id;
    engine.submit(vm, Verb::Boot, None).await?;

    print_output(&engine, vm).await?;
    for event in engine.store().events(0, usize::MAX)? {
        if let EventKind::RecoveryDecided { action, reason, .. } = event.event.kind {
            println!("decided: {} ({reason})", serde_json::to_string(&action)?);
        }
    }
    let record = engine.store().vm(vm)?.context("the VM's record")?;
    println!("state: {}", record.state);
    let deleted = engine.submit(vm, Verb::Delete, None).await?;
    engine.wait(deleted.id, PATIENCE).await?;
    Ok(())
}

/// Prints the guest's output until its state settles at one without a worker.
async fn print_output(engine: &Engine, vm: VmId) -> Result<()> {
    let mut events = engine.store().watch_events();
    let mut from = 0;
    loop {
        events.borrow_and_update();
        let chunk = engine.serial_read(vm, from, usize::MAX).await?;
        std::io::stdout().write_all(&chunk.bytes)?;
        from = chunk.offset + chunk.bytes.len() as u64;
        let record = engine.store().vm(vm)?.context("the VM's record")?;
        let pending = engine.store().open_incidents()?;
        if record.incarnation > 0 && record.worker.is_none() && pending.is_empty() {
            return Ok(());
        }
        tokio::select! {
            end = engine.serial_wait(vm, from, PATIENCE), if record.worker.is_some() => { end?; }
            changed = events.changed() => changed?,
        }
    }
}
