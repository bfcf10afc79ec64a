//! When a call has had its time.
//!
//! A deadline is CPU time. What a call does is compute: no host function waits, and whoever wants
//! to sleep gets a trap. So on a machine with a core to spare the CPU time is the wall clock's; on
//! one that is busy with other things it is not, and a plugin is not to blame for that. There it
//! gets its CPU time, as long as that takes no longer than the deadline and a bounded slack.
//!
//! The kernel is asked for it only of calls that see the end of an epoch: it takes a system call,
//! and most calls are over in the time of a few of them. Until then, which is a millisecond at
//! most, CPU time and wall clock are taken for the same.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::gate::EPOCH;

/// CPU time of this thread (`clock_gettime(2)`, `CLOCK_THREAD_CPUTIME_ID`).
fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Epochs until a call is looked at first: the one that is under way when it begins.
pub(crate) const FIRST_LOOK: u64 = 1;

/// What a call may take, and since when.
pub(crate) struct Deadline {
    cpu: Duration,
    slack: Duration,
    started: Instant,
    /// CPU time of the thread when the call began, from its first look on.
    cpu_at_start: Option<Duration>,
    starved: bool,
}

/// What is to become of a call whose epochs are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes on for so many epochs, at least one.
    Continue(u64),
    /// It took its CPU time.
    Late,
    /// It was not given its CPU time in the time that there is.
    Starved,
}

impl Deadline {
    /// Of a call that begins now.
    pub(crate) fn new(cpu: Duration, slack: Duration) -> Self {
        Self {
            cpu,
            slack,
            started: Instant::now(),
            cpu_at_start: None,
            starved: false,
        }
    }

    /// CPU time that the call took so far. To be asked on its thread.
    pub(crate) fn cpu(&self) -> Duration {
        match self.cpu_at_start {
            Some(at_start) => thread_cpu().saturating_sub(at_start),
            None => self.unseen(),
        }
    }

    /// What a call is taken to have had that nobody has looked at.
    fn unseen(&self) -> Duration {
        self.started.elapsed().min(EPOCH)
    }

    /// Whether the call goes on. To be asked on its thread, first when [`FIRST_LOOK`] is over.
    pub(crate) fn look(&mut self) -> Verdict {
        if self.cpu_at_start.is_none() {
            self.cpu_at_start = Some(thread_cpu().saturating_sub(self.unseen()));
        }
        let verdict = judge(self.cpu(), self.started.elapsed(), self.cpu, self.slack);
        self.starved = verdict == Verdict::Starved;
        verdict
    }

    /// Whether the call was ended for want of CPU time.
    pub(crate) const fn is_starved(&self) -> bool {
        self.starved
    }
}

/// Of a call that took `cpu` of `deadline` in `elapsed` by the wall clock.
fn judge(cpu: Duration, elapsed: Duration, deadline: Duration, slack: Duration) -> Verdict {
    if cpu >= deadline {
        Verdict::Late
    } else if elapsed >= deadline + slack {
        Verdict::Starved
    } else {
        Verdict::Continue(epochs(deadline - cpu))
    }
}

/// One more than the time has: the first epoch may end at once.
fn epochs(time: Duration) -> u64 {
    let epochs = time.as_nanos().div_ceil(EPOCH.as_nanos()) + 1;
    u64::try_from(epochs).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn after(cpu_ms: u64, elapsed_ms: u64) -> Verdict {
        judge(ms(cpu_ms), ms(elapsed_ms), ms(50), ms(1000))
    }

    #[test]
    fn a_call_ends_when_it_had_its_cpu_time() {
        assert_eq!(after(50, 50), Verdict::Late);
        assert_eq!(after(60, 5000), Verdict::Late);
        assert_eq!(after(49, 50), Verdict::Continue(2));
    }

    #[test]
    fn a_call_that_is_given_little_goes_on_and_not_for_ever() {
        assert_eq!(after(0, 50), Verdict::Continue(51));
        assert_eq!(after(10, 1049), Verdict::Continue(41));
        assert_eq!(after(10, 1050), Verdict::Starved);
        assert_eq!(after(0, 100_000), Verdict::Starved);
    }

    #[test]
    fn a_deadline_of_no_whole_epoch_still_has_one() {
        assert_eq!(epochs(Duration::ZERO), 1);
        assert_eq!(epochs(Duration::from_micros(1)), 2);
        assert_eq!(epochs(Duration::MAX), u64::MAX);
    }

    #[test]
    fn a_call_that_nobody_has_looked_at_is_taken_for_busy_and_for_an_epoch_at_most() {
        let before = Instant::now();
        let deadline = Deadline::new(ms(50), ms(0));
        assert!(deadline.cpu() <= before.elapsed());
        while before.elapsed() < 2 * EPOCH {
            std::thread::yield_now();
        }
        assert_eq!(deadline.cpu(), EPOCH);
    }

    #[test]
    fn what_was_done_before_the_first_look_counts_up_to_an_epoch() {
        let mut deadline = Deadline::new(ms(50), ms(1000));
        let before = thread_cpu();
        while thread_cpu().saturating_sub(before) < EPOCH {
            std::hint::spin_loop();
        }
        assert!(matches!(deadline.look(), Verdict::Continue(_)));
        assert!(deadline.cpu() >= EPOCH);
    }

    #[test]
    fn cpu_time_is_that_of_this_thread_and_grows_by_computing() {
        let mut deadline = Deadline::new(ms(5), ms(1000));
        assert!(matches!(deadline.look(), Verdict::Continue(_)));
        let others = std::thread::spawn(|| (0..100_000_u64).fold(0, |a, b| a ^ (b * b)));
        let mut sum = 0_u64;
        while deadline.cpu() < ms(5) {
            sum = sum.wrapping_add(1);
        }
        assert!(sum > 0);
        others.join().unwrap();
    }
}
