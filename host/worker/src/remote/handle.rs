//! The handle of a guest in a worker process.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use roost_model::{Control, Counters, DeviceReport, GuestExit};
use roost_vmm::{ConsoleSize, SerialChunk};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use super::conversation::Conversation;
use super::greeting::Connection;
use super::link::{Call, Link};
use crate::backend::{GuestState, HandleEvent, VmHandle};
use crate::error::ControlError;
use crate::frame::Base64;
use crate::limits::{
    MAX_EVENTS, MAX_REQUESTS, MAX_SERIAL_BYTES, QUIT_DEADLINE, REQUEST_DEADLINE, STOP_DEADLINE,
};
use crate::process::WorkerIdentity;
use crate::protocol::{ConsoleRequest, Failed, Request, Response};

pub(crate) struct WorkerHandle {
    link: Arc<Link>,
    calls: mpsc::Sender<Call>,
    events: Mutex<mpsc::Receiver<HandleEvent>>,
}

impl WorkerHandle {
    /// A handle that speaks over `connection`, which the worker has welcomed.
    pub(crate) fn start(link: Link, connection: Connection) -> Arc<dyn VmHandle> {
        let link = Arc::new(link);
        let (calls, requests) = mpsc::channel(MAX_REQUESTS);
        // Each number comes once, and then the end of the process.
        let capacity = usize::try_from(MAX_EVENTS)
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        let (sender, events) = mpsc::channel(capacity);
        tokio::spawn(Conversation::new(Arc::clone(&link), requests, sender).run(connection));
        Arc::new(Self {
            link,
            calls,
            events: Mutex::new(events),
        })
    }

    /// Asks the worker and waits for its answer.
    async fn ask(&self, request: Request, deadline: Duration) -> Result<Response, ControlError> {
        let name = request.name();
        let exchange = async {
            let (reply, answer) = oneshot::channel();
            self.calls
                .send(Call { request, reply })
                .await
                .map_err(|_| self.why_not())?;
            answer.await.map_err(|_| self.why_not())?
        };
        match timeout(deadline, exchange).await {
            Ok(Ok(Response::Failed {
                error: Failed::GuestEnded,
            })) => Err(ControlError::GuestEnded),
            Ok(Ok(Response::Failed {
                error: Failed::Vm { detail },
            })) => Err(ControlError::Vm(detail)),
            Ok(Ok(Response::Failed {
                error: Failed::Unsupported,
            })) => Err(ControlError::Unsupported { request: name }),
            Ok(result) => result,
            Err(_) => Err(ControlError::Timeout {
                request: name,
                after_ms: deadline.as_millis(),
            }),
        }
    }

    /// Asks about a port of the console.
    async fn ask_console(&self, port: &str, ask: ConsoleRequest) -> Result<Response, ControlError> {
        let port = port.to_owned();
        let request = Request::Console {
            port: port.clone(),
            ask,
        };
        match self.ask(request, REQUEST_DEADLINE).await? {
            Response::Failed {
                error: Failed::NoPort { ports },
            } => Err(ControlError::NoPort { port, ports }),
            Response::Failed {
                error: Failed::NotATerminal,
            } => Err(ControlError::NotATerminal(port)),
            response => Ok(response),
        }
    }

    fn why_not(&self) -> ControlError {
        if self.link.process.has_ended() {
            ControlError::Gone
        } else {
            ControlError::Disconnected
        }
    }

    async fn ask_done(&self, request: Request) -> Result<(), ControlError> {
        let name = request.name();
        match self.ask(request, REQUEST_DEADLINE).await? {
            Response::Done => Ok(()),
            other => Err(unexpected(name, &other)),
        }
    }
}

fn unexpected(request: &str, response: &Response) -> ControlError {
    let name = match response {
        Response::Done => "done",
        Response::Stopped { .. } => "stopped",
        Response::Counters { .. } => "counters",
        Response::Serial { .. } => "serial",
        Response::SerialEnd { .. } => "serial-end",
        Response::Written { .. } => "written",
        Response::Devices { .. } => "devices",
        Response::Failed { .. } => "failed",
    };
    ControlError::Protocol(format!("{request} was answered with {name}"))
}

#[async_trait]
impl VmHandle for WorkerHandle {
    fn identity(&self) -> Option<WorkerIdentity> {
        Some(self.link.process.identity())
    }

    fn state(&self) -> GuestState {
        self.link.state()
    }

    async fn resume(&self) -> Result<(), ControlError> {
        self.ask_done(Request::Resume).await?;
        self.link.note_guest(GuestState::Running);
        Ok(())
    }

    async fn pause(&self) -> Result<(), ControlError> {
        self.ask_done(Request::Pause).await?;
        self.link.note_guest(GuestState::Paused);
        Ok(())
    }

    async fn stop(&self) -> Result<(GuestExit, Counters), ControlError> {
        if let Some(known) = self.link.exit() {
            return Ok(known);
        }
        match self.ask(Request::Stop, STOP_DEADLINE).await? {
            Response::Stopped { exit, counters } => {
                self.link.note_exit(exit.clone(), counters);
                Ok((exit, counters))
            }
            other => Err(unexpected("stop", &other)),
        }
    }

    async fn quit(&self) -> Result<(), ControlError> {
        let process = &self.link.process;
        let graceful = async {
            if !process.has_ended() && self.ask_done(Request::Quit).await.is_ok() {
                process.ended().await;
            }
        };
        let _ = timeout(QUIT_DEADLINE, graceful).await;
        if !process.has_ended() {
            process.kill().await.map_err(|_| ControlError::Timeout {
                request: Request::Quit.name(),
                after_ms: crate::limits::KILL_DEADLINE.as_millis(),
            })?;
        }
        self.link.run_dir.remove_worker_files();
        Ok(())
    }

    async fn counters(&self) -> Result<Counters, ControlError> {
        match self.ask(Request::Counters, REQUEST_DEADLINE).await? {
            Response::Counters { counters } => Ok(counters),
            other => Err(unexpected("counters", &other)),
        }
    }

    async fn serial_read(&self, from: u64, max: usize) -> Result<SerialChunk, ControlError> {
        let max = max.min(MAX_SERIAL_BYTES) as u64;
        match self
            .ask(Request::SerialRead { from, max }, REQUEST_DEADLINE)
            .await?
        {
            Response::Serial {
                offset,
                bytes: Base64(bytes),
            } => Ok(SerialChunk { offset, bytes }),
            other => Err(unexpected("serial-read", &other)),
        }
    }

    async fn serial_wait(&self, past: u64) -> Result<u64, ControlError> {
        let mut news = self.link.news();
        loop {
            news.mark_unchanged();
            if self.link.serial_end() > past {
                return Ok(self.link.serial_end());
            }
            let end = match self
                .ask(Request::SerialWatch { past }, REQUEST_DEADLINE)
                .await?
            {
                Response::SerialEnd { end } => end,
                other => return Err(unexpected("serial-watch", &other)),
            };
            if end > past {
                self.link.note_serial_end(end);
                return Ok(end);
            }
            if self.link.state() == GuestState::Exited {
                return Ok(end);
            }
            if !self.link.is_connected() {
                return Err(self.why_not());
            }
            // The sender is in the link, which lives as long as this handle.
            let _ = news.changed().await;
        }
    }

    async fn serial_write(&self, bytes: &[u8]) -> Result<usize, ControlError> {
        // What does not fit a frame is not taken: the caller sees it in the result.
        let bytes = bytes.get(..MAX_SERIAL_BYTES).unwrap_or(bytes);
        let limit = bytes.len();
        let request = Request::SerialWrite {
            bytes: Base64(bytes.to_vec()),
        };
        match self.ask(request, REQUEST_DEADLINE).await? {
            Response::Written { count } => Ok(usize::try_from(count).unwrap_or(limit).min(limit)),
            other => Err(unexpected("serial-write", &other)),
        }
    }

    async fn console_read(
        &self,
        port: &str,
        from: u64,
        max: usize,
    ) -> Result<SerialChunk, ControlError> {
        let max = max.min(MAX_SERIAL_BYTES) as u64;
        match self
            .ask_console(port, ConsoleRequest::Read { from, max })
            .await?
        {
            Response::Serial {
                offset,
                bytes: Base64(bytes),
            } => Ok(SerialChunk { offset, bytes }),
            other => Err(unexpected("console", &other)),
        }
    }

    async fn console_wait(&self, port: &str, past: u64) -> Result<u64, ControlError> {
        let mut news = self.link.news();
        loop {
            news.mark_unchanged();
            let ended = self.link.state() == GuestState::Exited;
            let watch = ConsoleRequest::Watch { past };
            let end = match self.ask_console(port, watch).await? {
                Response::SerialEnd { end } => end,
                other => return Err(unexpected("console", &other)),
            };
            // What a guest had said when it ended is told after that.
            if end > past || ended {
                return Ok(end);
            }
            if !self.link.is_connected() {
                return Err(self.why_not());
            }
            // The sender is in the link, which lives as long as this handle.
            let _ = news.changed().await;
        }
    }

    async fn console_write(&self, port: &str, bytes: &[u8]) -> Result<usize, ControlError> {
        // As on the serial port.
        let bytes = bytes.get(..MAX_SERIAL_BYTES).unwrap_or(bytes);
        let limit = bytes.len();
        let write = ConsoleRequest::Write {
            bytes: Base64(bytes.to_vec()),
        };
        match self.ask_console(port, write).await? {
            Response::Written { count } => Ok(usize::try_from(count).unwrap_or(limit).min(limit)),
            other => Err(unexpected("console", &other)),
        }
    }

    async fn console_resize(&self, port: &str, size: ConsoleSize) -> Result<(), ControlError> {
        match self
            .ask_console(port, ConsoleRequest::Resize { size })
            .await?
        {
            Response::Done => Ok(()),
            other => Err(unexpected("console", &other)),
        }
    }

    async fn control(&self, control: Control) -> Result<(), ControlError> {
        self.ask_done(Request::Control { control }).await
    }

    async fn devices(&self) -> Result<DeviceReport, ControlError> {
        match self.ask(Request::Devices, REQUEST_DEADLINE).await? {
            Response::Devices { report } => Ok(report),
            other => Err(unexpected("devices", &other)),
        }
    }

    async fn next_event(&self) -> HandleEvent {
        match self.events.lock().await.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    async fn acknowledge(&self, sequence: u64) -> Result<(), ControlError> {
        self.ask_done(Request::Ack { sequence }).await
    }
}
