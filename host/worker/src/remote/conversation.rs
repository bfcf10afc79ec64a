//! The task behind a handle: owns the connection from welcome to end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::greeting::{Connection, GreetingError, greet};
use super::link::{Call, Link};
use crate::backend::HandleEvent;
use crate::error::ControlError;
use crate::frame;
use crate::limits::{
    DRAIN_DEADLINE, MAX_EVENTS, MAX_REQUESTS, RECONNECT_DEADLINE, RECONNECT_PAUSE,
};
use crate::protocol::{HostMessage, Response, WorkerEvent, WorkerMessage};

pub(super) type Waiting = Mutex<HashMap<u64, oneshot::Sender<Result<Response, ControlError>>>>;

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The peer closed it, or the process is gone.
    Closed,
    /// Another host has taken the worker over.
    Replaced,
    /// The worker said something that it should not: it can't be trusted with a guest.
    Violation,
    /// The handle was dropped.
    Released,
}

pub(crate) struct Conversation {
    link: Arc<Link>,
    calls: mpsc::Receiver<Call>,
    events: mpsc::Sender<HandleEvent>,
    waiting: Waiting,
    /// The number of the last event that was handed on.
    told: u64,
    next_id: u64,
}

impl Conversation {
    pub(crate) fn new(
        link: Arc<Link>,
        calls: mpsc::Receiver<Call>,
        events: mpsc::Sender<HandleEvent>,
    ) -> Self {
        Self {
            link,
            calls,
            events,
            waiting: Waiting::default(),
            told: 0,
            next_id: 0,
        }
    }

    /// Runs until the worker is gone or no longer ours, or the handle is dropped.
    pub(crate) async fn run(mut self, mut connection: Connection) {
        loop {
            let end = self.converse(connection).await;
            self.fail_waiting();
            match end {
                End::Released => return,
                End::Replaced => return self.link.note_disconnected(),
                End::Violation => break,
                End::Closed => match self.reconnect().await {
                    Some(again) => connection = again,
                    None => break,
                },
            }
        }
        // A worker that can't be spoken to is not left running beside whatever follows.
        let _ = self.link.process.kill().await;
        self.link.note_disconnected();
        // Whether it went at once or later: that it is gone is said when it is true.
        let status = self.link.process.ended().await;
        self.fail_calls();
        // It fails only if the handle was dropped.
        let _ = self.events.send(HandleEvent::Gone { status }).await;
    }

    /// Speaks until the connection ends.
    async fn converse(&mut self, connection: Connection) -> End {
        let (sink, stream) = connection.split();
        let Self {
            link,
            calls,
            events,
            waiting,
            told,
            next_id,
        } = self;
        let listening = listen(stream, link, events, waiting, told);
        let speaking = speak(sink, calls, waiting, next_id);
        let ended = async {
            link.process.ended().await;
            sleep(DRAIN_DEADLINE).await;
        };
        tokio::select! {
            biased;
            end = listening => end,
            end = speaking => end,
            () = ended => End::Closed,
        }
    }

    /// Another connection to a worker that lives; `None` if it does not, or gives none.
    async fn reconnect(&mut self) -> Option<Connection> {
        let process = &self.link.process;
        // The end of a process closes its sockets a moment before it is noticed.
        if timeout(RECONNECT_PAUSE, process.ended()).await.is_ok() {
            return None;
        }
        let deadline = Instant::now() + RECONNECT_DEADLINE;
        loop {
            let attempt = async {
                let stream = self
                    .link
                    .run_dir
                    .connect()
                    .await
                    .map_err(|_| GreetingError::Closed)?;
                greet(stream, &self.link.nonce).await
            };
            match timeout_at(deadline, attempt).await {
                Ok(Ok((connection, welcome))) => {
                    self.link.note_state(&welcome.state);
                    return Some(connection);
                }
                Ok(Err(GreetingError::Closed)) => {}
                Ok(Err(_)) | Err(_) => return None,
            }
            if timeout(RECONNECT_PAUSE, process.ended()).await.is_ok()
                || Instant::now() >= deadline
                || self.events.is_closed()
            {
                return None;
            }
        }
    }

    /// Tells whoever waits for an answer that there will be none.
    fn fail_waiting(&self) {
        let error = if self.link.process.has_ended() {
            ControlError::Gone
        } else {
            ControlError::Disconnected
        };
        for (_, reply) in lock(&self.waiting).drain() {
            let _ = reply.send(Err(error.clone()));
        }
    }

    fn fail_calls(&mut self) {
        self.calls.close();
        while let Ok(call) = self.calls.try_recv() {
            let _ = call.reply.send(Err(ControlError::Gone));
        }
    }
}

/// Hands on what the worker says.
pub(super) async fn listen(
    mut stream: SplitStream<Connection>,
    link: &Link,
    events: &mpsc::Sender<HandleEvent>,
    waiting: &Waiting,
    told: &mut u64,
) -> End {
    while let Some(body) = stream.next().await {
        let body = match body {
            Ok(body) => body,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return End::Violation,
            Err(_) => return End::Closed,
        };
        match frame::parse(&body) {
            Ok(WorkerMessage::Response { id, response }) => {
                if let Some(reply) = lock(waiting).remove(&id) {
                    let _ = reply.send(Ok(response));
                }
            }
            Ok(WorkerMessage::SerialOutput { end }) => link.note_serial_end(end),
            Ok(WorkerMessage::ConsoleOutput { .. }) => link.note_console_output(),
            Ok(WorkerMessage::Replaced) => return End::Replaced,
            Ok(WorkerMessage::Event { sequence, event }) => {
                if sequence > MAX_EVENTS {
                    return End::Violation;
                }
                if sequence <= *told {
                    continue;
                }
                *told = sequence;
                let WorkerEvent::GuestExited {
                    exit,
                    counters,
                    at_ms,
                } = event
                else {
                    continue;
                };
                link.note_exit(exit.clone(), counters);
                // There is room for every event that a worker may send.
                let event = HandleEvent::GuestExited {
                    sequence,
                    exit,
                    counters,
                    at_ms,
                };
                if events.try_send(event).is_err() {
                    return End::Released;
                }
            }
            // From a newer worker.
            Ok(WorkerMessage::Unknown) => {}
            Ok(WorkerMessage::Welcome(_) | WorkerMessage::Refused { .. }) | Err(_) => {
                return End::Violation;
            }
        }
    }
    End::Closed
}

/// Sends the handle's requests.
async fn speak(
    mut sink: SplitSink<Connection, bytes::Bytes>,
    calls: &mut mpsc::Receiver<Call>,
    waiting: &Waiting,
    next_id: &mut u64,
) -> End {
    while let Some(Call { request, reply }) = calls.recv().await {
        let id = *next_id;
        *next_id += 1;
        let Ok(body) = frame::body(&HostMessage::Request { id, request }) else {
            continue;
        };
        {
            let mut waiting = lock(waiting);
            // Those who gave up waiting make room.
            waiting.retain(|_, reply| !reply.is_closed());
            if waiting.len() >= MAX_REQUESTS {
                let _ = reply.send(Err(ControlError::Busy(MAX_REQUESTS)));
                continue;
            }
            waiting.insert(id, reply);
        }
        if sink.send(body).await.is_err() {
            // What the worker said before is still to be read: listening ends the conversation.
            return std::future::pending().await;
        }
    }
    End::Released
}

fn lock(
    waiting: &Waiting,
) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Result<Response, ControlError>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
