//! Pause, save, restore, reset.

use std::time::Duration;

use super::*;
use crate::devices::virtio::balloon::BalloonState;
use crate::devices::virtio::{DeviceState, RestoreError, VirtioDevice as _};

#[test]
fn a_pause_gives_the_statistics_buffer_back_and_takes_it_again() {
    let (mut driver, control) = balloon();
    let request = driver.send(STATISTICS, &[Buffer::Read(&statistic(4, 5))]);
    for _ in 0..3 {
        driver.device.quiesce();
        driver.device.save().unwrap();
        driver.device.resume();
        driver.run();
    }
    assert_eq!(
        driver.counter("statistics_received"),
        1,
        "nothing new was said"
    );
    let every = Some(Duration::from_millis(1));
    control.set_statistics_interval(every).unwrap();
    driver.run_until("it is asked", |driver| {
        driver.counter("statistics_asked") == 1
    });
    assert_eq!(driver.used(STATISTICS), [(request.head, 0)]);
    driver.send(STATISTICS, &[Buffer::Read(&statistic(4, 6))]);
    assert!(driver.counter("statistics_received") >= 2);
}

#[test]
fn it_goes_on_where_it_was_after_it_was_saved_and_restored() {
    let (mut driver, control) = balloon();
    control.set_target_mib(3);
    driver.run();
    driver.write_config(4, &700_u32.to_le_bytes());
    driver.send(STATISTICS, &[Buffer::Read(&statistic(4, 5))]);
    assert!(driver.take_interrupt());
    touch(&driver, FREE, 2);
    driver.add(INFLATE, &[Buffer::Read(&numbers([FREE, FREE + 1]))]);

    let device = Balloon::new(ALL).unwrap();
    let control = device.control();
    let mut driver = driver.migrate(device);
    driver.run();
    let statistics = control.statistics();
    assert_eq!(
        (statistics.target_bytes, statistics.actual_bytes),
        (3 << 20, 700 * 4096)
    );
    assert_eq!(statistics.guest.unwrap().free_bytes, Some(5));
    assert_eq!(driver.used(INFLATE).len(), 1);
    assert_eq!(resident(&driver, FREE, 2), 0);
    driver.take_interrupt();
    driver.notify(INFLATE);
    driver.run();
    assert!(!driver.take_interrupt(), "nothing about the target is new");
}

#[test]
fn a_target_that_the_driver_was_not_told_of_is_told_after_the_restore() {
    let (driver, control) = balloon();
    control.set_target_mib(3);
    // Not a single turn: the device thread is held already.
    let driver = driver.migrate(Balloon::new(ALL).unwrap());
    driver.run();
    assert!(driver.take_interrupt());
    assert_eq!(driver.config(0, 4), (3_u32 * 256).to_le_bytes());
}

#[test]
fn a_state_that_is_not_one_of_a_balloon_is_refused() {
    let mut device = Balloon::new(ALL).unwrap();
    let other = DeviceState::Rng(crate::devices::virtio::rng::RngState {});
    let refused = device.restore(other, None);
    assert_eq!(refused, Err(RestoreError::Kind("balloon")));
    let more = r#"{"target_pages":1,"told_pages":1,"actual_pages":1,"more":1}"#;
    assert!(serde_json::from_str::<BalloonState>(more).is_err());
}

#[test]
fn a_reset_forgets_the_driver_and_not_what_the_host_wants() {
    let (mut driver, control) = balloon();
    control.set_target_mib(1);
    driver.run();
    driver.send(STATISTICS, &[Buffer::Read(&statistic(4, 5))]);
    driver.reset();
    driver.reset();
    assert_eq!(control.statistics().guest, None);
    control
        .set_statistics_interval(Some(Duration::from_millis(1)))
        .unwrap();
    let mut turns = 0;
    driver.run_until("the timer fired without a driver", |_| {
        turns += 1;
        turns > 3
    });
    driver.take_interrupt();
    driver.negotiate(FEATURES);
    assert_eq!(driver.config(0, 4), 256_u32.to_le_bytes());
    touch(&driver, FREE, 1);
    inflate(&mut driver, [FREE]);
    assert_eq!(resident(&driver, FREE, 1), 0);
}
