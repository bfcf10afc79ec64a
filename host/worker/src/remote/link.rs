//! What a handle and the task behind it share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use roost_model::{Counters, GuestExit};
use tokio::sync::{oneshot, watch};

use crate::backend::GuestState;
use crate::error::ControlError;
use crate::process::Process;
use crate::protocol::{Request, Response, WorkerState};
use crate::run_dir::RunDir;

/// A request on its way to the worker.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) request: Request,
    pub(crate) reply: oneshot::Sender<Result<Response, ControlError>>,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) process: Process,
    pub(crate) run_dir: RunDir,
    pub(crate) nonce: String,
    known: Mutex<Known>,
    /// Changes with everything that [`Known`] holds about output and the guest's end, and when
    /// the task ends.
    news: watch::Sender<()>,
}

/// What the worker has told.
#[derive(Debug)]
struct Known {
    state: GuestState,
    exit: Option<(GuestExit, Counters)>,
    serial_end: u64,
    connected: bool,
}

impl Link {
    pub(crate) fn new(
        process: Process,
        run_dir: RunDir,
        nonce: String,
        state: &WorkerState,
    ) -> Self {
        let known = Known {
            state: GuestState::Built,
            exit: None,
            serial_end: 0,
            connected: true,
        };
        let link = Self {
            process,
            run_dir,
            nonce,
            known: Mutex::new(known),
            news: watch::Sender::new(()),
        };
        link.note_state(state);
        link
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> GuestState {
        self.known().state
    }

    pub(crate) fn exit(&self) -> Option<(GuestExit, Counters)> {
        self.known().exit.clone()
    }

    pub(crate) fn serial_end(&self) -> u64 {
        self.known().serial_end
    }

    /// Whether there is, or may soon be again, a connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.known().connected
    }

    pub(crate) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Notes what a welcome says.
    pub(crate) fn note_state(&self, state: &WorkerState) {
        match state {
            WorkerState::Built => self.note_guest(GuestState::Built),
            WorkerState::Running => self.note_guest(GuestState::Running),
            WorkerState::Paused => self.note_guest(GuestState::Paused),
            WorkerState::Exited { exit, counters } => self.note_exit(exit.clone(), *counters),
            WorkerState::BuildFailed { .. } => {}
        }
    }

    /// Notes that a request has changed what the guest does. Nothing changes a guest that ended.
    pub(crate) fn note_guest(&self, state: GuestState) {
        let mut known = self.known();
        if known.state != GuestState::Exited {
            known.state = state;
        }
    }

    pub(crate) fn note_exit(&self, exit: GuestExit, counters: Counters) {
        let mut known = self.known();
        known.state = GuestState::Exited;
        known.exit.get_or_insert((exit, counters));
        drop(known);
        self.news.send_replace(());
    }

    pub(crate) fn note_serial_end(&self, end: u64) {
        let mut known = self.known();
        known.serial_end = known.serial_end.max(end);
        drop(known);
        self.news.send_replace(());
    }

    /// A port of the console has more output. Who waits for it asks which, and how much.
    pub(crate) fn note_console_output(&self) {
        self.news.send_replace(());
    }

    pub(crate) fn note_disconnected(&self) {
        self.known().connected = false;
        self.news.send_replace(());
    }
}
