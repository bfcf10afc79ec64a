use super::super::{NetControl, NetLimits};
use super::*;
use crate::devices::virtio::rate_limiter::tests::limit;
use crate::devices::virtio::{RateLimit, RateLimits};

/// A network under `limits` that a test moves the clock of.
fn limited(limits: NetLimits) -> (Driver, Peer, TestClock, NetControl) {
    let (tap, peer) = link();
    let mut config = NetConfig::new(tap, MAC);
    config.limits = limits;
    let clock = TestClock::default();
    let device = Net::with_clock(config, || Box::new(clock.clone())).unwrap();
    let control = device.control();
    let mut driver = Driver::new(device);
    driver.negotiate(0);
    (driver, peer, clock, control)
}

fn bytes(limit: RateLimit) -> RateLimits {
    RateLimits {
        bytes: Some(limit),
        ..RateLimits::default()
    }
}

fn operations(limit: RateLimit) -> RateLimits {
    RateLimits {
        operations: Some(limit),
        ..RateLimits::default()
    }
}

fn transmit_only(transmit: RateLimits) -> NetLimits {
    NetLimits {
        transmit,
        ..NetLimits::default()
    }
}

/// What passes in the second after the first one, which has the burst, if there is always more.
/// `step` gives the device something to do and a turn.
fn second(
    clock: &TestClock,
    driver: &mut Driver,
    counter: &str,
    mut step: impl FnMut(&mut Driver),
) -> f64 {
    let mut passed = [0; 3];
    for after in &mut passed[1..] {
        for _ in 0..1000 {
            clock.advance(1_000_000);
            step(driver);
        }
        *after = driver.counter(counter);
    }
    (passed[2] - passed[1]) as f64
}

#[test]
fn what_a_guest_sends_in_a_second_is_the_limit_within_a_tenth() {
    let cases = [
        (bytes(limit(1_000_000, 1)), "tx_bytes", 1_000_000.0),
        (bytes(limit(100_000, 1)), "tx_bytes", 100_000.0),
        (operations(limit(2000, 1)), "tx_packets", 2000.0),
        (operations(limit(20, 1)), "tx_packets", 20.0),
    ];
    for (limits, counter, rate) in cases {
        let (mut driver, peer, clock, _) = limited(transmit_only(limits));
        let mut waiting = 0;
        let passed = second(&clock, &mut driver, counter, |driver| {
            while waiting < 8 {
                driver.add(
                    TRANSMIT,
                    &[Buffer::Read(&PLAIN), Buffer::Read(&packet(1000, 1))],
                );
                waiting += 1;
            }
            driver.notify(TRANSMIT);
            driver.run();
            waiting -= driver.used(TRANSMIT).len();
            while peer.receive().is_some() {}
        });
        assert!((passed / rate - 1.0).abs() < 0.1, "{passed} of {rate}");
        assert!(driver.counter("tx_throttled") > 10);
    }
}

#[test]
fn what_a_guest_receives_in_a_second_is_the_limit_within_a_tenth() {
    let limits = NetLimits {
        receive: bytes(limit(500_000, 1)),
        ..NetLimits::default()
    };
    let (mut driver, peer, clock, _) = limited(limits);
    let (mut buffers, mut waiting) = (0, 0);
    let passed = second(&clock, &mut driver, "rx_bytes", |driver| {
        while buffers < 8 {
            driver.add(RECEIVE, &[Buffer::Write(1526)]);
            buffers += 1;
        }
        while waiting < 8 {
            peer.send(&packet(1000, 1));
            waiting += 1;
        }
        driver.notify(RECEIVE);
        driver.run();
        let used = driver.used(RECEIVE).len();
        (buffers, waiting) = (buffers - used, waiting - used);
    });
    assert!((passed / 500_000.0 - 1.0).abs() < 0.1, "{passed}");
    assert!(driver.counter("rx_throttled") > 10);
}

#[test]
fn a_storm_of_notifications_gets_no_packet_past_the_limit() {
    let (mut driver, peer, ..) = limited(transmit_only(operations(limit(100, 5))));
    for n in 0..20 {
        driver.add(
            TRANSMIT,
            &[Buffer::Read(&PLAIN), Buffer::Read(&packet(60, n))],
        );
    }
    for _ in 0..1000 {
        driver.notify(TRANSMIT);
        driver.run();
    }
    let sent = std::iter::from_fn(|| peer.receive()).count();
    assert_eq!((sent, driver.counter("tx_throttled")), (5, 1));
}

#[test]
fn the_timer_sends_what_the_limit_held_back_in_order() {
    let limits = transmit_only(operations(limit(1000, 1)));
    let (mut driver, peer) = network_with(&[], |config| config.limits = limits);
    for n in 0..40 {
        driver.add(
            TRANSMIT,
            &[Buffer::Read(&PLAIN), Buffer::Read(&packet(60, n))],
        );
    }
    driver.notify(TRANSMIT);
    driver.run_until("all was sent", |driver| driver.counter("tx_packets") == 40);
    for n in 0..40 {
        assert_eq!(peer.receive().unwrap()[12..], packet(60, n));
    }
    assert!(driver.counter("tx_throttled") > 0);
}

#[test]
fn new_limits_hold_at_once_in_both_directions() {
    let slow = operations(limit(1, 1));
    let (mut driver, peer, _, control) = limited(NetLimits {
        receive: slow,
        transmit: slow,
    });
    for n in 0..10 {
        driver.add(
            TRANSMIT,
            &[Buffer::Read(&PLAIN), Buffer::Read(&packet(60, n))],
        );
        driver.add(RECEIVE, &[Buffer::Write(1526)]);
        peer.send(&packet(60, n));
    }
    driver.notify(TRANSMIT);
    driver.notify(RECEIVE);
    driver.run();
    let passed = |driver: &Driver| (driver.counter("rx_packets"), driver.counter("tx_packets"));
    assert_eq!(passed(&driver), (1, 1));
    control.set_limits(NetLimits::default());
    driver.run_until("the rest passed", |driver| passed(driver) == (10, 10));
    control.set_limits(NetLimits {
        receive: slow,
        transmit: slow,
    });
    driver.run();
    for n in 0..3 {
        transmit(&mut driver, &packet(60, n));
    }
    assert_eq!(driver.counter("tx_packets"), 11);
}
