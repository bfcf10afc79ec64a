//! What an idle actor finds out about its own VM.

use std::path::PathBuf;
use std::sync::Arc;

use roost_model::{
    Divergence, DivergenceKind, Effect, IncidentKind, Name, Repair, VmState, WindowClose,
};
use roost_store::{Change, CommitError};
use roost_worker::{
    Backend as _, GuestState, has_control_socket, has_sockets, remove_sockets, tap,
};

use crate::actor::Actor;
use crate::audit::{Inspected, Inspection};
use crate::devices::{disk_path, tap_name};
use crate::images::blocking;

/// Where what a VM has is to be found.
struct Expected {
    run_dir: PathBuf,
    disks: Vec<(Name, PathBuf)>,
    taps: Vec<String>,
    /// Whether its worker is a process of its own.
    has_process: bool,
    runs: bool,
}

impl Expected {
    fn look(&self) -> Vec<DivergenceKind> {
        let mut found = Vec::new();
        // What can't be looked at is not known to be missing.
        if self.has_process && !has_control_socket(&self.run_dir).unwrap_or(true) {
            found.push(DivergenceKind::ControlSocketMissing);
        }
        if !self.runs && has_sockets(&self.run_dir).unwrap_or(false) {
            found.push(DivergenceKind::SocketsLeft);
        }
        for (disk, path) in &self.disks {
            if !path.try_exists().unwrap_or(true) {
                found.push(DivergenceKind::DiskMissing { disk: disk.clone() });
            }
        }
        for tap in &self.taps {
            let there = tap::exists(tap).unwrap_or(self.runs);
            match (self.runs, there) {
                (true, false) => found.push(DivergenceKind::TapMissing { tap: tap.clone() }),
                (false, true) => found.push(DivergenceKind::TapLeft { tap: tap.clone() }),
                _ => {}
            }
        }
        found
    }
}

impl Actor {
    /// Answers an audit.
    pub(crate) async fn inspected(&mut self, inspection: Inspection) -> Result<(), CommitError> {
        let mut found = Vec::new();
        for kind in self.look().await {
            let repair = if inspection.repair {
                self.put_right(&kind).await?
            } else {
                Repair::None
            };
            found.push(Divergence {
                kind,
                vm: Some(self.record.id),
                repair,
            });
        }
        let worker = self.handle.as_ref().and_then(|handle| handle.identity());
        // Whoever asked may have gone on.
        let _ = inspection.reply.send(Inspected { worker, found });
        Ok(())
    }

    async fn look(&self) -> Vec<DivergenceKind> {
        let record = &self.record;
        let runs = match record.state {
            VmState::Running | VmState::Paused => true,
            VmState::Stopped | VmState::Failed { .. } => false,
            _ => {
                let state = record.state.name().to_owned();
                return vec![DivergenceKind::StateStuck { state }];
            }
        };
        let identity = self.handle.as_ref().and_then(|handle| handle.identity());
        if runs {
            let is_there = match identity {
                // A guest in this process, or none.
                None => self.handle.is_some(),
                Some(worker) => self.context.backend.is_running(worker).unwrap_or(true),
            };
            if !is_there {
                return vec![DivergenceKind::WorkerMissing];
            }
        }
        let context = &self.context;
        let own_disks = record.spec.disks.iter().zip(&record.disk_images);
        let own_disks = own_disks.filter(|(disk, image)| image.is_none() || !disk.read_only);
        let expected = Expected {
            run_dir: context.run_dir(record.id),
            disks: own_disks
                .filter(|_| record.disks_made)
                .map(|(disk, image)| {
                    let dir = context.disk_dir(record.id);
                    (disk.name.clone(), disk_path(&dir, disk, image.is_some()))
                })
                .collect(),
            taps: (0..record.spec.networks.len())
                .map(|index| tap_name(record.id, index))
                .collect(),
            has_process: identity.is_some(),
            runs,
        };
        let mut found = blocking(move || expected.look()).await.unwrap_or_default();
        let is_tap = |kind: &DivergenceKind| matches!(kind, DivergenceKind::TapMissing { .. });
        // A guest or a worker that is just ending has let go of its TAPs: its end is told next.
        if found.iter().any(is_tap) && !self.guest_goes_on().await {
            found.retain(|kind| !is_tap(kind));
        }
        let window = context.store.open_window(record.id);
        // One that can't be read is not known to be missing.
        match (runs, window.map_or(runs, |window| window.is_some())) {
            (true, false) => found.push(DivergenceKind::WindowMissing),
            (false, true) => found.push(DivergenceKind::WindowLeft),
            _ => {}
        }
        found
    }

    async fn guest_goes_on(&self) -> bool {
        let Some(handle) = &self.handle else {
            return false;
        };
        // An end that was not heard of yet comes before the answer.
        handle.counters().await.is_ok() && handle.state() != GuestState::Exited
    }

    /// Puts right what belongs to this VM alone; nothing else touches it meanwhile.
    async fn put_right(&mut self, kind: &DivergenceKind) -> Result<Repair, CommitError> {
        let context = Arc::clone(&self.context);
        let faults = &context.config.faults;
        let found = Divergence {
            kind: kind.clone(),
            vm: Some(self.record.id),
            repair: Repair::Corrected,
        };
        let mut draft = self.draft();
        match kind {
            DivergenceKind::WorkerMissing => {
                let found = Divergence {
                    repair: Repair::Incident,
                    ..found
                };
                let event = Change::AppendEvent(context.diverged(found));
                context.write(Effect::WriteDivergence, vec![event]).await?;
                self.detach();
                let detail = "the worker was gone, and nothing told of its end".to_owned();
                self.on_worker_lost(IncidentKind::WorkerMissing, detail)
                    .await?;
                return Ok(Repair::Incident);
            }
            DivergenceKind::SocketsLeft => {
                if let Err(error) = self.remove_sockets() {
                    tracing::warn!(vm = %self.record.id, %error, "sockets could not be removed");
                    return Ok(Repair::None);
                }
            }
            DivergenceKind::TapLeft { tap } => {
                let removed = faults.around_blocking(Effect::RemoveTap, || tap::delete(tap));
                if let Err(error) = removed {
                    tracing::warn!(vm = %self.record.id, %error, "a TAP could not be removed");
                    return Ok(Repair::None);
                }
            }
            DivergenceKind::WindowMissing => {
                draft.window = None;
                self.reopen_window(&mut draft);
            }
            DivergenceKind::WindowLeft => {
                draft.window = context.store.open_window(self.record.id).ok().flatten();
                draft.close_window(&context, WindowClose::Crash, None, false);
            }
            _ => return Ok(Repair::None),
        }
        draft.push(Change::AppendEvent(context.diverged(found)));
        self.commit(Effect::WriteDivergence, draft).await?;
        Ok(Repair::Corrected)
    }

    /// Removes the sockets of a worker that is gone. What can't be removed the next audit finds.
    pub(crate) fn forget_sockets(&self) {
        if let Err(error) = self.remove_sockets() {
            tracing::warn!(vm = %self.record.id, %error, "sockets could not be removed");
        }
    }

    /// Removes what a worker that is gone had in the run directory.
    fn remove_sockets(&self) -> std::io::Result<()> {
        let run_dir = self.context.run_dir(self.record.id);
        let faults = &self.context.config.faults;
        faults.around_blocking(Effect::RemoveSockets, || remove_sockets(&run_dir))
    }
}
