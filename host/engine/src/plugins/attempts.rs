//! Deciding again, where a value that a decision was made from changed before it was stored.

use roost_store::{CommitError, Conflict};
use tokio::sync::MutexGuard;

use crate::context::Context;

/// Times that a decision is made before the host gives up on its plugins for it. After the first
/// one decisions take turns, so that only newcomers can come between.
const MAX_ATTEMPTS: u32 = 8;

/// How often a decision was made so far.
#[derive(Default)]
pub(crate) struct Attempts<'a> {
    failed: u32,
    _turn: Option<MutexGuard<'a, ()>>,
}

impl<'a> Attempts<'a> {
    /// Whether the commit failed because of a plugin's values, so that the decision must be made
    /// again. Waits for its turn.
    pub(crate) async fn again(&mut self, context: &'a Context, error: &CommitError) -> bool {
        let is_stale = matches!(
            error,
            CommitError::Conflict(Conflict::KvChanged { .. } | Conflict::KvQuota { .. })
        );
        if is_stale {
            self.failed += 1;
            if self._turn.is_none() {
                self._turn = Some(context.kv_turn.lock().await);
            }
        }
        is_stale
    }

    /// Whether plugins are not to be asked any more.
    pub(crate) const fn are_exhausted(&self) -> bool {
        self.failed >= MAX_ATTEMPTS
    }
}
