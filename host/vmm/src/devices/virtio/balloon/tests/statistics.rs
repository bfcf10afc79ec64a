//! What the guest says about its memory.

use std::time::Duration;

use super::*;
use crate::devices::virtio::balloon::GuestStatistics;

/// What the guest said, without when.
fn said(control: &BalloonControl) -> Option<GuestStatistics> {
    let guest = control.statistics().guest;
    guest.map(|guest| GuestStatistics {
        age: Duration::ZERO,
        ..guest
    })
}

#[test]
fn statistics_are_read_by_their_tags_and_what_was_not_said_is_not_there() {
    let (mut driver, control) = balloon();
    assert_eq!(said(&control), None);
    let sent: Vec<u8> = [(4, 1000), (5, 1 << 40), (2, 7), (99, 1), (4, 2000)]
        .into_iter()
        .flat_map(|(tag, value)| statistic(tag, value))
        .collect();
    driver.send(STATISTICS, &[Buffer::Read(&sent)]);
    let expected = GuestStatistics {
        free_bytes: Some(2000),
        total_bytes: Some(1 << 40),
        major_faults: Some(7),
        ..GuestStatistics::default()
    };
    assert_eq!(said(&control), Some(expected));
    assert_eq!(driver.counter("statistics_unknown"), 1);
    assert_eq!(driver.used(STATISTICS), [], "the buffer is kept");
}

#[test]
fn each_of_the_sixteen_statistics_has_its_place() {
    let (mut driver, control) = balloon();
    let sent: Vec<u8> = (0..16)
        .flat_map(|tag| statistic(tag, 100 + u64::from(tag)))
        .collect();
    driver.send(STATISTICS, &[Buffer::Read(&sent)]);
    let expected = GuestStatistics {
        age: Duration::ZERO,
        swap_in_bytes: Some(100),
        swap_out_bytes: Some(101),
        major_faults: Some(102),
        minor_faults: Some(103),
        free_bytes: Some(104),
        total_bytes: Some(105),
        available_bytes: Some(106),
        disk_caches_bytes: Some(107),
        hugetlb_allocations: Some(108),
        hugetlb_failures: Some(109),
        oom_kills: Some(110),
        allocation_stalls: Some(111),
        async_scans: Some(112),
        direct_scans: Some(113),
        async_reclaims: Some(114),
        direct_reclaims: Some(115),
    };
    assert_eq!(said(&control), Some(expected));
}

#[test]
fn the_guest_is_asked_again_as_often_as_the_host_wants() {
    let (mut driver, control) = balloon();
    let mut last = driver.send(STATISTICS, &[Buffer::Read(&statistic(4, 0))]);
    control
        .set_statistics_interval(Some(Duration::from_millis(1)))
        .unwrap();
    for round in 1..=5 {
        driver.run_until("it is asked", |driver| {
            driver.counter("statistics_asked") == round
        });
        assert_eq!(driver.used(STATISTICS), [(last.head, 0)]);
        assert_eq!(said(&control).unwrap().free_bytes, Some(round - 1));
        last = driver.send(STATISTICS, &[Buffer::Read(&statistic(4, round))]);
    }
    control.set_statistics_interval(None).unwrap();
    let timer = rustix::time::timerfd_gettime(&control.timer).unwrap();
    assert_eq!(
        (timer.it_value.tv_sec, timer.it_value.tv_nsec),
        (0, 0),
        "it is off"
    );
}

#[test]
fn a_guest_that_does_not_answer_is_not_asked_twice() {
    let (mut driver, control) = balloon();
    driver.send(STATISTICS, &[Buffer::Read(&statistic(4, 0))]);
    let every = Some(Duration::from_millis(1));
    control.set_statistics_interval(every).unwrap();
    driver.run_until("it is asked", |driver| {
        driver.counter("statistics_asked") == 1
    });
    let mut turns = 0;
    driver.run_until("the timer fired again, often", |_| {
        turns += 1;
        turns > 5
    });
    assert_eq!(driver.counter("statistics_asked"), 1);
    assert_eq!(driver.used(STATISTICS).len(), 1);
}

#[test]
fn an_interval_for_ever_is_refused() {
    let config = BalloonConfig {
        statistics_interval: Some(Duration::MAX),
        ..ALL
    };
    assert!(Balloon::new(config).is_err());
}
