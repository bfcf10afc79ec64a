//! The one thread that serves all devices of a VM.
//!
//! It is held while the VM is paused: what comes meanwhile stays in the kernel, and is found when it
//! goes on.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::event_loop::EventLoop;
use super::virtio::Wakeup;

/// Stack of the device thread: devices are not deep.
const STACK_BYTES: usize = 256 << 10;

impl EventLoop {
    /// Starts the thread, held. `on_failure` is called on it if it can't go on.
    pub(crate) fn start(
        self,
        on_failure: impl FnOnce(String) + Send + 'static,
    ) -> io::Result<DeviceThread> {
        let control = Arc::new(Control::new()?);
        // Edge-triggered: each call wakes once, and nobody needs to drain it.
        let events = EventSet::IN | EventSet::EDGE_TRIGGERED;
        self.watch(&control.wake, Wakeup::Control, events)?;
        let of_thread = Arc::clone(&control);
        let thread = thread::Builder::new()
            .name("devices".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                // A defect of ours must not leave a VM that can be neither paused nor stopped.
                let ended = catch_unwind(AssertUnwindSafe(|| self.run(&of_thread)));
                of_thread.leave();
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => on_failure(format!("the device thread: {error}")),
                    Err(_) => on_failure("the device thread panicked".to_owned()),
                }
            })?;
        Ok(DeviceThread {
            control,
            thread: Mutex::new(Some(thread)),
        })
    }

    fn run(&self, control: &Control) -> io::Result<()> {
        while control.enter() {
            while control.goes_on() {
                self.turn(-1, || control.goes_on())?;
            }
            self.quiesce();
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Held,
    Serving,
    Ended,
}

struct State {
    wanted: Wanted,
    /// Whether the thread is at work, or on its way out of it.
    busy: bool,
}

/// What the thread and those who hold it agree on.
struct Control {
    state: Mutex<State>,
    changed: Condvar,
    /// Wakes the thread up where it waits for events.
    wake: EventFd,
}

impl Control {
    fn new() -> io::Result<Self> {
        Ok(Self {
            state: Mutex::new(State {
                wanted: Wanted::Held,
                busy: false,
            }),
            changed: Condvar::new(),
            wake: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks the thread until it is to serve; false: it is to end.
    fn enter(&self) -> bool {
        let mut state = self.state();
        state.busy = false;
        self.changed.notify_all();
        while state.wanted == Wanted::Held {
            state = self.wait(state);
        }
        state.busy = state.wanted == Wanted::Serving;
        state.busy
    }

    fn goes_on(&self) -> bool {
        self.state().wanted == Wanted::Serving
    }

    /// The thread is gone.
    fn leave(&self) {
        let mut state = self.state();
        (state.wanted, state.busy) = (Wanted::Ended, false);
        drop(state);
        self.changed.notify_all();
    }

    fn want(&self, wanted: Wanted) {
        let mut state = self.state();
        if state.wanted != Wanted::Ended {
            state.wanted = wanted;
        }
        // It can fail only when the counter is full, and then it is readable.
        let _ = self.wake.write(1);
        drop(state);
        self.changed.notify_all();
    }
}

/// The running device thread. Dropping it ends it.
pub(crate) struct DeviceThread {
    control: Arc<Control>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl DeviceThread {
    /// Holds the thread; returns when all devices are quiesced. Idempotent.
    pub(crate) fn pause(&self) {
        self.control.want(Wanted::Held);
        let mut state = self.control.state();
        while state.busy {
            state = self.control.wait(state);
        }
    }

    /// Lets the thread go on. Idempotent.
    pub(crate) fn resume(&self) {
        self.control.want(Wanted::Serving);
    }

    /// Ends the thread when the devices are quiesced. Idempotent.
    pub(crate) fn stop(&self) {
        self.control.want(Wanted::Ended);
        let thread = self.thread.lock();
        if let Some(thread) = thread.unwrap_or_else(PoisonError::into_inner).take() {
            // What could panic in it is caught there.
            let _ = thread.join();
        }
    }
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::sync::mpsc::{self, Receiver};

    use super::*;
    use crate::devices::virtio::test_driver::{Manner, Probe, Seen};
    use crate::devices::virtio::{GuestMemory, VirtioMmio};

    struct Running {
        thread: DeviceThread,
        seen: Arc<Seen>,
        call: Arc<EventFd>,
        failure: Receiver<String>,
    }

    impl Running {
        fn calls(&self) -> u64 {
            self.seen.calls.load(Ordering::SeqCst)
        }

        /// Waits until the device was called so often.
        fn wait_calls(&self, count: u64) {
            while self.calls() < count {
                assert!(self.failure.try_recv().is_err());
                thread::yield_now();
            }
        }
    }

    fn start(manner: Manner) -> Running {
        let probe = Probe::new(manner);
        let (seen, call) = (probe.seen.clone(), probe.call.clone());
        let mut event_loop = EventLoop::new().unwrap();
        let sources = event_loop.next_sources();
        let memory = GuestMemory::default();
        let device = VirtioMmio::new(Box::new(probe), 0, memory, sources).unwrap();
        event_loop.add(Arc::new(device)).unwrap();
        let (sender, failure) = mpsc::channel();
        let thread = event_loop.start(move |why| sender.send(why).unwrap());
        Running {
            thread: thread.unwrap(),
            seen,
            call,
            failure,
        }
    }

    #[test]
    fn what_comes_while_the_thread_is_held_waits_until_it_goes_on() {
        let running = start(Manner::Answer);
        running.call.write(1).unwrap();
        for round in 1..=100 {
            running.thread.pause();
            assert_eq!(running.calls(), round - 1, "it starts held");
            running.thread.resume();
            running.wait_calls(round);
            running.thread.pause();
            assert_eq!(running.seen.quiesced.load(Ordering::SeqCst), round);
            running.call.write(1).unwrap();
        }
        running.thread.stop();
        assert_eq!(running.calls(), 100);
        running.thread.stop();
        running.thread.pause();
        running.thread.resume();
    }

    #[test]
    fn a_thread_is_held_goes_on_and_ends_however_fast_that_comes() {
        let running = start(Manner::Answer);
        for _ in 0..2000 {
            running.thread.resume();
            running.thread.pause();
        }
        running.thread.resume();
        running.call.write(1).unwrap();
        running.wait_calls(1);
        drop(running.thread);
    }

    #[test]
    fn a_defect_of_a_device_is_reported_and_nobody_waits_for_its_thread() {
        let running = start(Manner::Panic);
        running.thread.resume();
        running.call.write(1).unwrap();
        let why = running.failure.recv().unwrap();
        assert_eq!(why, "the device thread panicked");
        running.thread.pause();
        running.thread.resume();
        running.thread.stop();
    }
}
