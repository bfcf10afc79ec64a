//! Guests that print nothing: a spec can say how long one may run before its first byte.
//!
//! The worker counts what a guest printed and how long its vCPUs ran, pauses not included. So
//! whichever host process looks, also one that has just taken the worker over, comes to the same.

use std::sync::Arc;
use std::time::Duration;

use roost_model::{Effect, Failure, FailureKind, IncidentKind, VmState};
use roost_store::CommitError;
use roost_worker::{ControlError, VmHandle};
use tokio::time::Instant;

use crate::actor::Actor;
use crate::logs::TERMINAL;

/// How long to wait before a worker that gave no answer is asked again.
const RETRY: Duration = Duration::from_secs(1);

impl Actor {
    /// From now on the guest runs, or runs again: looks at once how much of its time is left.
    pub(crate) fn listen(&mut self) {
        let has_deadline = self.record.spec.boot_deadline_ms.is_some();
        self.silence_due = has_deadline.then(Instant::now);
    }

    /// Looks whether the guest has printed anything, and whether it should have.
    pub(crate) async fn check_silence(&mut self) -> Result<(), CommitError> {
        self.silence_due = None;
        let deadline_ms = self.record.spec.boot_deadline_ms;
        let (Some(deadline_ms), Some(handle)) = (deadline_ms, self.handle.clone()) else {
            return Ok(());
        };
        // One that is paused is looked at when it runs again.
        if self.record.state != VmState::Running {
            return Ok(());
        }
        let ran = match silent_for(handle.as_ref(), self.record.spec.console).await {
            Ok(Some(ran)) => ran,
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::warn!(vm = %self.record.id, %error, "whether it printed is not known");
                self.silence_due = Some(Instant::now() + RETRY);
                return match error {
                    ControlError::Timeout { .. } => self.left_unanswered().await,
                    _ => Ok(()),
                };
            }
        };
        let left = Duration::from_millis(deadline_ms).saturating_sub(ran);
        if !left.is_zero() {
            self.silence_due = Some(Instant::now() + left);
            return Ok(());
        }
        self.stalled(deadline_ms).await
    }

    /// The guest had its time: an incident. Its worker is of no use.
    async fn stalled(&mut self, deadline_ms: u64) -> Result<(), CommitError> {
        let context = Arc::clone(&self.context);
        let mut draft = self.draft();
        let failure = Failure {
            kind: FailureKind::Guest,
            detail: format!("the guest printed nothing within {deadline_ms} ms"),
        };
        draft.state(&context, VmState::Failed { failure });
        let incident = draft.incident(&context, IncidentKind::BootStalled { deadline_ms });
        self.commit(Effect::WriteStalled, draft).await?;
        self.finish_exit(None).await?;
        self.undecided = Some(incident);
        Ok(())
    }
}

/// How long a guest has run without printing anything on its serial port or its console; none if
/// it has printed.
async fn silent_for(
    handle: &dyn VmHandle,
    has_console: bool,
) -> Result<Option<Duration>, ControlError> {
    if has_console {
        let printed = handle.console_read(TERMINAL, 0, 1).await?;
        if printed.offset > 0 || !printed.bytes.is_empty() {
            return Ok(None);
        }
    }
    let counters = handle.counters().await?;
    let is_silent = counters.serial_tx_bytes == 0;
    Ok(is_silent.then_some(Duration::from_nanos(counters.running_ns)))
}
