//! What all vCPU threads of a VM agree on: whether to run, and how it ended.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use roost_model::GuestExit;
use vmm_sys_util::eventfd::EventFd;

/// What the vCPU threads are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Paused,
    Running,
    Stopped,
}

/// A vCPU thread may run.
pub(crate) struct Entered {
    /// It had to wait for that: the VM was paused.
    pub(crate) was_held: bool,
}

pub(crate) struct State {
    pub(crate) wanted: Wanted,
    /// Threads that are in or on their way to `KVM_RUN`.
    pub(crate) busy: usize,
    pub(crate) exit: Option<GuestExit>,
    /// When the VM was last let run, while it is.
    running_since: Option<Instant>,
    /// Time that it ran before.
    ran: Duration,
}

pub(crate) struct Run {
    state: Mutex<State>,
    changed: Condvar,
    /// Readable from the guest's end on.
    pub(crate) exited: EventFd,
}

impl Run {
    pub(crate) fn new(exited: EventFd) -> Self {
        let state = State {
            wanted: Wanted::Paused,
            busy: 0,
            exit: None,
            running_since: None,
            ran: Duration::ZERO,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            exited,
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks a vCPU thread until it may run; `None`: it is to end. `prepare` is called under the
    /// lock, so that a request to pause that comes later is not overlooked.
    pub(crate) fn enter(&self, prepare: impl FnOnce()) -> Option<Entered> {
        let mut was_held = false;
        let mut state = self.state();
        loop {
            match state.wanted {
                Wanted::Running => {
                    state.busy += 1;
                    prepare();
                    return Some(Entered { was_held });
                }
                Wanted::Stopped => return None,
                Wanted::Paused => {
                    was_held = true;
                    state = self
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// The counterpart of [`Self::enter`]: the thread is out of the guest.
    pub(crate) fn leave(&self) {
        self.state().busy -= 1;
        self.changed.notify_all();
    }

    /// Sets what is wanted and returns; threads that wait wake up. Nothing revives a VM that
    /// has ended.
    pub(crate) fn want(&self, wanted: Wanted) {
        let mut state = self.state();
        state.set(wanted);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until no thread is in the guest.
    pub(crate) fn wait_idle(&self) {
        let mut state = self.state();
        while state.busy > 0 {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes how the guest ended; the first word counts.
    pub(crate) fn end(&self, exit: GuestExit) {
        let mut state = self.state();
        state.set(Wanted::Stopped);
        let first = state.exit.is_none();
        state.exit.get_or_insert(exit);
        drop(state);
        self.changed.notify_all();
        if first {
            // It can fail only when the counter is full, and then it is readable.
            let _ = self.exited.write(1);
        }
    }

    /// Time that the VM ran, pauses not included.
    pub(crate) fn ran(&self) -> Duration {
        let state = self.state();
        state.ran
            + state
                .running_since
                .map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl State {
    fn set(&mut self, wanted: Wanted) {
        if self.wanted == Wanted::Stopped {
            return;
        }
        self.wanted = wanted;
        if wanted == Wanted::Running {
            self.running_since.get_or_insert_with(Instant::now);
        } else if let Some(since) = self.running_since.take() {
            self.ran += since.elapsed();
        }
    }
}
