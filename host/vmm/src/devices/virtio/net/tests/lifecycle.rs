use virtio_bindings::virtio_net::{VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_STATUS};

use super::super::NetState;
use super::*;
use crate::devices::virtio::{DeviceState, RestoreError, VirtioDevice as _};

fn device() -> (Net, Peer) {
    let (tap, peer) = link();
    (Net::new(NetConfig::new(tap, MAC)).unwrap(), peer)
}

#[test]
fn it_goes_on_where_it_was_after_it_was_saved_and_restored() {
    let (mut driver, peer) = network(&[VIRTIO_NET_F_MRG_RXBUF]);
    let buffers: Vec<_> = (0..10)
        .map(|_| driver.add(RECEIVE, &[Buffer::Write(1526)]))
        .collect();
    driver.notify(RECEIVE);
    peer.send(&packet(60, 0));
    driver.run();
    assert_eq!(driver.used(RECEIVE), [(buffers[0].head, 72)]);
    let unsent = driver.add(
        TRANSMIT,
        &[Buffer::Read(&PLAIN), Buffer::Read(&packet(90, 1))],
    );

    let (device, peer) = device();
    let mut driver = driver.migrate(device);
    driver.run();
    assert_eq!(driver.used(TRANSMIT), [(unsent.head, 0)]);
    assert_eq!(peer.receive().unwrap()[12..], packet(90, 1));
    for (n, buffer) in (1..).zip(&buffers[1..]) {
        peer.send(&packet(60, n));
        driver.run();
        assert_eq!(driver.used(RECEIVE), [(buffer.head, 72)]);
        assert_eq!(received(&driver, buffer, 72), (1, packet(60, n)));
    }
}

#[test]
fn while_it_is_paused_it_touches_nothing_and_afterwards_receives_what_waited() {
    let (mut driver, peer) = network(&[]);
    let buffer = driver.send(RECEIVE, &[Buffer::Write(1526)]);
    driver.device.quiesce();
    peer.send(&packet(60, 1));
    driver.run();
    assert_eq!(driver.used(RECEIVE), []);
    assert_eq!(driver.received(&buffer), vec![0; 1526]);
    driver.device.resume();
    driver.run();
    assert_eq!(received(&driver, &buffer, 72), (1, packet(60, 1)));
}

#[test]
fn a_state_of_another_device_is_refused() {
    let saved = NetState {
        mac: MAC,
        mtu: None,
        link_up: true,
    };
    let refusal = |state| device().0.restore(state, None);
    assert_eq!(refusal(DeviceState::Net(saved)), Ok(()));
    let others = [
        NetState {
            mac: OTHER,
            ..saved
        },
        NetState {
            mtu: Some(1500),
            ..saved
        },
    ];
    for state in others {
        let refused = refusal(DeviceState::Net(state));
        assert!(
            matches!(refused, Err(RestoreError::Invalid(_))),
            "{state:?}"
        );
    }
    let rng = DeviceState::Rng(crate::devices::virtio::rng::RngState {});
    assert_eq!(refusal(rng), Err(RestoreError::Kind("net")));
}

#[test]
fn a_reset_forgets_the_buffers_and_the_device_works_for_the_next_driver() {
    let (mut driver, peer) = network(&[VIRTIO_NET_F_MRG_RXBUF]);
    for _ in 0..3 {
        let old: Vec<_> = (0..5)
            .map(|_| driver.add(RECEIVE, &[Buffer::Write(2000)]))
            .collect();
        driver.notify(RECEIVE);
        driver.run();
        driver.reset();
        peer.send(&packet(60, 1));
        driver.run();
        assert!(old.iter().all(|old| driver.received(old) == [0; 2000]));
        driver.negotiate(0);
        let buffer = driver.send(RECEIVE, &[Buffer::Write(1526)]);
        peer.send(&packet(60, 2));
        driver.run();
        assert_eq!(received(&driver, &buffer, 72), (1, packet(60, 2)));
        transmit(&mut driver, &packet(60, 3));
        assert!(peer.receive().is_some());
    }
    assert_eq!(driver.counter("rx_dropped_stale"), 3);
}

#[test]
fn without_its_network_the_link_is_down_the_driver_is_told_and_the_device_lives_on() {
    let (mut driver, peer) = network(&[VIRTIO_NET_F_STATUS]);
    driver.send(RECEIVE, &[Buffer::Write(1526)]);
    peer.send(&packet(60, 1));
    drop(peer);
    driver.run();
    // What was sent before is not lost.
    assert_eq!(driver.used(RECEIVE).len(), 1);
    driver.send(RECEIVE, &[Buffer::Write(1526)]);
    assert!(driver.take_interrupt());
    assert_eq!(driver.config(6, 2), [0, 0]);
    for n in 0..3 {
        transmit(&mut driver, &packet(60, n));
    }
    assert_eq!(driver.used(TRANSMIT).len(), 3);
    assert!(!driver.is_broken());
    assert_eq!(driver.counter("tx_dropped_link_down"), 3);
    driver.negotiate(0);
    transmit(&mut driver, &packet(60, 1));
    assert_eq!(driver.used(TRANSMIT).len(), 1);
    assert_eq!(driver.counter("link_lost"), 1);
}

#[test]
fn a_network_that_goes_is_also_noticed_by_sending() {
    let (mut driver, peer) = network(&[]);
    drop(peer);
    transmit(&mut driver, &packet(60, 1));
    assert_eq!(driver.config(6, 2), [0, 0]);
    assert_eq!(driver.counter("tx_dropped_link_down"), 1);
    assert_eq!(driver.counter("link_lost"), 1);
}

#[test]
fn a_driver_that_was_told_of_a_link_that_is_gone_is_told_again_where_it_is_back() {
    let (mut driver, peer) = network(&[VIRTIO_NET_F_STATUS]);
    drop(peer);
    transmit(&mut driver, &packet(60, 1));
    driver.take_interrupt();
    driver.device.quiesce();
    let state = driver.device.save().unwrap();
    let (device, peer) = device();
    let mut driver = Driver::new(device);
    driver.negotiate(0);
    driver.device.quiesce();
    let mut restored = driver.device.save().unwrap();
    restored.device = state.device;
    driver.device.restore(restored.clone()).unwrap();
    let again = driver.device.save().unwrap();
    assert_eq!(again, restored, "the driver has not been told yet");
    driver.take_interrupt();
    driver.device.resume();
    driver.run();
    assert!(driver.take_interrupt(), "its configuration changed");
    assert_eq!(driver.config(6, 2), [1, 0]);
    transmit(&mut driver, &packet(60, 2));
    assert!(peer.receive().is_some());
}
