//! Packets to the guest.

use super::flow::Outgoing;
use super::{Multiplexer, Refusal};
use crate::devices::virtio::vsock::counters::VsockCounters;
use crate::devices::virtio::vsock::packet::{HEADER_BYTES, HOST_CID, Header, Op, TYPE_STREAM};
use crate::devices::virtio::{Chain, DeviceError, ShortBuffer, Virtqueue};

impl Multiplexer {
    /// Sends what there is to send for as long as the guest has buffers: one packet of each
    /// connection, then the next of each.
    pub(in super::super) fn receive(&mut self, queue: &mut Virtqueue) -> Result<(), DeviceError> {
        while !self.refusals.is_empty() || !self.ready.is_empty() {
            let Some(chain) = queue.pop()? else { break };
            let (has, needs) = (chain.writable_bytes() as usize, HEADER_BYTES + 1);
            if has < needs {
                return Err(ShortBuffer { has, needs }.into());
            }
            match self.next_packet(&chain) {
                Some(header) => {
                    chain.writer().write_all(&header.encode())?;
                    VsockCounters::add(&self.counters.received_packets, 1);
                    VsockCounters::add(&self.counters.received_bytes, header.len.into());
                    let written = (HEADER_BYTES as u32).saturating_add(header.len);
                    queue.complete(chain, written)?;
                }
                None => queue.unpop(chain),
            }
        }
        Ok(())
    }

    /// The header of the next packet; its payload is in `chain`.
    fn next_packet(&mut self, chain: &Chain) -> Option<Header> {
        if let Some(refusal) = self.refusals.pop_front() {
            return Some(self.refusal(refusal));
        }
        loop {
            let token = self.ready.pop_front()?;
            let Some(flow) = self.flows.get_mut(&token) else {
                continue;
            };
            flow.is_queued = false;
            let outgoing = flow.next(chain);
            let header = outgoing.map(|outgoing| {
                let Outgoing {
                    op,
                    flags,
                    payload_bytes,
                } = outgoing;
                let (buf_alloc, fwd_cnt) = flow.connection.tell_credit();
                Header {
                    src_cid: HOST_CID,
                    dst_cid: self.guest_cid.into(),
                    src_port: flow.key.host,
                    dst_port: flow.key.guest,
                    len: payload_bytes,
                    kind: TYPE_STREAM,
                    op: op as u16,
                    flags,
                    buf_alloc,
                    fwd_cnt,
                }
            });
            // At the end of the line again, if there is more.
            self.settle(token);
            if header.is_some() {
                return header;
            }
        }
    }

    fn refusal(&self, refusal: Refusal) -> Header {
        Header {
            src_cid: refusal.dst_cid,
            dst_cid: self.guest_cid.into(),
            src_port: refusal.key.host,
            dst_port: refusal.key.guest,
            kind: refusal.kind,
            op: Op::Reset as u16,
            ..Header::default()
        }
    }
}
