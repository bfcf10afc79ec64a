//! Runs of calls, and the quantiles of their times.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// Calls of each thread that are not measured, until caches are as they stay.
const WARM_UP: u32 = 200;

/// How often something is called.
#[derive(Clone, Copy)]
pub(crate) struct Series {
    pub(crate) runs: u32,
    /// Of each thread in a run.
    pub(crate) calls: u32,
}

/// Quantiles, each the median of its values in `n` runs.
pub(crate) struct Measure {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) n: u32,
}

impl Series {
    /// Calls on so many threads at once. `start` makes what a thread keeps between its calls,
    /// `prepare` what a call takes; only the call is measured.
    pub(crate) fn run<S, P, R>(
        &self,
        threads: usize,
        start: impl Fn() -> S + Sync,
        prepare: impl Fn() -> P + Sync,
        call: impl Fn(&mut S, P) -> R + Sync,
    ) -> Measure {
        let mut p50 = Vec::new();
        let mut p99 = Vec::new();
        for _ in 0..self.runs {
            let begin = Barrier::new(threads);
            let times = thread::scope(|scope| {
                let run = || {
                    let mut state = start();
                    for _ in 0..WARM_UP.min(self.calls) {
                        black_box(call(&mut state, prepare()));
                    }
                    begin.wait();
                    let measured = (0..self.calls).map(|_| {
                        let prepared = prepare();
                        let begun = Instant::now();
                        let answer = black_box(call(&mut state, prepared));
                        let elapsed = begun.elapsed();
                        drop(answer);
                        elapsed
                    });
                    measured.collect::<Vec<_>>()
                };
                let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
                let join = |thread: thread::ScopedJoinHandle<'_, Vec<Duration>>| {
                    thread.join().expect("a call does not panic")
                };
                threads.into_iter().flat_map(join).collect::<Vec<_>>()
            });
            let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
            times.sort_by(f64::total_cmp);
            p50.push(times[times.len() / 2]);
            p99.push(times[times.len() * 99 / 100]);
        }
        Measure {
            p50_us: median(&mut p50),
            p99_us: median(&mut p99),
            n: self.runs,
        }
    }
}

/// The middle; the upper of the two in the middle.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
