//! What a vCPU counts: its exits by kind, and its thread's CPU time.

use std::sync::atomic::{AtomicU64, Ordering};

use roost_model::Exits;

/// Exits by kind, written by one thread and read by others.
#[derive(Default)]
pub(crate) struct ExitCounters {
    pub(crate) io_in: ExitCounter,
    pub(crate) io_out: ExitCounter,
    pub(crate) mmio_read: ExitCounter,
    pub(crate) mmio_write: ExitCounter,
    pub(crate) halt: ExitCounter,
    pub(crate) interrupted: ExitCounter,
    pub(crate) other: ExitCounter,
}

/// One of them.
#[derive(Default)]
pub(crate) struct ExitCounter(AtomicU64);

impl ExitCounter {
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl ExitCounters {
    pub(crate) fn add_to(&self, sum: &mut Exits) {
        let fields = [
            (&self.io_in, &mut sum.io_in),
            (&self.io_out, &mut sum.io_out),
            (&self.mmio_read, &mut sum.mmio_read),
            (&self.mmio_write, &mut sum.mmio_write),
            (&self.halt, &mut sum.halt),
            (&self.interrupted, &mut sum.interrupted),
            (&self.other, &mut sum.other),
        ];
        for (counter, total) in fields {
            *total = total.saturating_add(counter.0.load(Ordering::Relaxed));
        }
    }
}

/// The clock of the calling thread's CPU time, which other threads can read while it lives.
pub(crate) fn own_cpu_clock() -> Option<libc::clockid_t> {
    let mut clock = 0;
    // SAFETY: the thread is the calling one, so it exists; `clock` is a valid place to write.
    let result = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) };
    (result == 0).then_some(clock)
}

/// Reads a CPU-time clock, ns.
pub(crate) fn read_cpu_clock(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place to write; an unknown clock is refused and leaves it zero.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(time.tv_sec)
        .saturating_mul(1_000_000_000)
        .saturating_add(part(time.tv_nsec))
}
