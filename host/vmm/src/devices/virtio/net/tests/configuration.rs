use virtio_bindings::virtio_net::*;

use super::super::NetConfigError;
use super::*;

#[test]
fn the_driver_reads_the_address_and_that_the_link_is_up_and_nothing_behind() {
    let (driver, _peer) = network_with(&[], |config| config.mtu = Some(9000));
    let expected = [2, 0, 0, 0, 0, 7, 1, 0, 1, 0, 0x28, 0x23];
    assert_eq!(driver.config(0, 12), expected);
    assert_eq!(driver.config(6, 2), [1, 0]);
    assert_eq!(driver.config(11, 4), [0x23, 0, 0, 0]);
    assert_eq!(driver.config(5000, 8), [0; 8]);
    driver.write_config(0, &[0xff; 12]);
    assert_eq!(driver.config(0, 12), expected);
}

#[test]
fn offloads_and_an_mtu_are_offered_as_configured() {
    let always = mask(&[
        VIRTIO_NET_F_MAC,
        VIRTIO_NET_F_MRG_RXBUF,
        VIRTIO_NET_F_STATUS,
    ]);
    let offloads = mask(&[
        VIRTIO_NET_F_CSUM,
        VIRTIO_NET_F_GUEST_CSUM,
        VIRTIO_NET_F_GUEST_TSO4,
        VIRTIO_NET_F_GUEST_TSO6,
        VIRTIO_NET_F_GUEST_ECN,
        VIRTIO_NET_F_HOST_TSO4,
        VIRTIO_NET_F_HOST_TSO6,
        VIRTIO_NET_F_HOST_ECN,
        VIRTIO_NET_F_HOST_USO,
        VIRTIO_NET_F_GUEST_USO4,
        VIRTIO_NET_F_GUEST_USO6,
    ]);
    let all = always | offloads | mask(&[VIRTIO_NET_F_MTU]);
    let own = |driver: Driver| driver.offered() & (all | 0xff_ffff);
    let (driver, _peer) = network(&[]);
    assert_eq!(own(driver), always | offloads);
    let (driver, _peer) = network_with(&[], |config| {
        config.offloads = false;
        config.mtu = Some(1400);
    });
    assert_eq!(own(driver), always | mask(&[VIRTIO_NET_F_MTU]));
}

#[test]
fn what_is_no_network_is_refused() {
    let refusal = |tap: File| Net::new(NetConfig::new(tap, MAC)).err().unwrap();
    let (reader, _writer) = std::io::pipe().unwrap();
    let (stream, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let files = [
        tempfile::tempfile().unwrap(),
        File::open("/dev/null").unwrap(),
        File::from(OwnedFd::from(reader)),
        File::from(OwnedFd::from(stream)),
    ];
    for file in files {
        let error = refusal(file);
        assert!(matches!(error, NetConfigError::NoPackets), "{error}");
    }
}

#[test]
fn an_address_that_no_guest_can_have_and_an_mtu_that_no_network_has_are_refused() {
    let refusal = |mac, mtu| {
        let (tap, _peer) = link();
        let mut config = NetConfig::new(tap, mac);
        config.mtu = mtu;
        Net::new(config).err().unwrap()
    };
    for mac in [[0; 6], [0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
        assert!(matches!(refusal(mac, None), NetConfigError::Mac));
    }
    assert!(matches!(refusal(MAC, Some(67)), NetConfigError::Mtu(67)));
}
