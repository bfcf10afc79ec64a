//! Rate limits, by a clock that the test moves where it counts.

use std::sync::Arc;

use super::*;
use crate::devices::virtio::LimitControl;
use crate::devices::virtio::rate_limiter::tests::{TestClock, limit};

/// Requests that wait for the disk at any time.
const WAITING: usize = 50;

struct Limited {
    driver: Driver,
    clock: TestClock,
    control: Arc<LimitControl>,
    waiting: usize,
    _folder: TempDir,
}

impl Limited {
    fn new(limits: RateLimits) -> Self {
        let folder = TempDir::new().unwrap();
        let clock = TestClock::default();
        let config = DiskConfig {
            limits,
            ..disk(Kind::RawThread, folder.path())
        };
        let block = Block::with_clock(config, Box::new(clock.clone())).unwrap();
        Self {
            control: block.limits(),
            driver: ready(block),
            clock,
            waiting: 0,
            _folder: folder,
        }
    }

    /// Requests to read `bytes` that pass in `ms` of a disk that always has some waiting.
    fn passed(&mut self, ms: u64, bytes: u32) -> u64 {
        let header = header(VIRTIO_BLK_T_IN, 0);
        let before = self.driver.counter("reads");
        for _ in 0..ms {
            while self.waiting < WAITING {
                let buffers = [
                    Buffer::Read(&header),
                    Buffer::Write(bytes),
                    Buffer::Write(1),
                ];
                self.driver.add(0, &buffers);
                self.waiting += 1;
            }
            // Single turns: while the test's clock stands still, the timer may fire again and again.
            self.driver.notify(0);
            self.driver.turn();
            // What was begun is finished, whatever the limit says.
            self.driver.device.quiesce();
            self.driver.device.resume();
            self.driver.turn();
            self.waiting -= self.driver.used(0).len();
            self.clock.advance(1_000_000);
        }
        self.driver.counter("reads") - before
    }
}

fn assert_within_a_tenth(value: u64, of: u64) {
    assert!(value.abs_diff(of) * 10 <= of, "{value}, not {of}");
}

#[test]
fn a_limit_of_bytes_holds_within_a_tenth_whatever_the_size_of_requests() {
    for bytes in [512, 4096, 65536] {
        let mut disk = Limited::new(RateLimits {
            bytes: Some(limit(4 << 20, 1 << 20)),
            operations: None,
        });
        // The burst, and what comes meanwhile.
        disk.passed(300, bytes);
        let passed = disk.passed(1000, bytes);
        assert_within_a_tenth(passed * u64::from(bytes), 4 << 20);
        assert!(disk.driver.counter("throttled") > 0);
    }
}

#[test]
fn a_limit_of_operations_holds_within_a_tenth() {
    let mut disk = Limited::new(RateLimits {
        bytes: None,
        operations: Some(limit(1000, 100)),
    });
    let with_burst = disk.passed(100, 512);
    assert_within_a_tenth(with_burst, 100 + 100);
    assert_within_a_tenth(disk.passed(1000, 512), 1000);
}

#[test]
fn a_limit_that_is_changed_or_taken_away_holds_from_then_on() {
    let mut disk = Limited::new(RateLimits {
        bytes: None,
        operations: Some(limit(500, 50)),
    });
    disk.passed(200, 512);
    assert_within_a_tenth(disk.passed(1000, 512), 500);
    disk.control.set_limits(RateLimits {
        bytes: None,
        operations: Some(limit(2000, 50)),
    });
    disk.passed(100, 512);
    assert_within_a_tenth(disk.passed(1000, 512), 2000);
    disk.control.set_limits(RateLimits::default());
    assert!(disk.passed(100, 512) >= 100 * WAITING as u64);
}

#[test]
fn requests_that_get_no_data_count_as_operations_too() {
    let mut disk = Limited::new(RateLimits {
        bytes: None,
        operations: Some(limit(100, 10)),
    });
    let header = header(99, 0);
    for _ in 0..WAITING {
        let buffers = [Buffer::Read(&header), Buffer::Write(1)];
        disk.driver.add(0, &buffers);
    }
    disk.driver.notify(0);
    disk.driver.turn();
    assert_eq!(disk.driver.used(0).len(), 10);
}

#[test]
fn requests_that_were_held_back_are_served_without_another_notification() {
    let folder = TempDir::new().unwrap();
    let config = DiskConfig {
        limits: RateLimits {
            bytes: None,
            operations: Some(limit(100, 1)),
        },
        ..disk(Kind::RawRing, folder.path())
    };
    let mut driver = ready(Block::new(config).unwrap());
    let header = header(VIRTIO_BLK_T_IN, 0);
    let buffers = [Buffer::Read(&header), Buffer::Write(512), Buffer::Write(1)];
    let requests: Vec<_> = (0..5).map(|_| driver.add(0, &buffers)).collect();
    driver.notify(0);
    wait(&mut driver, &requests.iter().collect::<Vec<_>>());
    assert!(driver.counter("throttled") > 0);
}

#[test]
fn requests_that_are_held_back_are_not_lost_by_a_pause_or_a_move() {
    let folder = TempDir::new().unwrap();
    let make = |limits| {
        let config = DiskConfig {
            limits,
            ..disk(Kind::RawRing, folder.path())
        };
        Block::new(config).unwrap()
    };
    let mut driver = ready(make(RateLimits {
        bytes: Some(limit(1, 1)),
        operations: None,
    }));
    let header = header(VIRTIO_BLK_T_IN, 0);
    let buffers = [Buffer::Read(&header), Buffer::Write(512), Buffer::Write(1)];
    let requests: Vec<_> = (0..5).map(|_| driver.add(0, &buffers)).collect();
    driver.notify(0);
    wait(&mut driver, &[&requests[0]]);
    driver.device.quiesce();
    assert_eq!(driver.used(0), [], "the limit holds");
    let mut driver = driver.migrate_to(|| make(RateLimits::default()));
    wait(&mut driver, &requests[1..].iter().collect::<Vec<_>>());
}
