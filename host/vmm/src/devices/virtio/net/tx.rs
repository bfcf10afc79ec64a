//! From the guest to the TAP.

use super::device::Net;
use super::header::{HEADER_BYTES, Header};
use super::link::Sent;
use super::{ETHERNET_BYTES, MAX_PACKET_BYTES, TRANSMIT};
use crate::devices::virtio::{Active, Chain, DeviceError};

/// Bytes that are copied before they are checked: the virtio and the Ethernet header.
const HEAD_BYTES: usize = HEADER_BYTES + ETHERNET_BYTES;

/// Why a packet is not sent.
enum Drop {
    Malformed,
    TooLong,
    Spoofed,
    Refused,
    Full,
    LinkDown,
    LinkLost,
}

impl Net {
    /// Sends what there is, as far as the limit allows it and a turn goes.
    pub(super) fn transmit(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        let features = active.features();
        let has = |bit: u32| features >> bit & 1 != 0;
        let mut is_lost = false;
        let Some(queue) = active.queue(TRANSMIT) else {
            return Ok(());
        };
        while let Some(chain) = queue.pop()? {
            if !self.transmit_limiter.admits() {
                // The limiter's timer goes on from here.
                queue.unpop(chain);
                break;
            }
            let sent = self.send(&chain, has);
            // What is dropped costs the host time, too, but none of the network's.
            self.transmit_limiter
                .charge(*sent.as_ref().unwrap_or(&0), 1);
            is_lost |= matches!(sent, Err(Drop::LinkLost));
            self.count_sent(&sent);
            queue.complete(chain, 0)?;
        }
        match is_lost {
            true => self.lose_link(active),
            false => Ok(()),
        }
    }

    /// Sends one packet; returns its bytes without the virtio header.
    fn send(&self, chain: &Chain, has: impl Fn(u32) -> bool) -> Result<u64, Drop> {
        let bytes = chain.readable_bytes() as usize;
        if chain.writable_bytes() > 0 {
            return Err(Drop::Malformed);
        }
        if bytes > MAX_PACKET_BYTES {
            return Err(Drop::TooLong);
        }
        let mut reader = chain.reader();
        let mut head = [0; HEAD_BYTES];
        reader.read_exact(&mut head).map_err(|_| Drop::Malformed)?;
        // Destination, source, type.
        let [header @ .., _, _, _, _, _, _, s0, s1, s2, s3, s4, s5, _, _] = head;
        if self.anti_spoofing && [s0, s1, s2, s3, s4, s5] != self.mac {
            return Err(Drop::Spoofed);
        }
        let payload = bytes - HEADER_BYTES;
        let header = Header::from_bytes(header).checked(payload, has);
        let header = header.ok_or(Drop::Malformed)?.to_bytes();
        for (to, from) in head.iter_mut().zip(header) {
            *to = from;
        }
        if !self.link_up {
            return Err(Drop::LinkDown);
        }
        let rest = reader.take(reader.remaining());
        match self.link.send(&head, &rest.map_err(|_| Drop::Malformed)?) {
            Sent::Done => Ok(payload as u64),
            Sent::Full => Err(Drop::Full),
            Sent::Refused => Err(Drop::Refused),
            Sent::Down => Err(Drop::LinkDown),
            Sent::Lost => Err(Drop::LinkLost),
        }
    }

    fn count_sent(&self, sent: &Result<u64, Drop>) {
        let counters = &self.counters;
        let dropped = match sent {
            Ok(bytes) => {
                counters.tx_bytes.add(*bytes);
                &counters.tx_packets
            }
            Err(Drop::Malformed) => &counters.tx_malformed,
            Err(Drop::TooLong) => &counters.tx_too_long,
            Err(Drop::Spoofed) => &counters.tx_spoofed,
            Err(Drop::Refused) => &counters.tx_refused,
            Err(Drop::Full) => &counters.tx_full,
            Err(Drop::LinkDown | Drop::LinkLost) => &counters.tx_link_down,
        };
        dropped.add(1);
    }
}
