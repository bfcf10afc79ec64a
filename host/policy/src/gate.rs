//! How many calls run at once, and the clock that ends those that take too long.
//!
//! wasmtime counts epochs; a thread advances them while there is a call to end, and sleeps
//! otherwise.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::Engine;

/// Calls at once: more than there are cores to run them on, unless the machine is large, where
/// they wait some ten microseconds for each other.
pub(crate) const MAX_CALLS: u32 = 32;
/// Length of an epoch.
pub(crate) const EPOCH: Duration = Duration::from_millis(1);

#[derive(Default)]
struct State {
    calls: u32,
    /// Threads that wait for a place.
    waiting: u32,
    /// Whether the clock waits for a call; waking it is what a call need not pay for otherwise.
    clock_waits: bool,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// There is a call, or the end.
    for_clock: Condvar,
    /// There is a place.
    for_calls: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait<'a>(condvar: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    condvar.wait(state).unwrap_or_else(PoisonError::into_inner)
}

pub(crate) struct Gate {
    shared: Arc<Shared>,
    clock: Option<JoinHandle<()>>,
}

/// A call under way.
pub(crate) struct Permit<'a>(&'a Shared);

impl Gate {
    pub(crate) fn new(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_clock = Arc::clone(&shared);
        let clock = thread::Builder::new()
            .name("policy-epochs".to_owned())
            .spawn(move || tick(&of_clock, &engine))?;
        Ok(Self {
            shared,
            clock: Some(clock),
        })
    }

    /// Waits for a place. Every call ends by its deadline and slack, so the wait is bounded too.
    pub(crate) fn enter(&self) -> Permit<'_> {
        let mut state = self.shared.state();
        while state.calls >= MAX_CALLS {
            state.waiting += 1;
            state = wait(&self.shared.for_calls, state);
            state.waiting -= 1;
        }
        state.calls += 1;
        if state.clock_waits {
            state.clock_waits = false;
            self.shared.for_clock.notify_one();
        }
        Permit(&self.shared)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.calls -= 1;
        if state.waiting > 0 {
            self.0.for_calls.notify_one();
        }
    }
}

fn tick(shared: &Shared, engine: &Engine) {
    loop {
        let mut state = shared.state();
        while state.calls == 0 && !state.ended {
            state.clock_waits = true;
            state = wait(&shared.for_clock, state);
        }
        if state.ended {
            return;
        }
        drop(state);
        thread::sleep(EPOCH);
        engine.increment_epoch();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.for_clock.notify_one();
        if let Some(clock) = self.clock.take() {
            // It can't panic; and if it did, there is nobody left to tell.
            let _ = clock.join();
        }
    }
}
