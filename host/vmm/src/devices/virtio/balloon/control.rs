//! The host's end of a balloon, usable from any thread.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::{BalloonStatistics, GuestStatistics, PAGE_BYTES};
use crate::devices::output::Signal;

/// Pages in a MiB.
const PAGES_PER_MIB: u32 = ((1 << 20) / PAGE_BYTES) as u32;

/// What host and device share.
pub(crate) struct BalloonControl {
    /// `num_pages` of the configuration space: what the guest is asked for.
    target_pages: AtomicU32,
    /// `actual`: what it says it has given.
    actual_pages: AtomicU32,
    /// The last statistics, and when they came.
    guest: Mutex<Option<(Instant, GuestStatistics)>>,
    /// Watched by the device: something changed, or there is more to do.
    pub(super) wake: Signal,
    /// Watched by the device: it is time for statistics.
    pub(super) timer: OwnedFd,
}

impl BalloonControl {
    /// # Errors
    /// No more descriptors.
    pub(super) fn new(interval: Option<Duration>) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let control = Self {
            target_pages: AtomicU32::new(0),
            actual_pages: AtomicU32::new(0),
            guest: Mutex::new(None),
            wake: Signal::new()?,
            timer: timerfd_create(TimerfdClockId::Monotonic, flags)?,
        };
        control.set_statistics_interval(interval)?;
        Ok(control)
    }

    /// Asks the guest for `target_mib` MiB in all. It follows in its own time, if at all.
    pub(crate) fn set_target_mib(&self, target_mib: u32) {
        self.set_target_pages(target_mib.saturating_mul(PAGES_PER_MIB));
        self.wake.raise();
    }

    /// Asks the guest for statistics every so often from now on; `None`: no more.
    ///
    /// # Errors
    /// The interval is longer than the kernel can wait.
    pub(crate) fn set_statistics_interval(&self, interval: Option<Duration>) -> io::Result<()> {
        let interval = interval.unwrap_or_default();
        let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let every = Timespec {
            tv_sec: interval.as_secs().try_into().map_err(too_long)?,
            tv_nsec: interval.subsec_nanos().into(),
        };
        // All zero disarms it.
        let times = Itimerspec {
            it_interval: every,
            it_value: every,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &times)?;
        Ok(())
    }

    /// How the balloon is.
    pub(crate) fn statistics(&self) -> BalloonStatistics {
        let bytes = |pages: u32| u64::from(pages) * PAGE_BYTES;
        let guest = *self.guest();
        BalloonStatistics {
            target_bytes: bytes(self.target_pages()),
            actual_bytes: bytes(self.actual_pages()),
            guest: guest.map(|(at, statistics)| GuestStatistics {
                age: at.elapsed(),
                ..statistics
            }),
        }
    }

    pub(super) fn target_pages(&self) -> u32 {
        self.target_pages.load(Ordering::SeqCst)
    }

    pub(super) fn set_target_pages(&self, pages: u32) {
        self.target_pages.store(pages, Ordering::SeqCst);
    }

    pub(super) fn actual_pages(&self) -> u32 {
        self.actual_pages.load(Ordering::SeqCst)
    }

    pub(super) fn set_actual_pages(&self, pages: u32) {
        self.actual_pages.store(pages, Ordering::SeqCst);
    }

    /// The guest said this now.
    pub(super) fn set_guest(&self, statistics: GuestStatistics) {
        *self.guest() = Some((Instant::now(), statistics));
    }

    /// There is no driver any more: what it said is over.
    pub(super) fn clear_guest(&self) {
        self.set_actual_pages(0);
        *self.guest() = None;
    }

    /// Quiets the timer.
    pub(super) fn take_timer(&self) {
        let mut fired = [0; 8];
        // Nothing to read: the interval was changed a moment ago.
        let _ = rustix::io::read(&self.timer, &mut fired);
    }

    fn guest(&self) -> MutexGuard<'_, Option<(Instant, GuestStatistics)>> {
        self.guest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
