//! What an operation that is under way is told from outside: that it is called off, that nobody
//! wants to wait for its guest any longer, that the host process ends.

use tokio::sync::watch;

/// How far a cancel of what is under way is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Cancel {
    /// It can't be cancelled now.
    #[default]
    Closed,
    /// It can.
    Open,
    /// It was.
    Requested,
}

#[derive(Debug, Clone, Copy, Default)]
struct Told {
    cancel: Cancel,
    hurry: bool,
    leave: bool,
}

/// Why a wait for a guest ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// The operation is called off.
    Cancelled,
    /// The host process ends; the next one goes on.
    Leaving,
    /// A delete waits: what the guest would save goes with its disks.
    Hurried,
}

/// The signals of one VM.
#[derive(Debug, Default)]
pub(crate) struct Signals(watch::Sender<Told>);

impl Signals {
    /// From here on what is under way can be called off, until [`Self::close`].
    pub(crate) fn open(&self) {
        self.0.send_modify(|told| {
            if told.cancel == Cancel::Closed {
                told.cancel = Cancel::Open;
            }
        });
    }

    /// From here on it can't. Returns whether it was: then whoever asked relies on it.
    pub(crate) fn close(&self) -> bool {
        let mut before = Cancel::Closed;
        self.0
            .send_modify(|told| before = std::mem::replace(&mut told.cancel, Cancel::Closed));
        before == Cancel::Requested
    }

    /// Whether it was called off, with more time to do so.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.borrow().cancel == Cancel::Requested
    }

    /// Calls off what is under way; returns whether it can be.
    pub(crate) fn cancel(&self) -> bool {
        let mut can_be = false;
        self.0.send_if_modified(|told| {
            can_be = told.cancel != Cancel::Closed;
            if can_be {
                told.cancel = Cancel::Requested;
            }
            can_be
        });
        can_be
    }

    /// Says whether guests are to be waited for.
    pub(crate) fn hurry(&self, hurry: bool) {
        self.0.send_modify(|told| told.hurry = hurry);
    }

    /// The host process ends.
    pub(crate) fn leave(&self) {
        self.0.send_modify(|told| told.leave = true);
    }

    /// Returns when a wait for a guest is to end early.
    pub(crate) async fn interrupted(&self) -> Interruption {
        let mut told = self.0.subscribe();
        loop {
            let now = *told.borrow_and_update();
            if now.cancel == Cancel::Requested {
                return Interruption::Cancelled;
            }
            if now.leave {
                return Interruption::Leaving;
            }
            if now.hurry {
                return Interruption::Hurried;
            }
            // The sender is in `self`.
            let _ = told.changed().await;
        }
    }
}
