//! Emptying a node: all VMs are shut down side by side, for one of two reasons.
//!
//! | | a drain | the host ends with its VMs |
//! | --- | --- | --- |
//! | who asks | an operator, by the API | the host process, at its end |
//! | how long it holds | until an operator ends it, also over restarts | until the process ends |
//! | afterwards a VM is desired | stopped | as before: it is booted at the next start |
//!
//! A drained VM stays stopped because whoever drains a node moves its work elsewhere: if it came
//! back by itself, it would run twice. A VM that is desired paused loses what it was paused in, so
//! it is desired stopped after either.

use std::sync::Arc;
use std::time::Duration;

use roost_model::{
    Button, DesiredState, Drain, DrainReport, DrainState, Effect, EventKind, Grace, OperationState,
    Origin, RemainingVm, Verb, VmState,
};
use roost_store::{Change, CommitError};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::actor::{Actor, ActorRef};
use crate::context::Context;
use crate::desk::Desk;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::journal;
use crate::stop::MAX_GRACE;

/// VMs that are told to end, or ended, at the same moment. One that is only waited for does not
/// count.
pub(crate) const MAX_STOPS: usize = 32;

/// VMs that a report names.
const MAX_NAMED: usize = 20;

/// How long a host that ends waits, once no guest gets any more time, for workers that do not end:
/// longer than every deadline on the way to a worker that is killed.
const LAST_PATIENCE: Duration = Duration::from_secs(60);

/// Why a VM is shut down though nobody asked for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    Drain,
    HostEnds,
}

/// What became of the VMs when the host ended with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Emptied {
    /// VMs that are not running any more, or did not run.
    pub ended: usize,
    /// VMs that could not be shut down and go on.
    pub left: usize,
}

impl Engine {
    /// Has the node take no new VMs, boot none, and shut down those that run; written down, so that
    /// it holds until [`Engine::end_drain`]. Guests have `patience` to end by themselves, at most
    /// 600 s. If the node drains already, that is how long they have from now on.
    ///
    /// # Errors
    /// The store can't be read or written; then nothing has changed.
    pub async fn drain(&self, patience: Duration) -> Result<DrainReport, EngineError> {
        let context = &self.context;
        let _turn = context.drains.lock().await;
        let patience = patience.min(MAX_GRACE);
        let now = context.now_ms();
        let before = context.store.drain()?;
        let drain = Drain {
            since_ms: before.map_or(now, |drain| drain.since_ms),
            stop_at_ms: now.saturating_add(ms(patience)),
        };
        let draining = context.host_event(EventKind::NodeDraining {
            stop_at_ms: drain.stop_at_ms,
        });
        let changes = vec![Change::PutDrain(drain), Change::AppendEvent(draining)];
        context.write(Effect::WriteDrain, changes).await?;
        context.ending.drain(patience);
        context.go_on_draining();
        self.drain_report()
    }

    /// Has the node take VMs again. What is shut down stays so. It did not drain: fine.
    ///
    /// # Errors
    /// The store can't be read or written.
    pub async fn end_drain(&self) -> Result<DrainReport, EngineError> {
        let context = &self.context;
        let _turn = context.drains.lock().await;
        if context.store.drain()?.is_some() {
            let ended = context.host_event(EventKind::NodeDrainEnded);
            let changes = vec![Change::RemoveDrain, Change::AppendEvent(ended)];
            context.write(Effect::WriteDrain, changes).await?;
        }
        context.ending.end_drain();
        self.drain_report()
    }

    /// How far the drain is.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn drain_report(&self) -> Result<DrainReport, EngineError> {
        self.context.drain_report()
    }

    /// The drain's report when it is done, is ended, or as it stands after `timeout`.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn wait_for_drain(&self, timeout: Duration) -> Result<DrainReport, EngineError> {
        let deadline = Instant::now() + timeout;
        let mut asked = self.context.emptying.subscribe();
        let mut events = self.context.store.watch_events();
        loop {
            asked.borrow_and_update();
            events.borrow_and_update();
            let report = self.drain_report()?;
            if report.state != DrainState::Draining {
                return Ok(report);
            }
            let news = async {
                tokio::select! {
                    _ = asked.changed() => {}
                    _ = events.changed() => {}
                }
            };
            if timeout_at(deadline, news).await.is_err() {
                return Ok(report);
            }
        }
    }

    /// Shuts down every VM that runs, and boots none any more; [`Engine::shutdown`] comes next.
    /// Guests have `patience` to end by themselves. It returns when all have ended, or a minute
    /// after that time is up: what could not be shut down goes on.
    ///
    /// They are booted again by the next host, if they were not paused.
    pub async fn stop_vms(&self, patience: Duration) -> Emptied {
        let context = &self.context;
        context.ending.end_host(patience.min(MAX_GRACE));
        let asked = context.ask_all(Why::HostEnds);
        let mut emptied = Emptied { ended: 0, left: 0 };
        let give_up = async {
            context.ending.time_is_up().await;
            tokio::time::sleep(LAST_PATIENCE).await;
        };
        tokio::pin!(give_up);
        let mut waits = true;
        for mut answer in asked {
            let ended = tokio::select! {
                biased;
                ended = &mut answer => ended.unwrap_or(false),
                () = &mut give_up, if waits => {
                    waits = false;
                    false
                }
                () = std::future::ready(()), if !waits => false,
            };
            emptied.ended += usize::from(ended);
            emptied.left += usize::from(!ended);
        }
        emptied
    }

    /// While [`Engine::stop_vms`] goes on: no guest gets any more time to end by itself.
    pub fn stop_vms_now(&self) {
        self.context.ending.end_host(Duration::ZERO);
    }

    /// VMs that have a worker.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn running_vms(&self) -> Result<usize, EngineError> {
        let records = self.context.store.vms()?;
        let running = records.iter().filter(|record| record.state.has_worker());
        Ok(running.count())
    }
}

impl Context {
    /// Takes up a drain that an earlier host process was at.
    pub(crate) fn resume_drain(self: &Arc<Self>) -> Result<(), EngineError> {
        let Some(drain) = self.store.drain()? else {
            return Ok(());
        };
        // A clock that was put back must not make it longer.
        let left = Duration::from_millis(drain.stop_at_ms.saturating_sub(self.now_ms()));
        self.ending.drain(left.min(MAX_GRACE));
        Ok(())
    }

    /// Has every VM shut down, if the node drains.
    pub(crate) fn go_on_draining(self: &Arc<Self>) {
        if !self.ending.is_draining() {
            return;
        }
        self.emptying.send_modify(|asked| *asked += 1);
        let asked = self.ask_all(Why::Drain);
        let context = Arc::clone(self);
        tokio::spawn(async move {
            for answer in asked {
                // What could not be shut down is seen in the report.
                let _ = answer.await;
            }
            context.emptying.send_modify(|asked| *asked -= 1);
        });
    }

    /// Has every actor shut down its VM. Whoever is not busy has it in its mailbox when this
    /// returns.
    fn ask_all(&self, why: Why) -> Vec<oneshot::Receiver<bool>> {
        let actors: Vec<ActorRef> = self.with_actors(|actors| actors.values().cloned().collect());
        actors.iter().map(|actor| actor.end(why)).collect()
    }

    fn drain_report(&self) -> Result<DrainReport, EngineError> {
        // In this order: a VM that is asked is done before the count goes down.
        let is_asking = *self.emptying.borrow() > 0;
        let drain = self.store.drain()?;
        let mut remaining = Vec::new();
        if drain.is_some() {
            remaining = self.store.vms()?;
            remaining.retain(|record| record.state.has_worker());
        }
        let state = match drain {
            None => DrainState::Off,
            Some(_) if is_asking || !remaining.is_empty() => DrainState::Draining,
            Some(_) => DrainState::Drained,
        };
        let named = remaining.iter().take(MAX_NAMED);
        Ok(DrainReport {
            state,
            drain,
            remaining: remaining.len() as u64,
            vms: named
                .map(|record| RemainingVm {
                    id: record.id,
                    name: record.spec.name.clone(),
                    tenant: record.spec.tenant.clone(),
                    state: record.state.name().to_owned(),
                })
                .collect(),
        })
    }
}

impl Actor {
    /// Shuts the VM down because the node drains or the host ends; returns whether it has no
    /// worker afterwards.
    pub(crate) async fn end(&mut self, desk: &mut Desk, why: Why) -> Result<bool, CommitError> {
        let runs = self.record.state.has_worker();
        let is_to_boot = self.restart.is_some()
            || self.record.state == VmState::Stopped
                && self.record.desired == DesiredState::Running;
        // The next host boots what is to be booted, and recovers what is to be recovered.
        if !runs && (why == Why::HostEnds || !is_to_boot) {
            return Ok(true);
        }
        let context = Arc::clone(&self.context);
        let origin = match why {
            Why::Drain => Origin::Drain,
            Why::HostEnds => Origin::Host,
        };
        let mut operation = journal::operation(&context, self.record.id, Verb::Shutdown, origin);
        operation.grace = Some(Grace {
            button: Button::PowerButton,
            deadline_ms: ms(context.ending.time_left()),
        });
        operation.state = OperationState::Running;
        let mut draft = self.draft();
        draft.operation(&operation);
        self.supersede_restart(&mut draft, &format!("{} took its place", operation.id));
        context.write(Effect::WriteRequested, draft.changes).await?;
        self.restart = None;
        self.carry_out(desk, operation).await?;
        Ok(!self.record.state.has_worker())
    }

    /// Boots a VM that the host before this one shut down when it ended.
    pub(crate) async fn boot_as_before(&mut self, desk: &mut Desk) -> Result<(), CommitError> {
        let context = Arc::clone(&self.context);
        let is_to_boot = |actor: &Self| {
            actor.record.state == VmState::Stopped
                && actor.record.desired == DesiredState::Running
                // This one has its own time.
                && actor.restart.is_none()
        };
        if !is_to_boot(self) {
            return Ok(());
        }
        // It is never closed.
        let _place = context.recoveries.acquire().await;
        // A drain that came meanwhile is waiting to be told to this actor.
        if context.ending.check().is_err() {
            return Ok(());
        }
        let mut operation = journal::operation(&context, self.record.id, Verb::Boot, Origin::Host);
        operation.state = OperationState::Running;
        let changes = vec![Change::PutOperation(operation.clone())];
        context.write(Effect::WriteRestart, changes).await?;
        self.carry_out(desk, operation).await
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
