//! Rate limits of a device: a bucket for bytes and one for operations, a control by which the host
//! changes them while the VM runs, and a timer that wakes the device when it may go on.
//!
//! A device asks [`RateLimiter::admits`] before a request and tells [`RateLimiter::charge`] what
//! it was. When the answer is no it stops, and the timer (which it watches from `attach` on, and
//! hands to [`RateLimiter::on_timer`]) tells it when to go on. A new limit wakes it the same way.
//! Nothing is allocated after the limiter was made, and while a device is held back, asking costs
//! a look at the clock.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::token_bucket::{RateLimit, TokenBucket};

/// What a device, or one direction of it, may do. No limits by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Bytes of payload.
    pub bytes: Option<RateLimit>,
    /// Requests or packets.
    pub operations: Option<RateLimit>,
}

/// A monotonic clock.
pub(crate) trait Clock: Send {
    /// Time since some moment, ns.
    fn now_ns(&self) -> u64;
}

/// The machine's.
pub(crate) struct Monotonic(Instant);

impl Default for Monotonic {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Monotonic {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The host's end of a limiter, usable from any thread.
#[derive(Debug)]
pub(crate) struct LimitControl {
    limits: Mutex<RateLimits>,
    /// Counts changes of `limits`.
    generation: AtomicU64,
    throttled: AtomicU64,
    timer: OwnedFd,
}

impl LimitControl {
    /// # Errors
    /// No more descriptors.
    pub(crate) fn new(limits: RateLimits) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self {
            limits: Mutex::new(limits),
            generation: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            timer: timerfd_create(TimerfdClockId::Monotonic, flags)?,
        })
    }

    /// The limits that hold.
    pub(crate) fn limits(&self) -> RateLimits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the limits. They hold from the device's next request on.
    pub(crate) fn set_limits(&self, limits: RateLimits) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.arm(1);
    }

    /// How often the device was held back.
    pub(crate) fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Lets the timer fire once, in `after_ns`.
    fn arm(&self, after_ns: u64) {
        // Zero would disarm it.
        let after_ns = after_ns.max(1);
        let value = Timespec {
            tv_sec: (after_ns / 1_000_000_000).cast_signed(),
            tv_nsec: (after_ns % 1_000_000_000).cast_signed(),
        };
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: value,
        };
        // It fails only for descriptors that are none and times that are none.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once);
    }
}

/// The device's end.
pub(crate) struct RateLimiter {
    control: Arc<LimitControl>,
    clock: Box<dyn Clock>,
    /// The generation of the limits that the buckets have.
    generation: u64,
    bytes: Option<TokenBucket>,
    operations: Option<TokenBucket>,
    /// Until when the device is held back, while it is.
    held_until_ns: Option<u64>,
}

impl RateLimiter {
    pub(crate) fn new(control: Arc<LimitControl>, clock: Box<dyn Clock>) -> Self {
        let mut limiter = Self {
            // Taken before the limits: a change between the two is then seen as one.
            generation: control.generation(),
            control,
            clock,
            bytes: None,
            operations: None,
            held_until_ns: None,
        };
        limiter.take_over_limits();
        limiter
    }

    /// Whether a request may pass now. If not, the timer is set.
    pub(crate) fn admits(&mut self) -> bool {
        let generation = self.control.generation();
        if generation != self.generation {
            self.generation = generation;
            self.take_over_limits();
            self.held_until_ns = None;
        }
        if self.bytes.is_none() && self.operations.is_none() {
            return true;
        }
        let now = self.clock.now_ns();
        if self.held_until_ns.is_some_and(|until| now < until) {
            return false;
        }
        self.held_until_ns = None;
        let buckets = [&mut self.bytes, &mut self.operations];
        let closed = buckets.into_iter().flatten().filter_map(|bucket| {
            let is_open = bucket.is_open(now);
            (!is_open).then(|| bucket.opens_at_ns())
        });
        let Some(until) = closed.max() else {
            return true;
        };
        self.control.throttled.fetch_add(1, Ordering::Relaxed);
        self.hold(now, until);
        false
    }

    /// Takes what a request was: `bytes` of payload in `operations`.
    pub(crate) fn charge(&mut self, bytes: u64, operations: u64) {
        if let Some(bucket) = &mut self.bytes {
            bucket.charge(bytes);
        }
        if let Some(bucket) = &mut self.operations {
            bucket.charge(operations);
        }
    }

    /// The timer fired: quiets it. The device should try to go on; [`Self::admits`] still decides.
    pub(crate) fn on_timer(&mut self) {
        let mut fired = [0; 8];
        // Nothing to read: it fired for what is over by now.
        let _ = rustix::io::read(&self.control.timer, &mut fired);
        // A change of limits may have set the timer to a time that was not this one's.
        if let Some(until) = self.held_until_ns {
            let now = self.clock.now_ns();
            if now < until {
                self.hold(now, until);
            }
        }
    }

    /// The host's end.
    pub(crate) fn control(&self) -> &Arc<LimitControl> {
        &self.control
    }

    fn hold(&mut self, now: u64, until: u64) {
        self.held_until_ns = Some(until);
        self.control.arm(until - now);
        // New limits may have set the timer a moment ago, and that was undone right now.
        if self.control.generation() != self.generation {
            self.control.arm(1);
        }
    }

    fn take_over_limits(&mut self) {
        let limits = self.control.limits();
        let now = self.clock.now_ns();
        update(&mut self.bytes, limits.bytes, now);
        update(&mut self.operations, limits.operations, now);
    }
}

fn update(bucket: &mut Option<TokenBucket>, limit: Option<RateLimit>, now: u64) {
    match (bucket.as_mut(), limit) {
        (Some(bucket), Some(limit)) => bucket.set_limit(limit, now),
        (_, limit) => *bucket = limit.map(|limit| TokenBucket::full(limit, now)),
    }
}

/// The timer, to be watched for input.
impl AsRawFd for RateLimiter {
    fn as_raw_fd(&self) -> RawFd {
        self.control.timer.as_raw_fd()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::num::NonZeroU64;

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    /// A clock that a test moves.
    #[derive(Clone, Default)]
    pub(crate) struct TestClock(Arc<AtomicU64>);

    impl TestClock {
        pub(crate) fn advance(&self, ns: u64) {
            self.0.fetch_add(ns, Ordering::SeqCst);
        }
    }

    impl Clock for TestClock {
        fn now_ns(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }
    }

    pub(crate) fn limit(tokens: u64, burst: u64) -> RateLimit {
        RateLimit {
            per_second: NonZeroU64::new(tokens).unwrap(),
            burst,
        }
    }

    fn limiter(limits: RateLimits) -> (RateLimiter, TestClock) {
        let clock = TestClock::default();
        let control = Arc::new(LimitControl::new(limits).unwrap());
        (RateLimiter::new(control, Box::new(clock.clone())), clock)
    }

    /// Waits for the timer, a minute at most.
    fn wait_for_timer(limiter: &RateLimiter) {
        let mut fds = [PollFd::new(&limiter.control.timer, PollFlags::IN)];
        let timeout = Timespec {
            tv_sec: 60,
            tv_nsec: 0,
        };
        assert_eq!(poll(&mut fds, Some(&timeout)).unwrap(), 1);
    }

    #[test]
    fn without_limits_everything_passes() {
        let (mut limiter, _) = limiter(RateLimits::default());
        for _ in 0..1000 {
            assert!(limiter.admits());
            limiter.charge(u64::MAX, u64::MAX);
        }
        assert_eq!(limiter.control().throttled(), 0);
    }

    #[test]
    fn the_scarcer_of_bytes_and_operations_decides() {
        for (bytes, operations) in [(100, 1), (1, 100)] {
            let (mut limiter, _) = limiter(RateLimits {
                bytes: Some(limit(100, 100)),
                operations: Some(limit(100, 100)),
            });
            assert!(limiter.admits());
            limiter.charge(bytes, operations);
            assert!(!limiter.admits());
        }
    }

    #[test]
    fn a_device_that_is_held_back_is_woken_when_it_may_go_on_and_counted_once() {
        let (mut limiter, clock) = limiter(RateLimits {
            operations: Some(limit(1000, 1)),
            ..RateLimits::default()
        });
        limiter.charge(0, 10);
        for _ in 0..100 {
            assert!(!limiter.admits());
        }
        assert_eq!(limiter.control().throttled(), 1);
        wait_for_timer(&limiter);
        limiter.on_timer();
        clock.advance(2_000_000);
        assert!(limiter.admits());
    }

    #[test]
    fn new_limits_wake_a_device_that_is_held_back_for_long() {
        let (mut limiter, _) = limiter(RateLimits {
            bytes: Some(limit(1, 1)),
            ..RateLimits::default()
        });
        limiter.charge(1 << 40, 1);
        assert!(!limiter.admits());
        let control = Arc::clone(limiter.control());
        control.set_limits(RateLimits::default());
        wait_for_timer(&limiter);
        limiter.on_timer();
        assert!(limiter.admits());
    }

    #[test]
    fn a_wakeup_that_comes_too_early_does_not_cancel_the_one_that_is_due() {
        let limits = RateLimits {
            operations: Some(limit(1000, 1)),
            ..RateLimits::default()
        };
        let (mut limiter, clock) = limiter(limits);
        // The device sees the change by itself before the timer tells it.
        limiter.control().set_limits(limits);
        limiter.charge(0, 10);
        assert!(!limiter.admits());
        limiter.control().arm(1);
        wait_for_timer(&limiter);
        limiter.on_timer();
        assert!(!limiter.admits());
        wait_for_timer(&limiter);
        clock.advance(10_000_000);
        assert!(limiter.admits());
    }

    #[test]
    fn a_limit_that_is_added_begins_with_its_burst_and_one_that_is_kept_does_not() {
        let (mut limiter, _) = limiter(RateLimits {
            operations: Some(limit(10, 10)),
            ..RateLimits::default()
        });
        limiter.charge(0, 10);
        limiter.control().set_limits(RateLimits {
            bytes: Some(limit(10, 10)),
            operations: None,
        });
        assert!(limiter.admits());
        limiter.charge(10, 1);
        assert!(!limiter.admits());
        limiter.control().set_limits(RateLimits {
            bytes: Some(limit(20, 20)),
            operations: None,
        });
        assert!(!limiter.admits());
    }
}
