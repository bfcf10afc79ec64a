//! Whatever else a driver may do, at random but the same each time.

use super::{BUFFER, descriptor};
use crate::devices::virtio::balloon::{Balloon, BalloonConfig};
use crate::devices::virtio::console::{Console, ConsoleConfig};
use crate::devices::virtio::rng::Rng;
use crate::devices::virtio::test_driver::{Driver, Manner, Probe, QUEUE_SIZE};

/// A generator of numbers that is the same each time (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

#[test]
fn no_sequence_of_registers_and_rings_panics_or_keeps_a_device_from_coming_back() {
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let kept = Driver::new(Probe::new(Manner::Keep));
    let rng = Driver::new(Rng::default());
    let balloon = BalloonConfig {
        free_page_reporting: true,
        ..BalloonConfig::default()
    };
    let balloon = Driver::new(Balloon::new(balloon).unwrap());
    let console = ConsoleConfig {
        ports: vec!["agent".to_owned()],
        ..ConsoleConfig::default()
    };
    let console = Driver::new(Console::new(console).unwrap());
    // A console does not look for buffers before there is input: its output is attacked.
    for (mut driver, queue) in [(kept, 0), (rng, 0), (balloon, 0), (console, 1)] {
        for _ in 0..500 {
            driver.negotiate(driver.offered());
            for _ in 0..20 {
                let (memory, ring) = driver.ring(queue);
                let at = numbers.below(QUEUE_SIZE.into()) as u16;
                let address = match numbers.below(4) {
                    0 => numbers.next(),
                    1 => ring.descriptors + numbers.below(512),
                    _ => BUFFER,
                };
                let entry = descriptor(
                    address,
                    (numbers.next() >> numbers.below(64)) as u32,
                    numbers.below(8) as u16,
                    numbers.below(u64::from(QUEUE_SIZE) + 1) as u16,
                );
                ring.set_descriptor(memory, at, entry);
                match numbers.below(4) {
                    0 => ring.set_available_index(memory, numbers.next() as u16),
                    1 => ring.set_used_event(memory, numbers.next() as u16),
                    _ => ring.make_available(memory, at),
                }
                driver.notify(numbers.below(3) as u16);
                if numbers.below(8) == 0 {
                    let register = numbers.below(0x100) as u32 & !3;
                    driver.write(register, (numbers.next() >> numbers.below(64)) as u32);
                }
                driver.run();
            }
        }
        driver.negotiate(0);
        assert!(driver.counter("broke") > 100, "it was hostile");
    }
}
