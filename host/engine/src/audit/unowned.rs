//! What no record owns, and files that records name.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use roost_model::{
    CleanupId, CleanupTask, DivergenceKind, Incident, Operation, OperationState, Repair, Resource,
    VmId,
};
use roost_store::Change;
use roost_worker::{Backend as _, WorkerIdentity};

use crate::audit::Inspected;
use crate::context::{Context, new_uuid};
use crate::error::EngineError;

/// What there was on the node, and under way, before any record was read.
pub(super) struct Seen {
    run_dirs: Vec<VmId>,
    disk_dirs: Vec<VmId>,
    workers: Vec<(VmId, WorkerIdentity)>,
    operations: Vec<Operation>,
    incidents: Vec<Incident>,
    windows: Vec<VmId>,
}

type Findings = Vec<(DivergenceKind, Option<VmId>)>;

impl Context {
    pub(super) async fn look_at_node(&self) -> Result<Seen, EngineError> {
        // Without the run directory there is no worker.
        let run_dir = std::fs::canonicalize(&self.config.run_dir).unwrap_or_default();
        let workers = self.backend.workers(&run_dir).unwrap_or_else(|error| {
            tracing::error!(%error, "the processes can't be listed");
            Vec::new()
        });
        let windows = self.store.open_windows()?;
        Ok(Seen {
            run_dirs: vms_in(&self.config.run_dir),
            disk_dirs: vms_in(&self.config.disk_dir),
            workers,
            operations: self.store.unfinished_operations()?,
            incidents: self.store.open_incidents()?,
            windows: windows.iter().map(|window| window.key.vm).collect(),
        })
    }

    /// What of `seen` nobody owns.
    pub(super) async fn unowned(
        &self,
        seen: Seen,
        inspected: &HashMap<VmId, Inspected>,
        busy: &HashSet<VmId>,
    ) -> Result<Findings, EngineError> {
        let records = self.store.vms()?;
        let recorded: HashSet<VmId> = records.iter().map(|record| record.id).collect();
        let queued: HashSet<(VmId, Resource)> = self
            .store
            .cleanup_tasks()?
            .into_iter()
            .chain(
                self.store
                    .actions_required()?
                    .into_iter()
                    .filter_map(|a| a.task),
            )
            .map(|task| (task.vm, task.resource))
            .collect();
        let is_leftover = |vm: &VmId, resource: Resource, dir: &Path| {
            let is_known = recorded.contains(vm) || queued.contains(&(*vm, resource));
            // What was being removed when it was seen is gone by now.
            !is_known && dir.join(vm.to_string()).symlink_metadata().is_ok()
        };
        let mut found = Findings::new();
        for vm in seen.run_dirs {
            if is_leftover(&vm, Resource::RunDirectory, &self.config.run_dir) {
                found.push((DivergenceKind::RunDirectoryUnrecorded, Some(vm)));
            }
        }
        for vm in seen.disk_dirs {
            if is_leftover(&vm, Resource::Disks, &self.config.disk_dir) {
                found.push((DivergenceKind::DisksUnrecorded, Some(vm)));
            }
        }
        for (vm, worker) in seen.workers {
            let WorkerIdentity { pid, start_ticks } = worker;
            let owner = inspected.get(&vm).and_then(|inspected| inspected.worker);
            let is_known = busy.contains(&vm)
                || owner == Some(worker)
                || queued.contains(&(vm, Resource::Worker { pid, start_ticks }))
                // Made since the actors were asked.
                || (recorded.contains(&vm) && !inspected.contains_key(&vm));
            if !is_known && self.backend.is_running(worker).unwrap_or(false) {
                let kind = DivergenceKind::WorkerUnrecorded { pid, start_ticks };
                found.push((kind, Some(vm)));
            }
        }
        for operation in seen.operations {
            let goes_on = |now: Option<Operation>| now.is_some_and(|now| !now.is_done());
            if !recorded.contains(&operation.vm) && goes_on(self.store.operation(operation.id)?) {
                let operation_id = operation.id;
                let kind = DivergenceKind::OperationUnowned {
                    operation: operation_id,
                };
                found.push((kind, Some(operation.vm)));
            }
        }
        let still_open: HashSet<_> = self.store.open_incidents()?.iter().map(|i| i.id).collect();
        for incident in seen.incidents {
            if !recorded.contains(&incident.vm) && still_open.contains(&incident.id) {
                let kind = DivergenceKind::IncidentUnowned {
                    incident: incident.id,
                };
                found.push((kind, Some(incident.vm)));
            }
        }
        for vm in seen.windows {
            if !recorded.contains(&vm) && self.store.open_window(vm)?.is_some() {
                found.push((DivergenceKind::WindowLeft, Some(vm)));
            }
        }
        self.missing_files(&mut found)?;
        Ok(found)
    }

    /// Files that records name and that are not there.
    fn missing_files(&self, found: &mut Findings) -> Result<(), EngineError> {
        for image in self.store.images()? {
            if !self.blobs.contains(&image.digest) {
                let image = image.digest;
                found.push((DivergenceKind::ImageMissing { image }, None));
            }
        }
        for plugin in self.store.plugins()? {
            let active = plugin.active_revision();
            if let Some(active) = active.filter(|active| !self.blobs.contains(&active.digest)) {
                let revision = active.revision;
                let plugin = plugin.name.clone();
                found.push((DivergenceKind::PolicyMissing { plugin, revision }, None));
            }
        }
        Ok(())
    }

    /// What is done about something that nobody owns.
    pub(super) fn repair_unowned(
        &self,
        kind: &DivergenceKind,
        vm: Option<VmId>,
    ) -> (Repair, Vec<Change>) {
        let Some(vm) = vm else {
            return (Repair::None, Vec::new());
        };
        let queue = |resource| {
            let task = self.new_task(vm, resource);
            let repair = Repair::Cleanup { task: task.id };
            (repair, vec![Change::PutCleanup(task)])
        };
        let corrected = |change| (Repair::Corrected, vec![change]);
        match kind {
            DivergenceKind::WorkerUnrecorded { pid, start_ticks } => queue(Resource::Worker {
                pid: *pid,
                start_ticks: *start_ticks,
            }),
            DivergenceKind::RunDirectoryUnrecorded => queue(Resource::RunDirectory),
            DivergenceKind::DisksUnrecorded => queue(Resource::Disks),
            DivergenceKind::WindowLeft => corrected(Change::RemoveOpenWindow(vm)),
            DivergenceKind::OperationUnowned { operation } => {
                match self.store.operation(*operation).ok().flatten() {
                    Some(mut operation) => {
                        operation.updated_at_ms = self.now_ms();
                        operation.state = OperationState::Failed {
                            error: "there is no record of its VM".to_owned(),
                        };
                        corrected(Change::PutOperation(operation))
                    }
                    None => (Repair::None, Vec::new()),
                }
            }
            DivergenceKind::IncidentUnowned { incident } => {
                let open = self.store.open_incidents().unwrap_or_default();
                match open.into_iter().find(|open| open.id == *incident) {
                    Some(incident) => corrected(Change::PutIncident(Incident {
                        closed: true,
                        ..incident
                    })),
                    None => (Repair::None, Vec::new()),
                }
            }
            // An actor's: it repairs them, or could not and is asked again.
            _ => (Repair::None, Vec::new()),
        }
    }

    /// A cleanup task that was not tried yet and is due at once.
    pub(crate) fn new_task(&self, vm: VmId, resource: Resource) -> CleanupTask {
        let now = self.now_ms();
        CleanupTask {
            id: CleanupId::from_uuid(new_uuid()),
            vm,
            resource,
            attempts: 0,
            due_at_ms: now,
            created_at_ms: now,
            last_error: None,
        }
    }
}

/// The VMs that have an entry in `dir`; none if it is not there.
fn vms_in(dir: &Path) -> Vec<VmId> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}
