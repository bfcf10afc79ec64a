//! What happens if something else does not happen in time.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// At most one deadline for each token, the earliest first.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    of: HashMap<u32, Instant>,
    sorted: BTreeSet<(Instant, u32)>,
}

impl Deadlines {
    /// Sets the deadline of `token`, in place of the one that it has.
    pub(super) fn set(&mut self, token: u32, at: Instant) {
        self.clear(token);
        self.of.insert(token, at);
        self.sorted.insert((at, token));
    }

    /// `token` has none, or no longer.
    pub(super) fn clear(&mut self, token: u32) {
        if let Some(at) = self.of.remove(&token) {
            self.sorted.remove(&(at, token));
        }
    }

    /// Whether `token` has one.
    pub(super) fn has(&self, token: u32) -> bool {
        self.of.contains_key(&token)
    }

    /// The first one.
    pub(super) fn next(&self) -> Option<Instant> {
        self.sorted.first().map(|(at, _)| *at)
    }

    /// Takes the first one that is over.
    pub(super) fn take_over(&mut self, now: Instant) -> Option<u32> {
        let (at, token) = *self.sorted.first()?;
        if at > now {
            return None;
        }
        self.clear(token);
        Some(token)
    }

    /// All happens later: time stood still for so long.
    pub(super) fn postpone(&mut self, by: Duration) {
        let later = |at: Instant| at.checked_add(by).unwrap_or(at);
        self.of.values_mut().for_each(|at| *at = later(*at));
        let sorted = std::mem::take(&mut self.sorted);
        self.sorted
            .extend(sorted.into_iter().map(|(at, token)| (later(at), token)));
    }
}

/// A descriptor that is readable from an instant on. It need not be read: setting it again also
/// makes it not readable.
#[derive(Debug)]
pub(super) struct Timer {
    timer: OwnedFd,
    set: Option<Instant>,
    /// Whether it was readable since it was set.
    fired: bool,
}

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self {
            timer,
            set: None,
            fired: false,
        })
    }

    /// It was readable; [`Self::set`] is to set it again even if nothing has changed.
    pub(super) fn fired(&mut self) {
        self.fired = true;
    }

    /// Makes it readable at `at`, or never.
    pub(super) fn set(&mut self, at: Option<Instant>, now: Instant) -> io::Result<()> {
        if self.set == at && !self.fired {
            return Ok(());
        }
        let left = at.map(|at| at.saturating_duration_since(now));
        // Zero would mean never.
        let left = left.map_or(Duration::ZERO, |left| left.max(Duration::from_nanos(1)));
        let value = Timespec::try_from(left).map_err(io::Error::other)?;
        let never = Timespec::default();
        let time = Itimerspec {
            it_interval: never,
            it_value: value,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time)?;
        (self.set, self.fired) = (at, false);
        Ok(())
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_in_their_order_each_once_and_not_before_their_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut deadlines = Deadlines::default();
        deadlines.set(7, at(3));
        deadlines.set(8, at(1));
        deadlines.set(9, at(2));
        deadlines.set(7, at(1));
        deadlines.clear(9);
        deadlines.clear(10);
        assert_eq!(deadlines.next(), Some(at(1)));
        assert_eq!(deadlines.take_over(at(0)), None);
        deadlines.postpone(Duration::from_secs(5));
        assert_eq!(deadlines.take_over(at(5)), None);
        assert_eq!(deadlines.take_over(at(6)), Some(7));
        assert_eq!(deadlines.take_over(at(6)), Some(8));
        assert_eq!(deadlines.take_over(at(9)), None);
        assert_eq!(deadlines.next(), None);
        assert!(deadlines.of.is_empty());
    }
}
