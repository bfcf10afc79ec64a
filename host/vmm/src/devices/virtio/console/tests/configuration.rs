//! What is offered, and what can't be configured.

use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_QUEUE_NUM_MAX, VIRTIO_MMIO_QUEUE_SEL};

use super::super::ConsoleConfigError;
use super::*;

#[test]
fn one_port_needs_no_multiport_protocol_and_more_do() {
    for (names, features, queues) in [
        (&[][..], SIZE, 2),
        (&["agent"], SIZE | MULTIPORT, 6),
        (&["a", "b", "c"], SIZE | MULTIPORT, 10),
    ] {
        let driver = Driver::new(Console::new(config(names)).unwrap());
        assert_eq!(driver.offered() & 0xff_ffff, features);
        let has_queue = |queue: &u32| {
            driver.write(VIRTIO_MMIO_QUEUE_SEL, *queue);
            driver.read(VIRTIO_MMIO_QUEUE_NUM_MAX) > 0
        };
        assert_eq!((0..20).filter(has_queue).count(), queues);
        let ports = names.len() as u8 + 1;
        assert_eq!(
            driver.config(0, 12),
            [100, 0, 30, 0, ports, 0, 0, 0, 0, 0, 0, 0]
        );
    }
}

#[test]
fn ports_that_a_guest_could_not_name_are_refused() {
    let refused = |names: &[&str]| Console::new(config(names)).err().unwrap();
    for name in ["", ".", "..", "a/b", "a\nb", "a\0b", &"x".repeat(65)] {
        let error = refused(&["good", name]);
        assert!(matches!(error, ConsoleConfigError::Name(refused) if refused == name));
    }
    let error = refused(&["a", "b", "a"]);
    assert!(matches!(error, ConsoleConfigError::SameName(name) if name == "a"));
    let error = refused(&["a", "b", "c", "d"]);
    assert!(matches!(error, ConsoleConfigError::TooMany(4)));
    assert!(Console::new(config(&["org.example.agent.0", &"x".repeat(64), "ü"])).is_ok());
}

#[test]
fn nothing_can_be_written_to_the_configuration() {
    let (driver, _) = console(&[], SIZE);
    for (offset, bytes) in [(0, 2), (8, 4), (u64::MAX / 2, 1)] {
        driver.write_config(offset, &vec![0xff; bytes]);
    }
    assert_eq!(driver.counter("refused_config_writes"), 3);
    assert_eq!(driver.config(0, 4), [100, 0, 30, 0]);
}
