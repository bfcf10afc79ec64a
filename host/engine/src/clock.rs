//! The wall clock, injected so that tests can choose it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Where the engine reads the time that it writes down.
pub trait Clock: Send + Sync {
    /// ms since the Unix epoch.
    fn now_ms(&self) -> u64;
}

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
