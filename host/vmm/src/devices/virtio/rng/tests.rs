use super::Rng;
use crate::devices::virtio::test_driver::{Buffer, Driver};

fn driver() -> Driver {
    let mut driver = Driver::new(Rng::default());
    driver.negotiate(0);
    driver
}

#[test]
fn every_buffer_is_filled_whole_and_with_other_bytes_each_time() {
    let mut driver = driver();
    let first = driver.send(0, &[Buffer::Write(16), Buffer::Write(1000)]);
    let second = driver.send(0, &[Buffer::Write(1016)]);
    assert_eq!(driver.used(0), [(first.head, 1016), (second.head, 1016)]);
    let (first, second) = (driver.received(&first), driver.received(&second));
    assert_ne!(first, second);
    for bytes in [first, second] {
        // Of 1016 random bytes, no 32 in a row are zero, but for one time in 2^246.
        assert!(
            bytes
                .chunks(32)
                .all(|piece| piece.iter().any(|byte| *byte != 0))
        );
    }
    assert!(driver.take_interrupt());
    assert_eq!(driver.counter("entropy_bytes"), 2032);
    assert_eq!(driver.counter("requests"), 2);
}

#[test]
fn a_request_without_room_is_answered_with_nothing() {
    let mut driver = driver();
    let request = driver.send(0, &[Buffer::Read(b"what is this")]);
    assert_eq!(driver.used(0), [(request.head, 0)]);
    assert!(!driver.is_broken());
}

#[test]
fn it_goes_on_where_it_was_after_it_was_saved_and_restored() {
    let mut driver = driver();
    driver.send(0, &[Buffer::Write(8)]);
    let pending = driver.add(0, &[Buffer::Write(8)]);
    let mut driver = driver.migrate(Rng::default());
    driver.run();
    assert_eq!(driver.used(0).last(), Some(&(pending.head, 8)));
}
