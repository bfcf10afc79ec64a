//! Telling observers of events.
//!
//! The event log is their queue: whoever writes an event waits for no observer. One that falls too
//! far behind misses events, which are counted. Events of the time before the host started are not
//! told.

use std::collections::BTreeMap;
use std::sync::Arc;

use roost_model::{Event, Hook};
use roost_policy::{Context as PolicyContext, Subject};
use roost_store::Change;

use crate::context::{Context, new_seed};
use crate::error::EngineError;
use crate::images::blocking;
use crate::plugins::Attempts;

/// Events that observers may be behind: a minute of a busy host.
const MAX_BACKLOG: u64 = 10_000;
/// Events that are read at a time.
const BATCH: usize = 64;

/// Tells observers of every event after number `told`, until the engine is dropped.
pub(crate) async fn run(context: Arc<Context>, mut told: u64) {
    let mut numbers = context.store.watch_events();
    loop {
        let last = *numbers.borrow_and_update();
        if last <= told || !context.has_observers() {
            told = last;
            if numbers.changed().await.is_err() {
                return;
            }
            continue;
        }
        let from = last.saturating_sub(MAX_BACKLOG).max(told);
        context.metrics.observers_missed(from - told);
        told = from;
        let events = match context.store.events(told, BATCH) {
            Ok(events) => events,
            Err(error) => {
                tracing::error!(%error, "events for observers can't be read");
                told = last;
                continue;
            }
        };
        for event in events {
            told = event.number;
            if let Err(error) = context.tell(&event).await {
                tracing::warn!(%error, event = event.number, "observers were not told of an event");
            }
        }
    }
}

impl Context {
    async fn tell(&self, event: &Event) -> Result<(), EngineError> {
        let record = event.event.vm.map(|vm| self.store.vm(vm)).transpose()?;
        let tenant = event.event.tenant.as_ref().map(ToString::to_string);
        let subject = Subject {
            tenant: tenant.unwrap_or_default(),
            labels: record
                .flatten()
                .map_or_else(BTreeMap::new, |record| record.spec.labels),
        };
        let text = serde_json::to_string(event).unwrap_or_default();
        let mut attempts = Attempts::default();
        loop {
            let facts = PolicyContext {
                now_ms: self.now_ms(),
                seed: new_seed(),
                settings: String::new(),
                attributes: Vec::new(),
            };
            let policies = self.policies.clone();
            let (told, whose) = (text.clone(), subject.clone());
            let decided = blocking(move || policies.observe(facts, &told, &whose)).await?;
            self.note_quarantines(decided.quarantine);
            let mut writes = Vec::new();
            for call in &decided.calls {
                let mode = self.call_mode(call);
                // A failure is no event: its observers would be told of it, and fail again.
                self.count(Hook::Observer, call, mode, false);
                if mode == roost_model::CallMode::Enforce {
                    writes.extend(self.kv_write(call).map(Change::WriteKv));
                }
            }
            if writes.is_empty() || attempts.are_exhausted() {
                return Ok(());
            }
            match self.store.commit(writes).await {
                Ok(_) => return Ok(()),
                Err(error) if attempts.again(self, &error).await => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
