//! A host and a worker that says anything, for fuzz targets.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use arbitrary::{Arbitrary, Result, Unstructured};
use futures_util::StreamExt as _;
use roost_model::{Counters, DeviceReport, GuestExit, VmId};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

use super::conversation::{Waiting, listen};
use super::greeting::greet;
use super::link::Link;
use crate::backend::{GuestState, HandleEvent};
use crate::frame::Base64;
use crate::fuzz::Frame;
use crate::limits::MAX_EVENTS;
use crate::process::Process;
use crate::protocol::{
    Failed, Refusal, Response, Welcome, WorkerEvent, WorkerMessage, WorkerState,
};
use crate::run_dir::RunDir;

/// Requests that wait for an answer: those of the numbers below.
const WAITING: u64 = 8;
/// Most frames of a script.
const MAX_FRAMES: usize = 64;

thread_local! {
    static RUNTIME: RefCell<Runtime> = RefCell::new(
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
    );
}

/// What a worker says from the first byte on.
#[derive(Debug)]
pub(crate) struct Worker {
    greeting: Frame<Said>,
    frames: Vec<Frame<Said>>,
    /// How many bytes of the last frame never come.
    missing: u8,
}

impl<'a> Arbitrary<'a> for Worker {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let greeting = match u.ratio(15, 16)? {
            true => Frame::Message(Said(WorkerMessage::Welcome(welcome(u)?))),
            false => u.arbitrary()?,
        };
        let missing = if u.ratio(1, 8)? { u.arbitrary()? } else { 0 };
        let mut frames = Vec::new();
        while !u.is_empty() && frames.len() < MAX_FRAMES {
            frames.push(u.arbitrary()?);
        }
        Ok(Self {
            greeting,
            frames,
            missing,
        })
    }
}

/// What a worker says.
#[derive(Debug, serde::Serialize)]
#[serde(transparent)]
struct Said(WorkerMessage);

impl<'a> Arbitrary<'a> for Said {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self(match u.int_in_range(0..=31)? {
            0 => WorkerMessage::Welcome(welcome(u)?),
            1 => WorkerMessage::Refused {
                reason: match u.arbitrary()? {
                    true => Refusal::Version,
                    false => Refusal::WrongNonce,
                },
            },
            2..=18 => WorkerMessage::Response {
                id: match u.ratio(1, 8)? {
                    true => u.arbitrary()?,
                    false => u.int_in_range(0..=WAITING)?,
                },
                response: response(u)?,
            },
            19..=27 => WorkerMessage::Event {
                sequence: match u.ratio(1, 8)? {
                    true => u.arbitrary()?,
                    false => u.int_in_range(0..=MAX_EVENTS)?,
                },
                event: match u.ratio(7, 8)? {
                    true => WorkerEvent::GuestExited {
                        exit: exit(u)?,
                        counters: counters(u)?,
                        at_ms: u.arbitrary()?,
                    },
                    false => WorkerEvent::Unknown,
                },
            },
            28 => WorkerMessage::ConsoleOutput {
                port: u.arbitrary()?,
            },
            29 => WorkerMessage::SerialOutput {
                end: u.arbitrary()?,
            },
            30 => WorkerMessage::Unknown,
            _ => WorkerMessage::Replaced,
        }))
    }
}

fn exit(u: &mut Unstructured<'_>) -> Result<GuestExit> {
    Ok(match u.int_in_range(0..=4)? {
        0 => GuestExit::Reset,
        1 => GuestExit::Stopped,
        2 => GuestExit::InternalError {
            suberror: u.arbitrary()?,
        },
        3 => GuestExit::FailedEntry {
            reason: u.arbitrary()?,
        },
        _ => GuestExit::Unexpected {
            detail: u.arbitrary()?,
        },
    })
}

fn counters(u: &mut Unstructured<'_>) -> Result<Counters> {
    Ok(Counters {
        vcpu_cpu_ns: u.arbitrary()?,
        running_ns: u.arbitrary()?,
        ..Counters::default()
    })
}

fn welcome(u: &mut Unstructured<'_>) -> Result<Welcome> {
    Ok(Welcome {
        version: match u.ratio(7, 8)? {
            true => 1,
            false => u.arbitrary()?,
        },
        vm: VmId::from_uuid(uuid::Uuid::nil()),
        incarnation: u.arbitrary()?,
        pid: u.arbitrary()?,
        state: match u.int_in_range(0..=4)? {
            0 => WorkerState::Built,
            1 => WorkerState::Running,
            2 => WorkerState::Paused,
            3 => WorkerState::Exited {
                exit: exit(u)?,
                counters: counters(u)?,
            },
            _ => WorkerState::BuildFailed {
                error: u.arbitrary()?,
                kind: u
                    .arbitrary::<bool>()?
                    .then_some(roost_model::FailureKind::NoMemory),
            },
        },
    })
}

fn response(u: &mut Unstructured<'_>) -> Result<Response> {
    Ok(match u.int_in_range(0..=7)? {
        0 => Response::Done,
        1 => Response::Stopped {
            exit: exit(u)?,
            counters: counters(u)?,
        },
        2 => Response::Counters {
            counters: counters(u)?,
        },
        3 => Response::Serial {
            offset: u.arbitrary()?,
            bytes: Base64(u.arbitrary()?),
        },
        4 => Response::SerialEnd {
            end: u.arbitrary()?,
        },
        5 => Response::Written {
            count: u.arbitrary()?,
        },
        6 => Response::Devices {
            report: DeviceReport::default(),
        },
        _ => Response::Failed {
            error: match u.int_in_range(0..=2)? {
                0 => Failed::NotATerminal,
                1 => Failed::NoPort {
                    ports: u.arbitrary()?,
                },
                _ => Failed::Vm {
                    detail: u.arbitrary()?,
                },
            },
        },
    })
}

impl Worker {
    /// Says it all to a host, which hears it to its end.
    ///
    /// # Panics
    /// Something does not hold that must.
    pub(crate) fn run(self) {
        let mut bytes = self.greeting.bytes();
        self.frames
            .iter()
            .for_each(|frame| bytes.extend(frame.bytes()));
        bytes.truncate(bytes.len() - bytes.len().min(self.missing.into()));
        RUNTIME.with_borrow(|runtime| runtime.block_on(hear(bytes)));
    }
}

/// What a host makes of a worker that says these bytes and closes.
async fn hear(bytes: Vec<u8>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    // More than a socket holds comes while it is heard.
    let saying = tokio::task::spawn_blocking(move || {
        // The host may close before it has heard everything.
        let _ = theirs.write_all(&bytes);
        let _ = theirs.shutdown(Shutdown::Write);
        theirs
    });
    let ours = tokio::net::UnixStream::from_std(ours).unwrap();
    if let Ok((connection, welcome)) = greet(ours, "nonce").await {
        assert!(welcome.version >= 1, "an older one is refused");
        listen_to(connection, &welcome).await;
    }
    drop(saying.await);
}

async fn listen_to(connection: super::greeting::Connection, welcome: &Welcome) {
    // Nobody ends it: a conversation would, and this is only its listening half.
    let process = Process::of_stranger(std::process::id()).unwrap().unwrap();
    let run_dir = RunDir::open(std::path::Path::new("/")).unwrap();
    let link = Link::new(process, run_dir, "nonce".to_owned(), &welcome.state);
    let was_exited = link.exit();
    let (events, mut heard) = mpsc::channel(MAX_EVENTS as usize + 1);
    let mut answers = Vec::new();
    let mut waiting = HashMap::new();
    for id in 0..WAITING {
        let (reply, answer) = oneshot::channel();
        waiting.insert(id, reply);
        answers.push(answer);
    }
    let waiting = Waiting::new(waiting);
    let (_, stream) = connection.split::<bytes::Bytes>();
    let mut told = 0;
    listen(stream, &link, &events, &waiting, &mut told).await;

    let mut last = 0;
    while let Ok(event) = heard.try_recv() {
        let HandleEvent::GuestExited { sequence, .. } = event else {
            panic!("{event:?}");
        };
        assert!(
            sequence > last && sequence <= MAX_EVENTS,
            "each once, in order"
        );
        last = sequence;
    }
    assert!(told >= last && told <= MAX_EVENTS);
    let answered = answers
        .iter_mut()
        .filter_map(|answer| answer.try_recv().ok());
    let answered = answered.count() as u64;
    let left = waiting.lock().unwrap().len() as u64;
    assert_eq!(answered + left, WAITING, "each request has one answer");
    if was_exited.is_some() {
        assert_eq!(link.exit(), was_exited, "a guest ends once");
    }
    assert_eq!(link.exit().is_some(), link.state() == GuestState::Exited);
}
