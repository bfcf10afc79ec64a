//! How a host ends: what signals do.
//!
//! | signal | without `--stop-vms` | with it |
//! | --- | --- | --- |
//! | the first | the host ends, VMs go on | guests are told to end, and are stopped at the deadline |
//! | the second | | guests are stopped at once |
//! | the third | | the host ends, and VMs that are still there go on |

use std::io;
use std::time::Duration;

use roost_engine::Engine;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::service::Manager;

/// Longest that a host takes to end once its VMs have had their time: to stop those that did not
/// end, which takes a minute where workers do not answer, and to finish what it is at.
const LEAVING: Duration = Duration::from_secs(90);

/// The signals that end a host. They are caught from when this is made.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits until the host is to stop serving: for a signal, then for the end of its VMs, where they
/// end with it and have `vms` to do so. Returns whether what it is at may be finished.
pub(crate) async fn until_stopped(
    signals: &mut Signals,
    manager: &Manager,
    engine: &Engine,
    vms: Option<Duration>,
) -> bool {
    signals.next().await;
    let Some(patience) = vms else {
        let status = "the host stops; VMs go on";
        manager.stopping(status, LEAVING).await;
        tracing::info!("the host stops; VMs go on");
        return true;
    };
    manager
        .stopping("VMs are shut down", patience + LEAVING)
        .await;
    tracing::info!(
        patience_s = patience.as_secs(),
        "the host stops with its VMs; another signal stops them at once"
    );
    let stopping = engine.stop_vms(patience);
    tokio::pin!(stopping);
    let hurried = async {
        signals.next().await;
        tracing::warn!("a second signal: VMs are stopped at once; a third leaves them as they are");
        engine.stop_vms_now();
        signals.next().await;
    };
    tokio::select! {
        emptied = &mut stopping => {
            let (ended, left) = (emptied.ended, emptied.left);
            if left > 0 {
                tracing::error!(ended, left, "some VMs could not be shut down: they go on");
            } else {
                tracing::info!(ended, "no VM runs");
            }
            true
        }
        () = hurried => {
            tracing::error!("a third signal: VMs that are still there go on");
            false
        }
    }
}
