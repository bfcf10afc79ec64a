//! The device between a driver in this process and a socket that stands for a TAP.

mod configuration;
mod hostile;
mod lifecycle;
mod limits;
mod receive;
mod transmit;

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::{MAX_PACKET_BYTES, Net, NetConfig, RECEIVE, TRANSMIT};
use crate::devices::virtio::rate_limiter::tests::TestClock;
use crate::devices::virtio::test_driver::{Buffer, Driver, Request};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// A virtio header that asks for nothing.
const PLAIN: [u8; 12] = [0; 12];

/// The network's end of the link.
struct Peer(OwnedFd);

impl Peer {
    /// Sends a packet to the guest, behind a plain header.
    fn send(&self, packet: &[u8]) {
        self.send_raw(&[&PLAIN, packet].concat());
    }

    fn send_raw(&self, bytes: &[u8]) {
        let sent = rustix::net::send(&self.0, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        assert_eq!(sent.unwrap(), bytes.len());
    }

    /// The next packet from the guest, with its header.
    fn receive(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 2 * MAX_PACKET_BYTES];
        let (received, _) = rustix::net::recv(&self.0, &mut bytes[..], RecvFlags::DONTWAIT).ok()?;
        bytes.truncate(received);
        Some(bytes)
    }
}

fn link() -> (File, Peer) {
    let (tap, peer) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    (tap.into(), Peer(peer))
}

/// A driver that negotiated `features` (bits) with a device made by `configure`, and its network.
fn network_with(features: &[u32], configure: impl FnOnce(&mut NetConfig)) -> (Driver, Peer) {
    let (tap, peer) = link();
    let mut config = NetConfig::new(tap, MAC);
    configure(&mut config);
    let mut driver = Driver::new(Net::new(config).unwrap());
    driver.negotiate(mask(features));
    (driver, peer)
}

fn network(features: &[u32]) -> (Driver, Peer) {
    network_with(features, |_| {})
}

fn mask(features: &[u32]) -> u64 {
    features.iter().fold(0, |mask, bit| mask | 1 << bit)
}

/// An Ethernet packet of `bytes` from the guest's address, the same for the same `seed`.
fn packet(bytes: usize, seed: u8) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..bytes)
        .map(|n| (n as u8).wrapping_mul(31) ^ seed)
        .collect();
    packet[..6].copy_from_slice(&OTHER);
    packet[6..12].copy_from_slice(&MAC);
    packet
}

/// Sends a packet behind a plain header.
fn transmit(driver: &mut Driver, packet: &[u8]) -> Request {
    driver.send(TRANSMIT, &[Buffer::Read(&PLAIN), Buffer::Read(packet)])
}

/// What was received into `request`: the number of buffers, and the packet.
fn received(driver: &Driver, request: &Request, bytes: u32) -> (u16, Vec<u8>) {
    let mut all = driver.received(request);
    all.truncate(bytes as usize);
    (u16::from_le_bytes([all[10], all[11]]), all.split_off(12))
}
