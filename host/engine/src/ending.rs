//! What holds back boots: a node that drains, or a host that ends with its VMs.
//!
//! Both say when the time is over that guests get to end by themselves. It is one value that all
//! actors watch, so that an operator who loses patience has it end for every guest at once.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::error::EngineError;

/// Whether VMs may be booted, and how long guests that are shut down may take.
pub(crate) struct Ending(watch::Sender<State>);

/// When guests are stopped that have not ended by themselves.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Where the node drains.
    drain: Option<Instant>,
    /// Where the host ends with its VMs.
    host: Option<Instant>,
}

impl State {
    const fn lets_boot(&self) -> bool {
        self.drain.is_none() && self.host.is_none()
    }

    /// The earlier of both.
    fn stop_at(&self) -> Option<Instant> {
        self.drain.into_iter().chain(self.host).min()
    }
}

impl Ending {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::default())
    }

    /// The node drains from now on.
    pub(crate) fn drain(&self, patience: Duration) {
        let at = Instant::now() + patience;
        self.0.send_modify(|state| state.drain = Some(at));
    }

    /// It does not any more.
    pub(crate) fn end_drain(&self) {
        self.0.send_modify(|state| state.drain = None);
    }

    /// The host ends with its VMs. A later call may shorten the time that is left.
    pub(crate) fn end_host(&self, patience: Duration) {
        let at = Instant::now() + patience;
        self.0
            .send_modify(|state| state.host = Some(state.host.map_or(at, |before| before.min(at))));
    }

    /// Whether the host ends with its VMs.
    pub(crate) fn is_of_host(&self) -> bool {
        self.0.borrow().host.is_some()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.borrow().drain.is_some()
    }

    /// Whether a VM may be created or booted now.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let state = *self.0.borrow();
        match (state.host, state.drain) {
            (Some(_), _) => Err(EngineError::ShuttingDown),
            (None, Some(_)) => Err(EngineError::Draining),
            (None, None) => Ok(()),
        }
    }

    /// Waits until VMs may be booted.
    pub(crate) async fn until_boots(&self) {
        // An error means that this is gone, which whoever asks holds.
        let _ = self.0.subscribe().wait_for(State::lets_boot).await;
    }

    /// Waits until no guest gets any more time to end by itself: never, while boots are not held
    /// back.
    pub(crate) async fn time_is_up(&self) {
        let mut changes = self.0.subscribe();
        loop {
            let stop_at = changes.borrow_and_update().stop_at();
            let passed = async {
                match stop_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = passed => return,
                _ = changes.changed() => {}
            }
        }
    }

    /// How long guests still get to end by themselves.
    pub(crate) fn time_left(&self) -> Duration {
        let stop_at = self.0.borrow().stop_at();
        stop_at.map_or(Duration::ZERO, |at| {
            at.saturating_duration_since(Instant::now())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn time_is_up_at_the_earlier_of_both_ends_and_never_without_one() {
        let ending = Ending::new();
        let forever = tokio::time::timeout(MINUTE * 60, ending.time_is_up()).await;
        assert!(forever.is_err());
        ending.drain(MINUTE);
        ending.end_host(MINUTE / 2);
        let begun = Instant::now();
        ending.time_is_up().await;
        assert!(begun.elapsed() < MINUTE);
        assert_eq!(ending.time_left(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_hears_that_the_time_is_shorter() {
        let ending = Ending::new();
        ending.end_host(MINUTE);
        let begun = Instant::now();
        let (end, ()) = tokio::join!(
            async {
                ending.time_is_up().await;
                begun.elapsed()
            },
            async {
                tokio::task::yield_now().await;
                ending.end_host(Duration::ZERO);
            }
        );
        assert!(end < MINUTE, "{end:?}");
        ending.end_host(MINUTE);
        assert_eq!(ending.time_left(), Duration::ZERO, "it is never longer");
    }

    #[tokio::test]
    async fn the_end_of_a_drain_lets_boot_unless_the_host_ends() {
        let ending = Ending::new();
        ending.drain(MINUTE);
        assert!(matches!(ending.check(), Err(EngineError::Draining)));
        ending.end_drain();
        ending.until_boots().await;
        assert!(ending.check().is_ok());
        ending.end_host(MINUTE);
        assert!(matches!(ending.check(), Err(EngineError::ShuttingDown)));
    }
}
