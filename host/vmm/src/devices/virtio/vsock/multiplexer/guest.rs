//! Packets from the guest.

use super::flow::{Flow, Key};
use super::{MAX_REFUSALS, Multiplexer, Refusal};
use crate::devices::virtio::vsock::connection::{Connection, Received};
use crate::devices::virtio::vsock::counters::VsockCounters;
use crate::devices::virtio::vsock::handshake;
use crate::devices::virtio::vsock::packet::{HOST_CID, Header, Op, TYPE_STREAM};
use crate::devices::virtio::vsock::stream::Scratch;
use crate::devices::virtio::{Chain, Reader};

impl Multiplexer {
    /// A packet of the guest; afterwards `chain` is of no more use.
    pub(in super::super) fn transmit(&mut self, chain: &Chain) {
        let mut reader = chain.reader();
        let header = Header::read(&mut reader);
        // What is no packet, or somebody else's, can't be answered.
        let Some(header) = header.ok().filter(|header| self.is_of_guest(header)) else {
            return VsockCounters::add(&self.counters.dropped, 1);
        };
        VsockCounters::add(&self.counters.transmitted_packets, 1);
        // There is nobody but the host, and nothing but streams.
        if header.dst_cid != HOST_CID || header.kind != TYPE_STREAM {
            return self.refuse_illegal(&header);
        }
        let is_whole = header.len as usize <= reader.remaining();
        let key = Key {
            host: header.dst_port,
            guest: header.src_port,
        };
        match self.keys.get(&key).copied() {
            Some(token) => {
                if let Some(flow) = self.flows.get_mut(&token) {
                    let is_legal = match is_whole {
                        true => flow.take(&header, &mut reader, &mut self.scratch, &self.counters),
                        false => {
                            flow.connection.reset();
                            false
                        }
                    };
                    VsockCounters::add(&self.counters.violations, (!is_legal).into());
                }
                self.settle(token);
            }
            None if !is_whole => self.refuse_illegal(&header),
            None if header.op == Op::Request as u16 => self.connect_to_host(key, &header),
            None => self.refuse(&header),
        }
    }

    fn is_of_guest(&self, header: &Header) -> bool {
        header.src_cid == u64::from(self.guest_cid)
    }

    fn refuse_illegal(&mut self, header: &Header) {
        VsockCounters::add(&self.counters.violations, 1);
        self.refuse(header);
    }

    /// Answers a packet that belongs to no connection.
    fn refuse(&mut self, header: &Header) {
        // Two ends that refuse each other's refusals would never stop.
        if header.op == Op::Reset as u16 {
            return;
        }
        if self.refusals.len() >= MAX_REFUSALS {
            return VsockCounters::add(&self.counters.unanswered, 1);
        }
        self.refusals.push_back(Refusal {
            dst_cid: header.dst_cid,
            key: Key {
                host: header.dst_port,
                guest: header.src_port,
            },
            kind: header.kind,
        });
    }

    fn connect_to_host(&mut self, key: Key, header: &Header) {
        if self.try_to_connect_to_host(key, header).is_none() {
            VsockCounters::add(&self.counters.rejected, 1);
            self.refuse(header);
        }
    }

    fn try_to_connect_to_host(&mut self, key: Key, header: &Header) -> Option<()> {
        if self.is_full() {
            return None;
        }
        let room = self.limits.buffer_bytes;
        let connection = Connection::requested_by_guest(room, header).ok()?;
        let socket = self.dial.connect(key.host).ok()?;
        let token = self.new_token();
        self.watch(&socket, token).ok()?;
        self.insert(token, Flow::new(key, connection, socket, false));
        Some(())
    }
}

impl Flow {
    /// Does what a packet of the guest says; false: it is illegal. `reader` has its payload, whole.
    fn take(
        &mut self,
        header: &Header,
        reader: &mut Reader<'_>,
        scratch: &mut Scratch,
        counters: &VsockCounters,
    ) -> bool {
        let received = self.connection.receive(header);
        let Some(stream) = &mut self.stream else {
            return received.is_ok();
        };
        match received {
            Ok(Received::Payload(bytes)) => {
                VsockCounters::add(&counters.transmitted_bytes, bytes.into());
                match stream.deliver(reader, bytes as usize, scratch) {
                    Ok(taken) => self.connection.passed_on(taken as u32),
                    Err(_) => self.host_takes_no_more(),
                }
            }
            Ok(Received::Connected) => {
                stream.set_has_input();
                let answer = handshake::answer(self.key.host);
                if stream.send_whole(answer.as_bytes()).is_err() {
                    self.connection.reset();
                }
            }
            Ok(Received::Noted | Received::Ignored) => {}
            Err(_) => return false,
        }
        true
    }
}
