//! What a worker knows and how it answers, apart from sockets.

use roost_model::{FailureKind, VmId};
use roost_vmm::Vm;

use crate::backend::GuestState;
use crate::frame::Base64;
use crate::guest::{ControlFailed, End, Ended, Guest};
use crate::protocol::{
    Failed, Hello, OLDEST_VERSION, PROTOCOL_VERSION, Refusal, Request, Response, Welcome,
    WorkerEvent, WorkerState,
};

/// What the worker is around.
pub(crate) enum Subject {
    Guest(Guest),
    /// There is no guest, and this is why.
    BuildFailed(String, FailureKind),
}

pub(crate) struct Worker {
    vm: VmId,
    incarnation: u64,
    nonce: String,
    subject: Subject,
    /// Told to every new connection until they are acknowledged. There is one at most.
    events: Vec<(u64, WorkerEvent)>,
    /// A VM whose guest has ended, until there is time to tear it down.
    retired: Option<Vm>,
}

/// What a request leads to.
pub(crate) enum Outcome {
    Respond(Response),
    /// Respond, and tell when there is more output.
    Watch(Response),
    /// Respond, and tell when there is more output on this port of the console.
    WatchConsole(usize, Response),
    /// Respond, then end the process.
    Quit,
}

impl Worker {
    pub(crate) const fn new(vm: VmId, incarnation: u64, nonce: String, subject: Subject) -> Self {
        Self {
            vm,
            incarnation,
            nonce,
            subject,
            events: Vec::new(),
            retired: None,
        }
    }

    /// Whether whoever says `hello` may control the guest.
    pub(crate) fn authenticate(&self, hello: &Hello) -> Result<Welcome, Refusal> {
        if hello.version < OLDEST_VERSION {
            return Err(Refusal::Version);
        }
        if !same(hello.nonce.as_bytes(), self.nonce.as_bytes()) {
            return Err(Refusal::WrongNonce);
        }
        Ok(Welcome {
            version: PROTOCOL_VERSION,
            vm: self.vm,
            incarnation: self.incarnation,
            pid: std::process::id(),
            state: self.state(),
        })
    }

    fn state(&self) -> WorkerState {
        let guest = match &self.subject {
            Subject::Guest(guest) => guest,
            Subject::BuildFailed(error, kind) => {
                return WorkerState::BuildFailed {
                    error: error.clone(),
                    kind: Some(*kind),
                };
            }
        };
        match (guest.state(), guest.end()) {
            (_, Some(End { exit, counters, .. })) => WorkerState::Exited {
                exit: exit.clone(),
                counters: *counters,
            },
            (GuestState::Running, None) => WorkerState::Running,
            (GuestState::Paused, None) => WorkerState::Paused,
            (_, None) => WorkerState::Built,
        }
    }

    pub(crate) const fn build_failed(&self) -> bool {
        matches!(self.subject, Subject::BuildFailed(..))
    }

    pub(crate) const fn guest(&self) -> Option<&Guest> {
        match &self.subject {
            Subject::Guest(guest) => Some(guest),
            Subject::BuildFailed(..) => None,
        }
    }

    pub(crate) fn events(&self) -> &[(u64, WorkerEvent)] {
        &self.events
    }

    /// Looks whether the guest has ended; if it just has, makes the event that says so.
    pub(crate) fn settle(&mut self) {
        let Subject::Guest(guest) = &mut self.subject else {
            return;
        };
        let Some(vm) = guest.settle() else { return };
        self.retired = Some(vm);
        if let Some(End {
            exit,
            counters,
            at_ms,
        }) = guest.end().cloned()
        {
            // The first and only event of an incarnation.
            self.events.push((
                1,
                WorkerEvent::GuestExited {
                    exit,
                    counters,
                    at_ms,
                },
            ));
        }
    }

    /// Tears down a VM whose guest has ended. It takes the kernel some 20 ms.
    pub(crate) fn bury(&mut self) {
        self.retired = None;
    }

    pub(crate) fn serve(&mut self, request: Request) -> Outcome {
        let Subject::Guest(guest) = &mut self.subject else {
            return match request {
                Request::Quit => Outcome::Quit,
                _ => Outcome::Respond(Response::Failed {
                    error: Failed::GuestEnded,
                }),
            };
        };
        Outcome::Respond(match request {
            Request::Resume => done(&guest.resume()),
            Request::Pause => done(&guest.pause()),
            Request::Stop => {
                guest.stop();
                self.settle();
                self.end().unwrap_or(Response::Failed {
                    error: Failed::Vm {
                        detail: "the guest did not stop".to_owned(),
                    },
                })
            }
            Request::Counters => Response::Counters {
                counters: guest.counters(),
            },
            Request::SerialRead { from, max } => {
                let chunk = guest.serial_read(from, usize::try_from(max).unwrap_or(usize::MAX));
                Response::Serial {
                    offset: chunk.offset,
                    bytes: Base64(chunk.bytes),
                }
            }
            Request::SerialWatch { past } => {
                let end = guest.serial_end();
                let response = Response::SerialEnd { end };
                if end <= past && guest.end().is_none() {
                    return Outcome::Watch(response);
                }
                response
            }
            Request::SerialWrite { bytes } => match guest.serial_write(&bytes.0) {
                Ok(count) => Response::Written {
                    count: count as u64,
                },
                Err(Ended) => Response::Failed {
                    error: Failed::GuestEnded,
                },
            },
            Request::Console { port, ask } => return super::console::serve(guest, &port, ask),
            Request::Control { control } => match guest.control(&control) {
                Ok(()) => Response::Done,
                Err(ControlFailed::Ended) => Response::Failed {
                    error: Failed::GuestEnded,
                },
                Err(ControlFailed::Vm(detail)) => Response::Failed {
                    error: Failed::Vm { detail },
                },
            },
            Request::Devices => Response::Devices {
                report: guest.devices(),
            },
            Request::Ack { sequence } => {
                self.events.retain(|(number, _)| *number != sequence);
                Response::Done
            }
            Request::Quit => return Outcome::Quit,
            Request::Unknown => Response::Failed {
                error: Failed::Unsupported,
            },
        })
    }

    fn end(&self) -> Option<Response> {
        let End { exit, counters, .. } = self.guest()?.end()?.clone();
        Some(Response::Stopped { exit, counters })
    }
}

fn done(result: &Result<(), Ended>) -> Response {
    match result {
        Ok(()) => Response::Done,
        Err(Ended) => Response::Failed {
            error: Failed::GuestEnded,
        },
    }
}

/// Whether two secrets are equal, in a time that depends on their lengths only.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .fold(0, |difference, (l, r)| difference | (l ^ r))
            == 0
}
