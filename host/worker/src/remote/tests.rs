//! Handles of workers that misbehave, played by the tests over a process that does nothing.

use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use roost_model::{Counters, GuestExit, VmId};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_util::codec::Framed;

use super::greeting::{Connection, greet};
use super::handle::WorkerHandle;
use super::link::Link;
use crate::backend::{GuestState, HandleEvent, VmHandle};
use crate::error::ControlError;
use crate::frame;
use crate::limits::{MAX_EVENTS, MAX_FRAME_BYTES, REQUEST_DEADLINE};
use crate::process::Process;
use crate::protocol::{
    Failed, HostMessage, PROTOCOL_VERSION, Request, Response, Welcome, WorkerEvent, WorkerMessage,
    WorkerState,
};
use crate::run_dir::RunDir;

struct Played {
    listener: UnixListener,
    handle: Arc<dyn VmHandle>,
    connection: Connection,
    _dir: TempDir,
}

impl Played {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::open_or_make(dir.path()).unwrap();
        let listener = run_dir.listen().unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = UnixListener::from_std(listener).unwrap();
        let stream = run_dir.connect().await.unwrap();
        let (greeted, connection) = tokio::join!(greet(stream, "nonce"), welcome(&listener));
        let (ours, welcome) = greeted.unwrap();
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = Process::of_child(child).unwrap();
        let link = Link::new(process, run_dir, "nonce".to_owned(), &welcome.state);
        Self {
            listener,
            handle: WorkerHandle::start(link, ours),
            connection,
            _dir: dir,
        }
    }

    async fn send(&mut self, message: &WorkerMessage) {
        self.connection
            .send(frame::body(message).unwrap())
            .await
            .unwrap();
    }

    async fn receive(&mut self) -> HostMessage {
        frame::parse(&self.connection.next().await.unwrap().unwrap()).unwrap()
    }

    /// Ends the process, for which nobody answers requests.
    async fn end(&self) {
        let worker = self.handle.identity().unwrap();
        assert!(crate::process::kill(worker).await.unwrap());
    }

    async fn is_killed(&self) {
        let gone = HandleEvent::Gone {
            status: "signal 9".to_owned(),
        };
        loop {
            let event = self.handle.next_event().await;
            if event == gone {
                break;
            }
        }
        assert_eq!(self.handle.counters().await, Err(ControlError::Gone));
    }
}

async fn welcome(listener: &UnixListener) -> Connection {
    let (stream, _) = listener.accept().await.unwrap();
    let mut connection = Framed::new(stream, frame::codec(MAX_FRAME_BYTES));
    connection.next().await.unwrap().unwrap();
    let welcome = WorkerMessage::Welcome(Welcome {
        version: PROTOCOL_VERSION,
        vm: VmId::from_uuid(uuid::Uuid::nil()),
        incarnation: 1,
        pid: 1,
        state: WorkerState::Running,
    });
    connection
        .send(frame::body(&welcome).unwrap())
        .await
        .unwrap();
    connection
}

fn exited(sequence: u64) -> WorkerMessage {
    let counters = Counters::default();
    let event = WorkerEvent::GuestExited {
        exit: GuestExit::Reset,
        counters,
        at_ms: 1,
    };
    WorkerMessage::Event { sequence, event }
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_no_event_is_told_twice() {
    let mut played = Played::new().await;
    assert_eq!(played.handle.state(), GuestState::Running);
    played.send(&exited(1)).await;
    assert!(matches!(
        played.handle.next_event().await,
        HandleEvent::GuestExited { .. }
    ));

    let handle = Arc::clone(&played.handle);
    let asking = tokio::spawn(async move { handle.counters().await });
    played.receive().await;
    played.connection = {
        drop(played.connection);
        welcome(&played.listener).await
    };

    assert_eq!(asking.await.unwrap(), Err(ControlError::Disconnected));
    played.send(&exited(1)).await;
    let handle = Arc::clone(&played.handle);
    let asking = tokio::spawn(async move { handle.counters().await });
    let HostMessage::Request { id, .. } = played.receive().await else {
        panic!("expected a request");
    };
    let response = Response::Counters {
        counters: Counters::default(),
    };
    played.send(&WorkerMessage::Response { id, response }).await;
    assert_eq!(asking.await.unwrap(), Ok(Counters::default()));
    assert!(played.handle.next_event().now_or_never().is_none());
    played.end().await;
}

#[tokio::test]
async fn a_worker_that_sends_nonsense_is_killed() {
    let mut played = Played::new().await;
    played
        .connection
        .send(Bytes::from_static(b"nonsense"))
        .await
        .unwrap();
    played.is_killed().await;
}

#[tokio::test]
async fn a_worker_that_floods_its_host_with_events_is_killed() {
    let mut played = Played::new().await;
    for sequence in 1..=MAX_EVENTS + 1 {
        played.send(&exited(sequence)).await;
    }
    played.is_killed().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_closes_and_takes_no_new_connection_is_killed() {
    let played = Played::new().await;
    let Played {
        listener,
        handle,
        connection,
        _dir,
    } = played;
    drop((listener, connection));
    assert_eq!(
        handle.next_event().await,
        HandleEvent::Gone {
            status: "signal 9".to_owned()
        }
    );
}

#[tokio::test]
async fn a_worker_that_does_not_answer_is_a_timeout_with_a_name() {
    let played = Played::new().await;
    let after_ms = REQUEST_DEADLINE.as_millis();
    // Deadlines pass at once.
    tokio::time::pause();
    let result = played.handle.pause().await;
    tokio::time::resume();
    assert_eq!(
        result,
        Err(ControlError::Timeout {
            request: "pause",
            after_ms
        })
    );
    played.end().await;
    played.is_killed().await;
}

#[tokio::test]
async fn an_answer_to_another_question_is_a_typed_error() {
    let mut played = Played::new().await;
    let handle = Arc::clone(&played.handle);
    let asking = tokio::spawn(async move { handle.counters().await });
    let HostMessage::Request { id, .. } = played.receive().await else {
        panic!("expected a request");
    };
    played
        .send(&WorkerMessage::Response {
            id,
            response: Response::Done,
        })
        .await;
    assert!(matches!(
        asking.await.unwrap(),
        Err(ControlError::Protocol(_))
    ));
    played.end().await;
}

#[tokio::test]
async fn a_worker_of_an_older_host_says_that_it_has_no_console_ports_and_goes_on() {
    let mut played = Played::new().await;
    for failed in [true, false] {
        let handle = Arc::clone(&played.handle);
        let asking = tokio::spawn(async move { handle.console_write("0", b"x").await });
        let HostMessage::Request { id, request } = played.receive().await else {
            panic!("expected a request");
        };
        let Request::Console { port, .. } = request else {
            panic!("expected one for the console");
        };
        assert_eq!(port, "0");
        let response = match failed {
            true => Response::Failed {
                error: Failed::Unsupported,
            },
            false => Response::Written { count: 1 },
        };
        played.send(&WorkerMessage::Response { id, response }).await;
        let expected = match failed {
            true => Err(ControlError::Unsupported { request: "console" }),
            false => Ok(1),
        };
        assert_eq!(asking.await.unwrap(), expected);
    }
    played.end().await;
}
