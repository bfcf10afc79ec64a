//! Somebody who asks the host small things all along, while it has other things to do.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::Connection;

/// Time between two requests.
const PAUSE: Duration = Duration::from_millis(5);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What took how long.
#[derive(Debug, Clone, Copy)]
struct Probe {
    phase: &'static str,
    list: bool,
    ms: f64,
}

/// How long probes took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Latency {
    pub(super) n: usize,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// What the prober has measured so far.
#[derive(Default)]
pub(super) struct Prober {
    phase: Mutex<&'static str>,
    probes: Mutex<Vec<Probe>>,
    ends: AtomicBool,
}

impl Prober {
    /// What follows is counted for `phase`.
    pub(super) fn begins(&self, phase: &'static str) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// The prober is to end.
    pub(super) fn ends(&self) {
        self.ends.store(true, Ordering::Release);
    }

    /// Asks for `vm`'s record and for a small list in turns until it is to end. While there is no
    /// host, nothing is measured.
    pub(super) fn run(&self, socket: &Path, vm: &str) {
        let record = format!("/v1/vms/{vm}");
        for list in [false, true].into_iter().cycle() {
            if self.ends.load(Ordering::Acquire) {
                return;
            }
            let phase = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
            let path = if list {
                "/v1/operations?limit=20"
            } else {
                &record
            };
            let begun = Instant::now();
            let answer = Connection::open(socket, PATIENCE)
                .and_then(|connection| connection.exchange("GET", path, &[]));
            if answer.is_ok() && !phase.is_empty() {
                let ms = begun.elapsed().as_secs_f64() * 1e3;
                let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
                probes.push(Probe { phase, list, ms });
            }
            thread::sleep(PAUSE);
        }
    }

    /// How long a VM's record, or a small list, took in `phase`.
    pub(super) fn latency(&self, phase: &str, list: bool) -> Option<Latency> {
        let probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        let of_phase = probes
            .iter()
            .filter(|probe| probe.phase == phase && probe.list == list);
        latency(of_phase.map(|probe| probe.ms).collect())
    }
}

fn latency(mut ms: Vec<f64>) -> Option<Latency> {
    ms.sort_by(f64::total_cmp);
    let at = |share: usize| {
        ms.get((ms.len() * share / 100).min(ms.len().checked_sub(1)?))
            .copied()
    };
    Some(Latency {
        n: ms.len(),
        p50_ms: at(50)?,
        p99_ms: at(99)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_hundred_took_longer_than_the_99th_percentile() {
        assert_eq!(latency(Vec::new()), None);
        let of = latency((0..1000).rev().map(f64::from).collect()).unwrap();
        assert_eq!((of.n, of.p50_ms, of.p99_ms), (1000, 500.0, 990.0));
        let one = latency(vec![3.0]).unwrap();
        assert_eq!((one.p50_ms, one.p99_ms), (3.0, 3.0));
    }
}
