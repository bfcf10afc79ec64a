//! The alarm of a host whose store takes no more writes.
//!
//! There is nowhere to write an event, so it is told where nothing is written: the log, readiness
//! (`GET /readyz`) and the metric `roost_store_read_only`. Requests that would change something
//! are refused with the reason.

use std::sync::Arc;

use crate::context::Context;

/// Waits for the store to fail and says so, once.
pub(crate) async fn run(context: Arc<Context>) {
    let mut failure = context.store.watch_read_only();
    let Ok(failed) = failure.wait_for(Option::is_some).await else {
        return;
    };
    let reason = failed.as_deref().unwrap_or_default();
    tracing::error!(
        reason,
        "the store takes no more writes: running VMs go on, and nothing else changes until this \
         host is restarted on a disk that works"
    );
}
