//! The limit of output.

use super::*;
use crate::devices::virtio::RateLimit;
use crate::devices::virtio::rate_limiter::tests::{TestClock, limit};

fn limited(limit: RateLimit) -> (Driver, Vec<Arc<ConsolePort>>, TestClock) {
    let clock = TestClock::default();
    let device = Console::with_clock(config(&[]), || Box::new(clock.clone())).unwrap();
    let ports = device.ports();
    ports[0].set_output_limit(Some(limit));
    let mut driver = Driver::new(device);
    driver.negotiate(SIZE);
    (driver, ports, clock)
}

#[test]
fn output_over_the_limit_waits_in_the_guest_and_none_is_lost() {
    let (mut driver, ports, clock) = limited(limit(1000, 100));
    let sent: Vec<u8> = (0..=255).cycle().take(2000).collect();
    for piece in sent.chunks(50) {
        driver.add(1, &[Buffer::Read(piece)]);
    }
    driver.notify(1);
    driver.run();
    assert_eq!(ports[0].end(), 100, "what the burst allows");
    assert_eq!(driver.used(1).len(), 2);
    assert_eq!(driver.counter("output_throttled"), 1);
    let mut at_ms = 0;
    while ports[0].end() < 2000 {
        clock.advance(100_000_000);
        at_ms += 100;
        let before = ports[0].end();
        driver.run_until("the timer fires", |_| ports[0].end() > before);
        // One more request than allowed may pass, which is paid for before the next.
        assert!(ports[0].end() <= 100 + at_ms + 50, "{at_ms}");
    }
    assert!(at_ms >= 1800, "{at_ms}");
    assert_eq!(output(&ports[0]), sent);
}

#[test]
fn a_limit_that_is_taken_away_lets_waiting_output_through_at_once() {
    let (mut driver, ports, _clock) = limited(limit(1, 1));
    for _ in 0..10 {
        driver.add(1, &[Buffer::Read(&[b'x'; 1000])]);
    }
    driver.notify(1);
    driver.run();
    assert_eq!(ports[0].end(), 1000);
    ports[0].set_output_limit(None);
    driver.run_until("it is all there", |_| ports[0].end() == 10_000);
}

#[test]
fn a_new_port_is_limited_to_one_mib_a_second() {
    let clock = TestClock::default();
    let device = Console::with_clock(config(&["a"]), || Box::new(clock.clone())).unwrap();
    let ports = device.ports();
    let mut driver = Driver::new(device);
    driver.negotiate(SIZE | MULTIPORT);
    for (number, port) in ports.iter().enumerate() {
        for _ in 0..4 {
            driver.add(transmit_queue(number), &[Buffer::Read(&[0; 400 << 10])]);
        }
        driver.notify(transmit_queue(number));
        driver.run();
        assert_eq!(port.end(), 1200 << 10);
    }
}
