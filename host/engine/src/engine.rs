//! The engine as its callers see it.

use std::collections::HashMap;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use roost_model::{
    AuditReport, Control, DESCRIPTORS_PER_VM, DesiredState, DeviceReport, Effect, EventKind, Grace,
    Image, Name, NotCancellable, Operation, OperationId, OperationState, Origin, Tenant, Verb,
    VmId, VmRecord, VmSpec, VmState,
};
use roost_policy::PolicyHost;
use roost_store::{BlobWriter, Blobs, Change, CommitError, Conflict, Expect, Store};
use roost_worker::{Backend, ControlError, SerialChunk};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::actor::Actor;
use crate::config::Config;
use crate::context::{Context, ReadyCheck, new_uuid};
use crate::descriptors;
use crate::error::{EngineError, StartError};
use crate::images::blocking;
use crate::logs::Log;
use crate::plugins::{Attempts, Settled};
use crate::{alarm, audit, billing, cleanup, journal, plugins};

/// The lifecycle of every VM on this host. Clones share one engine.
#[derive(Clone)]
pub struct Engine {
    pub(crate) context: Arc<Context>,
    tasks: Arc<Tasks>,
}

/// The background tasks, ended with the last clone of the engine.
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Engine {
    /// Starts the engine on what the store holds: loads the policies, takes over the workers
    /// that still run, finishes or undoes the operations that were under way.
    ///
    /// It returns as soon as every VM has its actor; the actors take over side by side, and
    /// requests to a VM wait until its actor is done with that.
    ///
    /// # Errors
    /// [`StartError`] when the run directory, the store or a policy can't be used.
    pub async fn start(
        config: Config,
        store: Store,
        blobs: Blobs,
        policies: PolicyHost,
        backend: Arc<dyn Backend>,
    ) -> Result<Self, StartError> {
        make_run_dir(&config.run_dir).map_err(|source| StartError::RunDirectory {
            path: config.run_dir.clone(),
            source,
        })?;
        let context = Arc::new(Context::new(config, store, blobs, policies, backend)?);
        context.load_policies().await?;
        can_take_over(&context.store.vms().map_err(EngineError::from)?)?;
        let last_event = context.store.last_event().map_err(EngineError::from)?;
        let started = context.host_event(EventKind::HostStarted {
            pid: std::process::id(),
        });
        let started = vec![Change::AppendEvent(started)];
        context
            .write(Effect::WriteHostStarted, started)
            .await
            .map_err(EngineError::from)?;

        let records = context.store.vms().map_err(EngineError::from)?;
        let mut unfinished: HashMap<VmId, Vec<Operation>> = HashMap::new();
        for operation in context
            .store
            .unfinished_operations()
            .map_err(EngineError::from)?
        {
            unfinished.entry(operation.vm).or_default().push(operation);
        }
        for record in &records {
            context.leases.restore(record);
        }
        context.resume_drain()?;
        for record in records {
            let operations = unfinished.remove(&record.id).unwrap_or_default();
            spawn(&context, record, operations);
        }
        context.go_on_draining();
        let tasks = vec![
            tokio::spawn(cleanup::run(Arc::clone(&context))),
            tokio::spawn(billing::run(Arc::clone(&context))),
            tokio::spawn(audit::run(Arc::clone(&context))),
            tokio::spawn(plugins::run_quarantines(Arc::clone(&context))),
            tokio::spawn(plugins::run_observers(Arc::clone(&context), last_event)),
            tokio::spawn(finish_checks(Arc::clone(&context))),
            tokio::spawn(alarm::run(Arc::clone(&context))),
        ];
        Ok(Self {
            context,
            tasks: Arc::new(Tasks(tasks)),
        })
    }

    /// Stops taking requests and lets go of the workers, which go on.
    pub async fn shutdown(&self) {
        for task in &self.tasks.0 {
            task.abort();
        }
        // Without a sender left, each actor ends after what it is doing.
        let actors = self.context.with_actors(std::mem::take);
        let ended: Vec<_> = actors.values().map(crate::actor::ActorRef::ended).collect();
        drop(actors);
        for mut ended in ended {
            while ended.changed().await.is_ok() {}
        }
    }

    /// Makes a VM; it is `stopped` afterwards. Not to be cancelled: a caller that may go away
    /// runs it in a task of its own.
    ///
    /// # Errors
    /// A spec, an image or a limit that does not hold, a name that is taken, a policy's denial.
    pub async fn create(&self, spec: VmSpec) -> Result<VmRecord, EngineError> {
        let context = &self.context;
        spec.validate()?;
        let images = context.resolve_images(&spec).await?;
        let now = context.now_ms();
        let mut record = VmRecord {
            id: VmId::from_uuid(new_uuid()),
            spec,
            kernel: images.kernel,
            initrd: images.initrd,
            disk_images: images.disks,
            disks_made: false,
            macs: Vec::new(),
            vsock_cid: None,
            desired: DesiredState::Stopped,
            state: VmState::Stopped,
            incarnation: 0,
            revision: 1,
            worker: None,
            running_since_ms: None,
            recovery_attempts: 0,
            created_at_ms: now,
            updated_at_ms: now,
        };
        if let Some(by) = context
            .store
            .vm_by_name(&record.spec.tenant, &record.spec.name)?
        {
            let (tenant, name) = (record.spec.tenant, record.spec.name);
            return Err(EngineError::NameTaken {
                tenant,
                name,
                by: by.id,
            });
        }
        let asked = record.spec.clone();
        let mut attempts = Attempts::default();
        loop {
            record.spec = asked.clone();
            let created = match context.admit_create(&mut record, &attempts).await {
                Ok(admitted) => self.create_admitted(&mut record, admitted).await,
                Err(error) => Err(error),
            };
            match created {
                Err(EngineError::Commit(error)) if attempts.again(context, &error).await => {}
                created => return created.map(|()| record),
            }
        }
    }

    /// Gives an admitted VM what no other has, writes it down and starts its actor.
    async fn create_admitted(
        &self,
        record: &mut VmRecord,
        admitted: Settled<()>,
    ) -> Result<(), EngineError> {
        let leases = &self.context.leases;
        if let Err(error) = leases.take(record) {
            let denied = admitted.without_effect();
            self.context.write(Effect::WriteDenied, denied).await?;
            return Err(error);
        }
        let written = self.write_created(record, admitted).await;
        if written.is_err() {
            leases.free(record);
        }
        written
    }

    /// Writes an admitted record and starts its actor.
    async fn write_created(
        &self,
        record: &VmRecord,
        admitted: Settled<()>,
    ) -> Result<(), EngineError> {
        let context = &self.context;
        let mut operation = journal::operation(context, record.id, Verb::Create, Origin::User);
        operation.state = OperationState::Succeeded;
        let ended = EventKind::OperationEnded {
            operation: operation.id,
            verb: Verb::Create,
            error: None,
            cancelled: None,
        };
        let mut changes = vec![
            Change::PutVm {
                record: record.clone(),
                expect: Expect::Absent,
            },
            Change::PutOperation(operation),
            Change::AppendEvent(context.vm_event(
                record,
                EventKind::StateChanged {
                    from: VmState::Creating.name().to_owned(),
                    to: record.state.name().to_owned(),
                },
            )),
            Change::AppendEvent(context.vm_event(record, ended)),
        ];
        changes.extend(admitted.changes.clone());
        let (actor, desk, reference) = Actor::new(Arc::clone(context), record.clone());
        if let Err(exceeded) = context.take_place(record, reference) {
            let denied = admitted.without_effect();
            context.write(Effect::WriteDenied, denied).await?;
            return Err(exceeded.into());
        }
        if let Err(error) = context.write(Effect::WriteCreated, changes).await {
            context.with_actors(|actors| actors.remove(&record.id));
            return Err(match error {
                CommitError::Conflict(Conflict::NameTaken { tenant, name, by }) => {
                    let denied = admitted.without_effect();
                    context.write(Effect::WriteDenied, denied).await?;
                    EngineError::NameTaken { tenant, name, by }
                }
                error => error.into(),
            });
        }
        tokio::spawn(actor.run(desk));
        Ok(())
    }

    /// Asks for `verb`; returns once the operation is journaled: its steps go on, or it waits for
    /// its turn. With `grace`, a guest that a verb ends is first given time to end by itself.
    ///
    /// # Errors
    /// The verb is not legal, a policy denies it, or too many requests wait.
    pub async fn submit(
        &self,
        vm: VmId,
        verb: Verb,
        grace: Option<Grace>,
    ) -> Result<Operation, EngineError> {
        let actor = self
            .context
            .actor(vm)
            .ok_or_else(|| EngineError::VmNotFound(vm.to_string()))?;
        if matches!(verb, Verb::Boot | Verb::Reboot) {
            // The actor looks, too, when it is this request's turn: which may be when the guest has
            // ended, and that would be long to wait for a refusal.
            self.context.ending.check()?;
        }
        match actor.submit(verb, grace).await {
            // It was deleted between finding the actor and reaching it.
            Err(EngineError::ShuttingDown) if self.context.store.vm(vm)?.is_none() => {
                Err(EngineError::VmNotFound(vm.to_string()))
            }
            answer => answer,
        }
    }

    /// Calls off an operation that waits, a boot whose guest does not run yet, or a shutdown or
    /// reboot that waits for its guest. Returns it when that is done, or as it stands after
    /// `timeout`. One that was cancelled before is returned as it is.
    ///
    /// # Errors
    /// There is no such operation, or it can't be called off.
    pub async fn cancel(
        &self,
        operation: OperationId,
        timeout: Duration,
    ) -> Result<Operation, EngineError> {
        let found = self.context.store.operation(operation)?;
        let found = found.ok_or(EngineError::OperationNotFound(operation))?;
        if let Some(over) = over(&found) {
            return over;
        }
        if found.verb == Verb::Shutdown && !found.origin.is_user() {
            return Err(NotCancellable::Emptied(found.origin).into());
        }
        let asked = match self.context.actor(found.vm) {
            Some(actor) => actor.cancel(operation).await,
            None => Err(NotCancellable::TooFar(found.verb).into()),
        };
        let now = self.context.store.operation(operation)?;
        if let Some(over) = now.as_ref().and_then(over) {
            // It ended while it was asked about.
            return over;
        }
        asked?;
        let ended = self.wait(operation, timeout).await?;
        over(&ended).unwrap_or(Ok(ended))
    }

    /// The operation when it is done, or as it stands after `timeout`.
    ///
    /// # Errors
    /// There is no such operation.
    pub async fn wait(
        &self,
        operation: OperationId,
        timeout: Duration,
    ) -> Result<Operation, EngineError> {
        let deadline = Instant::now() + timeout;
        let read = || {
            let found = self.context.store.operation(operation)?;
            found.ok_or(EngineError::OperationNotFound(operation))
        };
        let Some(actor) = self.context.actor(read()?.vm) else {
            return read();
        };
        let mut ended = actor.ended();
        drop(actor);
        loop {
            ended.borrow_and_update();
            let now = read()?;
            if now.is_done() {
                return Ok(now);
            }
            match timeout_at(deadline, ended.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return read(),
            }
        }
    }

    /// The VM that `id_or_name` names: an id, or a name within `tenant` (`default` if none).
    ///
    /// # Errors
    /// There is none, or it belongs to another tenant than the one that was given.
    pub fn find(&self, tenant: Option<&Tenant>, id_or_name: &str) -> Result<VmRecord, EngineError> {
        let not_found = || EngineError::VmNotFound(id_or_name.chars().take(64).collect());
        let store = &self.context.store;
        let found = if let Ok(id) = id_or_name.parse::<VmId>() {
            store.vm(id)?
        } else {
            let name: Name = id_or_name.parse().map_err(|_| not_found())?;
            store.vm_by_name(&tenant.cloned().unwrap_or_default(), &name)?
        };
        found
            .filter(|record| tenant.is_none_or(|tenant| record.spec.tenant == *tenant))
            .ok_or_else(not_found)
    }

    /// Serial output from absolute position `from` on, at most `max` bytes. Older output than
    /// the worker keeps is skipped: the chunk's offset tells.
    ///
    /// # Errors
    /// No such VM, or its worker does not answer.
    pub async fn serial_read(
        &self,
        vm: VmId,
        from: u64,
        max: usize,
    ) -> Result<SerialChunk, EngineError> {
        if let Some(handle) = self.handle(vm)? {
            match handle.serial_read(from, max).await {
                Err(error) if error.has_ended() => {}
                read => return Ok(read?),
            }
        }
        Ok(self.context.kept_log(vm, Log::Serial, from, max).await)
    }

    /// Waits until there is output past `past`, the guest ends, or `timeout` is over; returns
    /// the position of the output's end.
    ///
    /// # Errors
    /// No such VM, or its worker does not answer.
    pub async fn serial_wait(
        &self,
        vm: VmId,
        past: u64,
        timeout: Duration,
    ) -> Result<u64, EngineError> {
        let Some(handle) = self.handle(vm)? else {
            let chunk = self.context.kept_log(vm, Log::Serial, 0, usize::MAX).await;
            return Ok(chunk.offset + chunk.bytes.len() as u64);
        };
        match tokio::time::timeout(timeout, handle.serial_wait(past)).await {
            Ok(Err(error)) if error.has_ended() => Ok(past),
            Ok(end) => Ok(end?),
            Err(_) => Ok(past),
        }
    }

    /// Gives the guest input on its serial port; returns how many bytes were taken.
    ///
    /// # Errors
    /// No such VM, or it does not run.
    pub async fn serial_write(&self, vm: VmId, bytes: &[u8]) -> Result<usize, EngineError> {
        let written = self.running(vm)?.serial_write(bytes).await;
        self.of_running(vm, written)
    }

    /// Has a running guest do something, or changes what it may do until it ends.
    ///
    /// # Errors
    /// No such VM or device, or the VM does not run.
    pub async fn control(&self, vm: VmId, control: Control) -> Result<(), EngineError> {
        let controlled = self.running(vm)?.control(control).await;
        self.of_running(vm, controlled)
    }

    /// What the devices of a running guest report.
    ///
    /// # Errors
    /// No such VM, or it does not run.
    pub async fn devices(&self, vm: VmId) -> Result<DeviceReport, EngineError> {
        let report = self.running(vm)?.devices().await;
        self.of_running(vm, report)
    }

    pub(crate) fn running(&self, vm: VmId) -> Result<Arc<dyn roost_worker::VmHandle>, EngineError> {
        match self.handle(vm)? {
            Some(handle) => Ok(handle),
            None => {
                let record = self.context.store.vm(vm)?;
                let state = record.map_or("deleted", |record| record.state.name());
                let state = state.to_owned();
                Err(EngineError::NotRunning { state })
            }
        }
    }

    /// What a worker answered. One that ended meanwhile is that of a VM that does not run.
    pub(crate) fn of_running<T>(
        &self,
        vm: VmId,
        answer: Result<T, ControlError>,
    ) -> Result<T, EngineError> {
        match answer {
            Err(error) if error.has_ended() => {
                let record = self.context.store.vm(vm)?;
                let state = record.map_or("deleted", |record| match record.state {
                    VmState::Running | VmState::Paused => "losing its worker",
                    state => state.name(),
                });
                let state = state.to_owned();
                Err(EngineError::NotRunning { state })
            }
            answer => Ok(answer?),
        }
    }

    pub(crate) fn handle(
        &self,
        vm: VmId,
    ) -> Result<Option<Arc<dyn roost_worker::VmHandle>>, EngineError> {
        let actor = self
            .context
            .actor(vm)
            .ok_or_else(|| EngineError::VmNotFound(vm.to_string()))?;
        Ok(actor.handle())
    }

    /// The store, for reading. Only the engine writes.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.context.store
    }

    /// The content-addressed files, for uploads.
    #[must_use]
    pub fn blobs(&self) -> &Blobs {
        &self.context.blobs
    }

    /// Finishes an upload and makes it an image, under `tag` if one is given.
    ///
    /// # Errors
    /// The tag is no `name:tag`, or the disk refused.
    pub async fn add_image(
        &self,
        upload: BlobWriter,
        tag: Option<String>,
    ) -> Result<Image, EngineError> {
        self.context.add_image(upload, tag).await
    }

    /// Compares what is written down with what is there; `repair` also has it put right.
    ///
    /// # Errors
    /// The store can't be read or written.
    pub async fn audit(&self, repair: bool) -> Result<AuditReport, EngineError> {
        self.context.audit(repair).await
    }

    /// Returns when everything that each request needs has answered: the store's writer, the
    /// threads for what blocks, and the map of VMs. Never, if one of them hangs.
    pub async fn answers(&self) {
        self.context.store.answers().await;
        // An error is an answer: the runtime is going down.
        let _ = blocking(|| ()).await;
        self.context.with_actors(|_| ());
    }

    /// What an operator's probe asks: whether this host can do its work.
    #[must_use]
    pub async fn ready(&self) -> Vec<ReadyCheck> {
        let mut checks = self.context.ready();
        let context = Arc::clone(&self.context);
        let node = blocking(move || context.node_ready()).await;
        checks.extend(node.into_iter().flatten());
        checks
    }
}

/// Whether this process may open enough files to hold all VMs that run: one that is not taken over
/// is taken for lost.
fn can_take_over(records: &[VmRecord]) -> Result<(), StartError> {
    let vms = records.iter().filter(|record| record.state.has_worker());
    let vms = vms.count() as u64;
    let needed = vms * DESCRIPTORS_PER_VM + DESCRIPTORS_OF_HOST;
    let most = descriptors::limit();
    if vms > 0 && needed > most {
        return Err(StartError::Descriptors { vms, needed, most });
    }
    Ok(())
}

/// What a host without VMs has open, about: the store, the socket, the runtime.
const DESCRIPTORS_OF_HOST: u64 = 32;

/// What a cancel of an operation that is done comes to.
fn over(operation: &Operation) -> Option<Result<Operation, EngineError>> {
    let status = match operation.state {
        OperationState::Queued | OperationState::Running => return None,
        OperationState::Cancelled { .. } => return Some(Ok(operation.clone())),
        OperationState::Succeeded => "succeeded",
        OperationState::Failed { .. } => "failed",
    };
    Some(Err(NotCancellable::Over(status).into()))
}

/// Starts the actor of a record that an earlier host process wrote.
fn spawn(context: &Arc<Context>, record: VmRecord, unfinished: Vec<Operation>) {
    let id = record.id;
    let (mut actor, mut desk, reference) = Actor::new(Arc::clone(context), record);
    context.with_actors(|actors| actors.insert(id, reference));
    tokio::spawn(async move {
        if let Err(error) = actor.take_over(&mut desk, unfinished).await {
            tracing::error!(vm = %id, %error, "the VM could not be taken over");
        }
        actor.run(desk).await;
    });
}

/// Checks what an earlier host process was pushed and did not get to check.
async fn finish_checks(context: Arc<Context>) {
    if let Err(error) = context.finish_checks().await {
        tracing::error!(%error, "a pushed component could not be checked");
    }
}

fn make_run_dir(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}
