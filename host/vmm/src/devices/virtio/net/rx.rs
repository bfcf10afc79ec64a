//! From the TAP to the guest.

use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use vmm_sys_util::epoll::EventSet;

use super::device::Net;
use super::events::TAP;
use super::features::receives_segments;
use super::header::HEADER_BYTES;
use super::rx_buffers::{Received, is_usable};
use super::{ETHERNET_BYTES, MAX_PACKET_BYTES, RECEIVE};
use crate::devices::virtio::{Active, DeviceError, Virtqueue};

/// Most packets in one turn; then others have theirs.
const TURN_PACKETS: usize = 256;
/// Bytes of a VLAN tag, which may be in front of a packet of the largest size.
const VLAN_BYTES: usize = 4;
/// The MTU of a driver that was not told one.
const DEFAULT_MTU: u16 = 1500;
/// Least bytes of what is a packet, with the virtio header.
const LEAST_BYTES: usize = HEADER_BYTES + ETHERNET_BYTES;

impl Net {
    /// Receives what there is, as far as there are buffers, the limit allows it and a turn goes.
    pub(super) fn receive(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        if !self.link_up {
            return Ok(());
        }
        let merge = active.has(VIRTIO_NET_F_MRG_RXBUF);
        let needed = self.needed_bytes(active);
        let Some(queue) = active.queue(RECEIVE) else {
            return self.watch_tap(false);
        };
        for _ in 0..TURN_PACKETS {
            if !self.receive_limiter.admits() {
                // The limiter's timer goes on from here.
                return self.watch_tap(false);
            }
            self.fill_buffers(queue, needed, merge)?;
            if self.buffers.is_empty() {
                self.counters.rx_no_buffers.add(1);
                return self.watch_tap(false);
            }
            match self.buffers.read_from(&self.link) {
                Ok(Some(Received::Packet(bytes))) => self.received(bytes, queue)?,
                Ok(Some(Received::TooLong)) => self.counters.rx_too_long.add(1),
                Ok(None) => return self.watch_tap(true),
                // Whatever went wrong would go wrong again and again.
                Ok(Some(Received::End)) | Err(_) => return self.lose_link(active),
            }
        }
        // There may be more, and then the next turn comes at once.
        self.watch_tap(true)
    }

    fn received(&mut self, bytes: usize, queue: &mut Virtqueue) -> Result<(), DeviceError> {
        if bytes < LEAST_BYTES {
            self.counters.rx_malformed.add(1);
            return Ok(());
        }
        let payload = (bytes - HEADER_BYTES) as u64;
        self.receive_limiter.charge(payload, 1);
        self.counters.rx_packets.add(1);
        self.counters.rx_bytes.add(payload);
        self.buffers.deliver(bytes, queue)
    }

    /// Takes buffers until they suffice for the largest packet, or there are no more.
    fn fill_buffers(
        &mut self,
        queue: &mut Virtqueue,
        needed: usize,
        merge: bool,
    ) -> Result<(), DeviceError> {
        while !self.buffers.suffice(needed, merge)
            && let Some(chain) = queue.pop()?
        {
            if is_usable(&chain) {
                if let Err(chain) = self.buffers.push(chain) {
                    queue.unpop(chain);
                    break;
                }
            } else if self.buffers.is_empty() {
                self.counters.rx_bad_buffers.add(1);
                queue.complete(chain, 0)?;
            } else {
                // It waits until those before it are used: what is held must be what was taken
                // last, or it could not be given back.
                queue.unpop(chain);
                break;
            }
        }
        Ok(())
    }

    /// Bytes of the largest packet that may come, with the header.
    fn needed_bytes(&self, active: &Active) -> usize {
        if receives_segments(active) {
            return MAX_PACKET_BYTES;
        }
        let mtu = self.mtu.map_or(DEFAULT_MTU, |mtu| mtu.max(DEFAULT_MTU));
        HEADER_BYTES + ETHERNET_BYTES + VLAN_BYTES + usize::from(mtu)
    }

    /// Looks at the TAP from now on, or not.
    pub(super) fn watch_tap(&mut self, watch: bool) -> Result<(), DeviceError> {
        if self.is_watching == watch {
            return Ok(());
        }
        let Some(sources) = &self.sources else {
            return Ok(());
        };
        let changed = match watch {
            true => sources.add(&self.link, TAP, EventSet::IN),
            false => sources.remove(&self.link),
        };
        changed.map_err(|source| DeviceError::Host {
            what: "epoll_ctl of a TAP",
            source,
        })?;
        self.is_watching = watch;
        Ok(())
    }

    /// The TAP is gone: the link is down for good, and the driver is told.
    pub(super) fn lose_link(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        if !std::mem::replace(&mut self.link_up, false) {
            return Ok(());
        }
        self.counters.link_lost.add(1);
        self.must_tell_link = false;
        active.config_changed();
        self.watch_tap(false)
    }
}
