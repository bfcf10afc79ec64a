//! A worker and its peers for fuzz targets. Time stands still unless a script lets it pass.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Result, Unstructured};
use bytes::BytesMut;
use roost_model::{Button, Control, Counters, FailureKind, GuestExit, RateLimit, RateLimits, VmId};
use roost_vmm::ConsoleSize;
use tokio_util::codec::LengthDelimitedCodec;

use super::connection::{Connection, Phase};
use super::event_loop::{EventLoop, Ready};
use super::worker::{Subject, Worker};
use crate::frame::{self, Base64};
use crate::fuzz::{Cut, Frame};
use crate::guest::{End, Guest};
use crate::limits::{MAX_CONNECTIONS, MAX_FRAME_BYTES};
use crate::protocol::{
    ConsoleRequest, Hello, HostMessage, PROTOCOL_VERSION, Request, Response, WorkerMessage,
    WorkerState,
};

const NONCE: &str = "a secret";
/// Most peers at a time, whether the worker has dropped them or not.
const MAX_PEERS: usize = 16;
/// Most steps of a script.
const MAX_STEPS: usize = 128;

/// A worker without a guest that runs, and what its peers do.
#[derive(Debug)]
pub(crate) struct Peers {
    built: bool,
    output: Vec<u8>,
    steps: Vec<Step>,
}

impl<'a> Arbitrary<'a> for Peers {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let (built, output) = (u.ratio(7, 8)?, u.arbitrary()?);
        let mut steps = Vec::new();
        while !u.is_empty() && steps.len() < MAX_STEPS {
            steps.push(u.arbitrary()?);
        }
        Ok(Self {
            built,
            output,
            steps,
        })
    }
}

#[derive(Debug)]
enum Step {
    Connect,
    /// Says hello as a host does.
    Greet(u8),
    Send {
        peer: u8,
        frame: Frame<Said>,
        cut: Cut,
    },
    /// Takes so many bytes of what the worker sent.
    Take {
        peer: u8,
        bytes: u32,
    },
    /// Says no more, but listens.
    Finish(u8),
    Leave(u8),
    Pass {
        ms: u16,
    },
}

impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let peer = u.arbitrary()?;
        Ok(match u.int_in_range(0..=31)? {
            0..=2 => Self::Connect,
            3..=5 => Self::Greet(peer),
            6..=24 => Self::Send {
                peer,
                frame: u.arbitrary()?,
                cut: u.arbitrary()?,
            },
            25..=28 => Self::Take {
                peer,
                bytes: u.arbitrary()?,
            },
            29 => Self::Finish(peer),
            30 => Self::Leave(peer),
            _ => Self::Pass { ms: u.arbitrary()? },
        })
    }
}

/// What a host says.
#[derive(Debug, serde::Serialize)]
#[serde(transparent)]
struct Said(HostMessage);

impl<'a> Arbitrary<'a> for Said {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        if u.ratio(1, 16)? {
            return Ok(Self(HostMessage::Hello(Hello {
                version: u.arbitrary()?,
                nonce: u.arbitrary()?,
            })));
        }
        let request = match u.int_in_range(0..=14)? {
            0 => Request::Resume,
            1 => Request::Pause,
            2 => Request::Stop,
            3 => Request::Counters,
            4 | 5 => Request::SerialRead {
                from: u.arbitrary()?,
                max: u.arbitrary()?,
            },
            6 => Request::SerialWatch {
                past: u.arbitrary()?,
            },
            7 => Request::SerialWrite {
                bytes: Base64(u.arbitrary()?),
            },
            8 | 9 => Request::Control {
                control: control(u)?,
            },
            10 | 11 => Request::Console {
                port: port(u)?,
                ask: console(u)?,
            },
            12 => Request::Devices,
            13 => Request::Ack {
                sequence: u.arbitrary()?,
            },
            _ if u.ratio(1, 4)? => Request::Quit,
            _ => Request::Unknown,
        };
        let id = u.arbitrary()?;
        Ok(Self(HostMessage::Request { id, request }))
    }
}

fn port(u: &mut Unstructured<'_>) -> Result<String> {
    Ok(match u.int_in_range(0..=3)? {
        0 => "0".to_owned(),
        1 => "1".to_owned(),
        2 => "stream".to_owned(),
        _ => u.arbitrary()?,
    })
}

fn console(u: &mut Unstructured<'_>) -> Result<ConsoleRequest> {
    Ok(match u.int_in_range(0..=4)? {
        0 => ConsoleRequest::Read {
            from: u.arbitrary()?,
            max: u.arbitrary()?,
        },
        1 => ConsoleRequest::Watch {
            past: u.arbitrary()?,
        },
        2 => ConsoleRequest::Write {
            bytes: Base64(u.arbitrary()?),
        },
        3 => ConsoleRequest::Resize {
            size: ConsoleSize {
                columns: u.arbitrary()?,
                rows: u.arbitrary()?,
            },
        },
        _ => ConsoleRequest::Unknown,
    })
}

fn control(u: &mut Unstructured<'_>) -> Result<Control> {
    let mut limit = || -> Result<Option<RateLimit>> {
        let limit: Option<(u64, Option<u64>)> = u.arbitrary()?;
        Ok(limit.map(|(per_second, burst)| RateLimit { per_second, burst }))
    };
    let (bytes, operations) = (limit()?, limit()?);
    let limits = RateLimits { bytes, operations };
    Ok(match u.int_in_range(0..=4)? {
        0 => Control::Press {
            button: Button::CtrlAltDelete,
        },
        1 => Control::SerialLimit { limit: bytes },
        2 => Control::DiskLimits {
            disk: "disk"
                .parse()
                .map_err(|_| arbitrary::Error::IncorrectFormat)?,
            limits,
        },
        3 => Control::NetworkLimits {
            index: u.arbitrary()?,
            rx_limits: limits,
            tx_limits: limits,
        },
        _ => Control::Balloon {
            target_mib: u.arbitrary()?,
        },
    })
}

/// A peer's end of a connection.
struct Peer {
    stream: UnixStream,
    /// What did not fit yet.
    unsent: VecDeque<u8>,
    received: BytesMut,
    codec: LengthDelimitedCodec,
}

impl Peer {
    fn flush(&mut self) {
        let (first, _) = self.unsent.as_slices();
        // What the worker does not take stays; one that is gone takes nothing.
        let sent = self.stream.write(first).unwrap_or(0);
        self.unsent.drain(..sent);
    }

    /// Takes what the worker sent; all of it must be messages.
    fn take(&mut self, most: usize) -> Vec<WorkerMessage> {
        let mut bytes = vec![0; most.min(1 << 20)];
        while let Ok(count @ 1..) = self.stream.read(&mut bytes) {
            self.received.extend_from_slice(&bytes[..count]);
            bytes.truncate(bytes.len() - count);
        }
        let mut messages = Vec::new();
        let (codec, received) = (&mut self.codec, &mut self.received);
        while let Some(message) = frame::decode(codec, received).unwrap() {
            messages.push(message);
        }
        messages
    }
}

impl Peers {
    /// Runs the script; then a host that behaves is served, unless one told the worker to quit.
    ///
    /// # Panics
    /// Something does not hold that must.
    pub(crate) fn run(self) {
        let subject = match self.built {
            true => Subject::Guest(ended(self.output)),
            false => Subject::BuildFailed("as the script has it".to_owned(), FailureKind::Start),
        };
        let vm = VmId::from_uuid(uuid::Uuid::nil());
        let mut worker = Worker::new(vm, 1, NONCE.to_owned(), subject);
        worker.settle();
        let mut stage = Stage {
            event_loop: EventLoop::without_socket(worker),
            peers: Vec::new(),
            now: Instant::now(),
        };
        for step in self.steps {
            if !stage.step(&step) {
                return;
            }
        }
        stage.peers.truncate(MAX_PEERS - 1);
        // Whoever is slow is given up by then.
        for _ in 0..2 {
            stage.now += Duration::from_secs(60);
            if !stage.turn() {
                return;
            }
        }
        stage.connect();
        let Some(peer) = stage.peers.last_mut() else {
            return;
        };
        peer.unsent.extend(hello());
        let request = Request::Counters;
        let request = HostMessage::Request { id: 7, request };
        peer.unsent.extend(Frame::Message(Said(request)).bytes());
        for _ in 0..4 {
            if !stage.turn() {
                return;
            }
        }
        let messages = stage.peers.last_mut().map(|peer| peer.take(usize::MAX));
        let messages = messages.unwrap_or_default();
        let is_welcome = |message: &WorkerMessage| match message {
            WorkerMessage::Welcome(welcome) => {
                self.built != matches!(welcome.state, WorkerState::BuildFailed { .. })
            }
            _ => false,
        };
        assert!(messages.first().is_some_and(is_welcome), "{messages:?}");
        let is_answer = |message: &WorkerMessage| match message {
            WorkerMessage::Response { id: 7, response } => match response {
                Response::Counters { .. } => self.built,
                Response::Failed { .. } => !self.built,
                _ => false,
            },
            _ => false,
        };
        assert!(messages.iter().any(is_answer), "{messages:?}");
    }
}

/// A guest that printed this, and ended.
fn ended(output: Vec<u8>) -> Guest {
    let end = End {
        exit: GuestExit::Reset,
        counters: Counters::default(),
        at_ms: 1,
    };
    Guest::ended(end, 1000, output)
}

fn hello() -> Vec<u8> {
    let hello = Hello {
        version: PROTOCOL_VERSION,
        nonce: NONCE.to_owned(),
    };
    Frame::Message(Said(HostMessage::Hello(hello))).bytes()
}

struct Stage {
    event_loop: EventLoop,
    peers: Vec<Peer>,
    now: Instant,
}

impl Stage {
    /// False: the worker has ended.
    fn step(&mut self, step: &Step) -> bool {
        match step {
            Step::Connect => self.connect(),
            Step::Greet(peer) => {
                if let Some(peer) = self.peer(*peer) {
                    peer.unsent.extend(hello());
                }
            }
            Step::Send { peer, frame, cut } => {
                let bytes = frame.bytes();
                let (first, next) = cut.apply(&bytes);
                for part in [first, next] {
                    if let Some(peer) = self.peer(*peer) {
                        peer.unsent.extend(part);
                    }
                    if !self.turn() {
                        return false;
                    }
                }
            }
            Step::Take { peer, bytes } => {
                if let Some(peer) = self.peer(*peer) {
                    peer.take(*bytes as usize);
                }
            }
            Step::Finish(peer) => {
                if let Some(peer) = self.peer(*peer) {
                    // One that the worker has closed is closed already.
                    let _ = peer.stream.shutdown(Shutdown::Write);
                }
            }
            Step::Leave(peer) if !self.peers.is_empty() => {
                let at = usize::from(*peer) % self.peers.len();
                self.peers.remove(at);
            }
            Step::Leave(_) => {}
            Step::Pass { ms } => self.now += Duration::from_millis((*ms).into()),
        }
        self.turn()
    }

    fn peer(&mut self, number: u8) -> Option<&mut Peer> {
        let count = self.peers.len();
        self.peers.get_mut(usize::from(number) % count.max(1))
    }

    fn connect(&mut self) {
        if self.event_loop.connections.len() >= MAX_CONNECTIONS || self.peers.len() >= MAX_PEERS {
            return;
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let connection = Connection::accept(theirs, self.now).unwrap().unwrap();
        self.event_loop.connections.push(connection);
        self.peers.push(Peer {
            stream: ours,
            unsent: VecDeque::new(),
            received: BytesMut::new(),
            codec: frame::codec(MAX_FRAME_BYTES),
        });
    }

    /// One turn of the worker, with everything ready. False: it has ended.
    fn turn(&mut self) -> bool {
        self.peers.iter_mut().for_each(Peer::flush);
        if self.event_loop.advance(self.now, None) {
            return false;
        }
        let ready = Ready::connections(self.event_loop.connections.len());
        self.event_loop.handle(&ready, self.now);
        let connections = &self.event_loop.connections;
        assert!(connections.len() <= MAX_CONNECTIONS);
        let serving = connections.iter();
        let serving = serving.filter(|connection| connection.phase() == Phase::Serving);
        assert!(serving.count() <= 1, "one host at a time");
        for connection in connections {
            connection.assert_bounded();
        }
        true
    }
}

impl EventLoop {
    /// A worker that nobody can connect to but by a script.
    fn without_socket(worker: Worker) -> Self {
        let nowhere = || -> io::Result<UnixListener> {
            let (listener, _) = UnixStream::pair()?;
            Ok(std::os::fd::OwnedFd::from(listener).into())
        };
        Self::new(nowhere().unwrap(), worker).unwrap()
    }
}
