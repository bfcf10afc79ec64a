//! Usage windows, and what they cost.
//!
//! An incarnation's windows tile its time without gaps: each starts at the cumulative counters at
//! which the one before ended. A window and its place in the outbox are one commit; charges and
//! the removal from the outbox are another; so each window is charged for exactly once.

use std::sync::Arc;

use roost_model::{
    Charge, CounterSource, Counters, Effect, EventKind, OpenWindow, UsageWindow, VmRecord,
    WindowClose, WindowKey,
};
use roost_store::{Change, CommitError, Conflict};
use roost_worker::ControlError;

use crate::actor::Actor;
use crate::context::Context;
use crate::facts;
use crate::journal::Draft;
use crate::plugins::{About, Attempts};

mod patience;

use patience::Patience;

/// Windows given to one policy call: keeps the facts small.
const MAX_WINDOWS_PER_CALL: usize = 64;

impl Actor {
    /// Opens the first window of an incarnation, unless one is open (after a resume).
    pub(crate) fn open_window(&self, draft: &mut Draft, start_ms: u64) {
        if draft.window.is_some() {
            return;
        }
        let window = OpenWindow {
            key: WindowKey {
                vm: self.record.id,
                incarnation: draft.record.incarnation,
                sequence: 1,
            },
            start_ms,
            start_counters: Counters::default(),
            counters_at_ms: start_ms,
            counters: Counters::default(),
        };
        draft.push(Change::PutOpenWindow(window.clone()));
        draft.window = Some(window);
    }

    /// Opens the window that should be open, where the last one that was closed ended.
    pub(crate) fn reopen_window(&self, draft: &mut Draft) {
        let (id, incarnation) = (draft.record.id, draft.record.incarnation);
        let now = self.context.now_ms();
        let last = self.context.store.last_window(id, incarnation);
        let Some(last) = last.ok().flatten() else {
            self.open_window(draft, draft.record.running_since_ms.unwrap_or(now));
            return;
        };
        let window = OpenWindow {
            key: WindowKey {
                sequence: last.key.sequence.saturating_add(1),
                ..last.key
            },
            start_ms: last.end_ms,
            start_counters: last.counters,
            counters_at_ms: last.end_ms,
            counters: last.counters,
        };
        draft.push(Change::PutOpenWindow(window.clone()));
        draft.window = Some(window);
    }

    /// Reads the counters, makes them durable, and closes the window where the grid says so.
    pub(crate) async fn read_counters(&mut self) -> Result<(), CommitError> {
        let (Some(handle), Some(window)) = (self.handle.clone(), self.window.clone()) else {
            return Ok(());
        };
        let counters = match handle.counters().await {
            Ok(counters) => {
                self.unanswered = 0;
                counters
            }
            Err(ControlError::Timeout { .. }) => return self.left_unanswered().await,
            Err(error) => {
                tracing::warn!(vm = %self.record.id, %error, "the worker gave no counters");
                return Ok(());
            }
        };
        let now = self.context.now_ms();
        let grid = u64::try_from(self.context.config.usage_window.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        if now / grid > window.start_ms / grid {
            let context = Arc::clone(&self.context);
            let mut draft = self.draft();
            draft.close_window(&context, WindowClose::Grid, Some(counters), true);
            return self.commit(Effect::WriteWindow, draft).await;
        }
        let window = OpenWindow {
            counters,
            counters_at_ms: now,
            ..window
        };
        let changes = vec![Change::PutOpenWindow(window.clone())];
        self.context.write(Effect::WriteCounters, changes).await?;
        self.window = Some(window);
        Ok(())
    }
}

impl Draft {
    /// Closes the open window at `counters`, or at the last reported ones where there are none,
    /// and opens the next one if the incarnation goes on.
    pub(crate) fn close_window(
        &mut self,
        context: &Context,
        close: WindowClose,
        counters: Option<Counters>,
        goes_on: bool,
    ) {
        let Some(open) = self.window.take() else {
            return;
        };
        let (source, end, at_ms) = match counters {
            Some(counters) => (CounterSource::Exact, counters, context.now_ms()),
            None => (
                CounterSource::LastAcknowledged,
                open.counters,
                open.counters_at_ms,
            ),
        };
        let start = open.start_counters;
        // The wall clock may have been set back; a window never ends before it starts.
        let end_ms = at_ms.max(open.start_ms);
        let window = UsageWindow {
            key: open.key,
            start_ms: open.start_ms,
            end_ms,
            vcpus: self.record.spec.vcpus,
            memory_bytes: self.record.spec.memory_bytes(),
            vcpu_cpu_ns: end.vcpu_cpu_ns.saturating_sub(start.vcpu_cpu_ns),
            running_ns: end.running_ns.saturating_sub(start.running_ns),
            serial_tx_bytes: end.serial_tx_bytes.saturating_sub(start.serial_tx_bytes),
            counters: end,
            close,
            source,
        };
        self.event(
            context,
            EventKind::WindowClosed {
                window: window.clone(),
            },
        );
        self.push(Change::CloseWindow(window));
        if goes_on {
            let next = OpenWindow {
                key: WindowKey {
                    sequence: open.key.sequence + 1,
                    ..open.key
                },
                start_ms: end_ms,
                start_counters: end,
                counters_at_ms: end_ms,
                counters: end,
            };
            self.push(Change::PutOpenWindow(next.clone()));
            self.window = Some(next);
        } else {
            self.push(Change::RemoveOpenWindow(open.key.vm));
        }
        self.closed_window = true;
    }
}

/// What came of the windows of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Billed {
    /// All of them are charged for.
    All,
    /// They wait until their policy decides.
    Waiting,
}

impl Context {
    /// Charges for every window in the outbox, but for those whose policy failed too short ago.
    async fn bill_outbox(&self, patience: &mut Patience) {
        let vms = match self.store.outbox_vms() {
            Ok(vms) => vms,
            Err(error) => {
                tracing::error!(%error, "the billing outbox can't be read");
                return;
            }
        };
        patience.only(&vms);
        for vm in vms {
            if !patience.is_due(vm) {
                continue;
            }
            let record = match self.store.vm(vm) {
                Ok(None) => self.store.departed(vm),
                read => read,
            };
            let billed = match record {
                // With one commit the VM was removed and its last window charged for.
                Ok(None) => continue,
                Ok(Some(record)) => self.bill_vm(&record).await,
                Err(error) => {
                    tracing::error!(%vm, %error, "a record can't be read");
                    continue;
                }
            };
            match billed {
                Ok(Billed::All) => patience.forget(vm),
                Ok(Billed::Waiting) => patience.failed(vm),
                Err(error) => tracing::error!(%vm, %error, "a bill waits for the store"),
            }
        }
    }

    /// Charges for what is left of one VM.
    pub(crate) async fn bill_vm(&self, record: &VmRecord) -> Result<Billed, CommitError> {
        loop {
            let windows = match self.store.outbox_of(record.id, MAX_WINDOWS_PER_CALL) {
                Ok(windows) => windows,
                Err(error) => {
                    tracing::error!(%error, "the billing outbox can't be read");
                    return Ok(Billed::Waiting);
                }
            };
            if windows.is_empty() {
                return Ok(Billed::All);
            }
            if self.bill(record, windows).await? == Billed::Waiting {
                return Ok(Billed::Waiting);
            }
        }
    }

    /// Asks the billing policy about `windows` of one VM and writes down what it charges. A policy
    /// that fails is asked again later: what somebody priced is not given away.
    async fn bill(
        &self,
        record: &VmRecord,
        windows: Vec<UsageWindow>,
    ) -> Result<Billed, CommitError> {
        let mut attempts = Attempts::default();
        loop {
            let facts = facts::billing(self, record, &windows);
            let decided = self
                .decide_billing(facts, About::vm(record), &attempts)
                .await;
            let waits = decided.fell_back && !self.is_outbox_full();
            let mut changes = Vec::new();
            if !waits {
                let charges: Vec<Charge> = decided
                    .decision
                    .iter()
                    .map(|charge| facts::charge(record.id, charge))
                    .collect();
                changes.extend(windows.iter().map(|window| {
                    let of_window = charges.iter().filter(|c| c.window == window.key);
                    Change::Bill {
                        window: window.key,
                        charges: of_window.cloned().collect(),
                    }
                }));
                let decided_by = decided.by;
                let charged = EventKind::Charged {
                    charges,
                    decided_by,
                };
                changes.push(Change::AppendEvent(self.vm_event(record, charged)));
            }
            changes.extend(decided.changes);
            match self.write(Effect::WriteCharges, changes).await {
                Ok(_) if waits => return Ok(Billed::Waiting),
                // The VM's delete and the billing task met; the other one has charged.
                Err(CommitError::Conflict(Conflict::NotInOutbox(_))) | Ok(_) => {
                    return Ok(Billed::All);
                }
                Err(error) if attempts.again(self, &error).await => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether so many windows wait that no more of them may.
    fn is_outbox_full(&self) -> bool {
        let counts = self.store.counts();
        counts.is_ok_and(|counts| counts.outbox > self.config.max_waiting_windows)
    }
}

/// Charges for windows as they close, until the engine is dropped.
pub(crate) async fn run(context: Arc<Context>) {
    let mut patience = Patience::default();
    loop {
        context.bill_outbox(&mut patience).await;
        tokio::select! {
            () = context.windows_closed.notified() => {}
            () = patience.over() => {}
        }
    }
}
