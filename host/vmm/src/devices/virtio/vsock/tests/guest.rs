//! A guest with a small vsock driver, and the programs of the host around it.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_QUEUE_NOTIFY;

pub(super) use super::socket::{Packet, Socket};
use crate::devices::mmio::MmioDevice as _;
use crate::devices::virtio::test_driver::{Buffer, Driver, Request};
use crate::devices::virtio::vsock::config::Limits;
use crate::devices::virtio::vsock::device::{EVENTS, RECEIVE, TRANSMIT};
use crate::devices::virtio::vsock::packet::{Done, HEADER_BYTES, HOST_CID, Header, Op};
use crate::devices::virtio::vsock::{Vsock, VsockConfig, VsockLimits};

pub(super) const GUEST_CID: u32 = 52;
/// Longest that a program of the host waits for what has to be there.
const PATIENCE: Duration = Duration::from_secs(30);

/// The guest, the device and the VM's directory on the host.
pub(super) struct Guest {
    pub(super) driver: Driver,
    pub(super) directory: TempDir,
    /// Received, and not looked at by the test yet.
    pub(super) inbox: VecDeque<Packet>,
    posted: HashMap<u16, Request>,
    /// Buffers that were used and not offered again.
    used_up: u16,
    buffer_bytes: u32,
}

/// The device of a VM whose sockets are in `directory`.
pub(super) fn device(directory: &TempDir, guest_cid: u32, change: impl Fn(&mut Limits)) -> Vsock {
    let path = directory.path();
    let listening = path.join("v");
    let _ = std::fs::remove_file(&listening);
    let config = VsockConfig {
        guest_cid,
        listener: UnixListener::bind(listening).unwrap(),
        directory: File::open(path).unwrap().into(),
        prefix: "v".to_owned(),
        limits: VsockLimits::default(),
    };
    let mut limits = Limits::new(config.limits).unwrap();
    change(&mut limits);
    Vsock::with_limits(config, limits).unwrap()
}

impl Guest {
    /// A guest with 32 buffers for packets with a page of payload, as Linux has.
    pub(super) fn new() -> Self {
        Self::with(32, 4096, |_| {})
    }

    pub(super) fn with(buffers: u16, buffer_bytes: u32, change: impl Fn(&mut Limits)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let driver = Driver::new(device(&directory, GUEST_CID, change));
        let mut guest = Self {
            driver,
            directory,
            inbox: VecDeque::new(),
            posted: HashMap::new(),
            used_up: 0,
            buffer_bytes,
        };
        guest.boot(buffers);
        guest
    }

    /// The driver begins, with so many buffers.
    pub(super) fn boot(&mut self, buffers: u16) {
        let features = self.driver.offered();
        self.driver.negotiate(features);
        self.posted.clear();
        self.used_up = 0;
        self.inbox.clear();
        self.post(buffers);
    }

    /// The VM is saved, and goes on with `device`.
    pub(super) fn migrate(self, device: Vsock) -> Self {
        let driver = self.driver.migrate(device);
        Self { driver, ..self }
    }

    /// Offers more buffers.
    pub(super) fn post(&mut self, buffers: u16) {
        for _ in 0..buffers {
            let buffer = Buffer::Write(HEADER_BYTES as u32 + self.buffer_bytes);
            let request = self.driver.add(RECEIVE, &[buffer]);
            self.posted.insert(request.head, request);
        }
        self.driver.notify(RECEIVE);
        self.driver.run();
    }

    /// Sends a packet as it is.
    pub(super) fn send_raw(&mut self, buffers: &[Buffer<'_>]) {
        self.driver.send(TRANSMIT, buffers);
        self.driver.used(TRANSMIT);
        self.take_in();
    }

    pub(super) fn send(&mut self, header: &Header, payload: &[u8]) {
        let header = Header {
            len: payload.len() as u32,
            ..*header
        };
        let buffers = [Buffer::Read(&header.encode()), Buffer::Read(payload)];
        let count = if payload.is_empty() { 1 } else { 2 };
        self.send_raw(&buffers[..count]);
    }

    pub(super) fn send_op(&mut self, socket: &Socket, op: Op) {
        self.send(&socket.header(op), &[]);
    }

    pub(super) fn shut_down(&mut self, socket: &Socket, receiving: bool, sending: bool) {
        let flags = Done { receiving, sending }.flags();
        let header = Header {
            flags,
            ..socket.header(Op::Shutdown)
        };
        self.send(&header, &[]);
    }

    /// Sends payload, for which there must be credit.
    pub(super) fn write(&mut self, socket: &mut Socket, payload: &[u8]) {
        socket.sent = socket.sent.wrapping_add(payload.len() as u32);
        self.send(&socket.header(Op::Data), payload);
    }

    /// Takes in what came, without offering buffers for more.
    pub(super) fn take_in(&mut self) {
        self.driver.run();
        let used = self.driver.used(RECEIVE);
        for (head, written) in &used {
            let request = self.posted.remove(head).unwrap();
            let mut bytes = self.driver.received(&request);
            bytes.truncate(*written as usize);
            let payload = bytes.split_off(HEADER_BYTES);
            let header = Header::decode(&bytes.try_into().unwrap());
            assert_eq!(header.len as usize, payload.len());
            assert_eq!(header.dst_cid, u64::from(GUEST_CID));
            self.inbox.push_back(Packet { header, payload });
            self.used_up += 1;
        }
    }

    /// Takes in what came, and what comes while buffers are offered again.
    pub(super) fn receive(&mut self) {
        loop {
            self.take_in();
            match std::mem::take(&mut self.used_up) {
                0 => return,
                buffers => self.post(buffers),
            }
        }
    }

    /// The next packet, which must be there.
    pub(super) fn next(&mut self) -> Packet {
        self.receive();
        self.inbox.pop_front().expect("a packet")
    }

    /// The next packet, which must be this one, without payload.
    pub(super) fn expect(&mut self, socket: &Socket, op: Op) -> Packet {
        let packet = self.next();
        assert!(socket.is_of(&packet), "{packet:?} is not of {socket:?}");
        assert_eq!(packet.op(), op);
        assert!(packet.payload.is_empty());
        packet
    }

    /// Nothing came.
    pub(super) fn expect_nothing(&mut self) {
        self.receive();
        assert_eq!(self.inbox, []);
    }

    /// Waits for a packet that depends on a clock or on other threads; others are looked past.
    pub(super) fn wait_for(&mut self, op: Op) -> Packet {
        loop {
            self.receive();
            while let Some(packet) = self.inbox.pop_front() {
                if packet.op() == op {
                    return packet;
                }
            }
            let before = self.driver.counter("received_packets");
            self.driver.run_until("a packet comes", |driver| {
                driver.counter("received_packets") > before
            });
        }
    }

    /// Serves the device while `program` runs in a thread of its own, which nothing that the guest
    /// does needs to wake.
    pub(super) fn while_running<T: Send + 'static>(
        &mut self,
        program: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let (sender, receiver) = mpsc::channel();
        let device = Arc::clone(&self.driver.device);
        thread::spawn(move || {
            sender.send(program()).unwrap();
            // The event loop would not notice by itself.
            let queue = u32::from(TRANSMIT).to_le_bytes();
            device.write(VIRTIO_MMIO_QUEUE_NOTIFY.into(), &queue);
        });
        let mut result = None;
        self.driver.run_until("the program ends", |_| {
            result = receiver.try_recv().ok();
            result.is_some()
        });
        result.unwrap()
    }

    /// Waits until the device ends a connection; returns what came over it.
    pub(super) fn wait_for_end(&mut self, mut stream: UnixStream) -> Vec<u8> {
        self.while_running(move || {
            let mut data = Vec::new();
            // Where the device did not read everything, a reset takes the place of the end.
            let _ = stream.read_to_end(&mut data);
            data
        })
    }

    /// A program of the host that can be reached at `port`.
    pub(super) fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.directory.path().join(format!("v_{port}"))).unwrap()
    }

    /// The guest connects to a program of the host.
    pub(super) fn connect(&mut self, listener: &UnixListener, socket: &mut Socket) -> UnixStream {
        self.send_op(socket, Op::Request);
        let response = self.expect(socket, Op::Response);
        socket.learn(&response);
        patient(listener.accept().unwrap().0)
    }

    /// A program of the host connects to the device.
    pub(super) fn client(&self) -> UnixStream {
        patient(UnixStream::connect(self.directory.path().join("v")).unwrap())
    }

    /// The request of a program of the host, answered.
    pub(super) fn accept(&mut self) -> Socket {
        let request = self.next();
        assert_eq!(request.op(), Op::Request);
        assert_eq!(request.header.src_cid, HOST_CID);
        let mut socket = Socket::new(request.header.src_port, request.header.dst_port);
        socket.learn(&request);
        self.send_op(&socket, Op::Response);
        socket
    }
}

/// It gives up at some time, so that a test fails instead of hanging.
pub(super) fn patient(stream: UnixStream) -> UnixStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads `bytes` bytes.
pub(super) fn read(stream: &mut UnixStream, bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    stream.read_exact(&mut data).unwrap();
    data
}

/// Reads to the end.
pub(super) fn read_all(stream: &mut UnixStream) -> Vec<u8> {
    let mut data = Vec::new();
    stream.read_to_end(&mut data).unwrap();
    data
}

/// Bytes that differ from place to place.
pub(super) fn pattern(seed: u32, bytes: usize) -> Vec<u8> {
    let byte = |n: u32| (n.wrapping_add(seed).wrapping_mul(0x9e37_79b1) >> 24) as u8;
    (0..bytes as u32).map(byte).collect()
}

/// Whether a read would find something to read, or the end.
pub(super) fn is_readable(stream: &UnixStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let flags = rustix::net::RecvFlags::PEEK;
    let found = rustix::net::recv(stream, &mut [0; 1][..], flags).is_ok();
    stream.set_nonblocking(false).unwrap();
    found
}

/// The event queue's number, for tests that look at it.
pub(super) const NEWS: u16 = EVENTS;
