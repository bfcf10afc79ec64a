//! What the driver is offered and told.

use super::*;
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_CONFIG_GENERATION, VIRTIO_MMIO_INTERRUPT_STATUS};

/// `num_pages` and `actual`.
fn config(driver: &Driver) -> [u32; 2] {
    let bytes = driver.config(0, 8);
    let [target, actual] = [&bytes[..4], &bytes[4..]];
    [target, actual].map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap()))
}

#[test]
fn what_is_offered_is_what_is_configured_and_no_more() {
    let offered = |config| Driver::new(Balloon::new(config).unwrap()).offered() & 0xff_ffff;
    assert_eq!(offered(ALL), FEATURES);
    assert_eq!(offered(BalloonConfig::default()), 1 << feature::STATISTICS);
}

#[test]
fn a_new_target_is_in_the_configuration_and_told_once() {
    let (driver, control) = balloon();
    assert_eq!(config(&driver), [0, 0]);
    let generation = driver.read(VIRTIO_MMIO_CONFIG_GENERATION);
    control.set_target_mib(64);
    driver.run();
    assert_eq!(config(&driver), [64 * 256, 0]);
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 2);
    assert!(driver.take_interrupt());
    assert_eq!(driver.read(VIRTIO_MMIO_CONFIG_GENERATION), generation + 1);
    control.set_target_mib(64);
    driver.run();
    assert!(!driver.take_interrupt(), "it is no other");
}

#[test]
fn a_target_from_before_the_driver_was_ready_is_not_missed() {
    let device = Balloon::new(ALL).unwrap();
    let control = device.control();
    let mut driver = Driver::new(device);
    driver.begin(FEATURES);
    assert_eq!(config(&driver), [0, 0]);
    // It has looked; and this wakes the device before there is somebody to tell.
    control.set_target_mib(1);
    driver.run();
    driver.enable_queue(16);
    driver.enable_queue(16);
    assert!(!driver.take_interrupt());
    driver.driver_ok();
    driver.run();
    assert!(driver.take_interrupt());
    assert_eq!(config(&driver), [256, 0]);
}

#[test]
fn the_host_reads_what_the_driver_says_it_has_given() {
    let (mut driver, control) = balloon();
    control.set_target_mib(2);
    driver.write_config(4, &300_u32.to_le_bytes());
    let statistics = control.statistics();
    assert_eq!(
        (statistics.target_bytes, statistics.actual_bytes),
        (2 << 20, 300 * 4096)
    );
    assert_eq!(config(&driver), [512, 300]);
    driver.reset();
    assert_eq!(
        control.statistics().actual_bytes,
        0,
        "a new driver begins with none"
    );
    assert_eq!(config(&driver), [512, 0], "the host still wants it");
}
