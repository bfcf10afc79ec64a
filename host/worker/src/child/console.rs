//! What a worker answers about the ports of its guest's console.

use super::worker::Outcome;
use crate::frame::Base64;
use crate::guest::{Ended, Guest, NoPort, NotResized};
use crate::protocol::{ConsoleRequest, Failed, Response};

pub(super) fn serve(guest: &Guest, port: &str, ask: ConsoleRequest) -> Outcome {
    let failed = |error| Outcome::Respond(Response::Failed { error });
    let port = match guest.console(port) {
        Ok(port) => port,
        Err(NoPort { ports }) => return failed(Failed::NoPort { ports }),
    };
    Outcome::Respond(match ask {
        ConsoleRequest::Read { from, max } => {
            let max = usize::try_from(max).unwrap_or(usize::MAX);
            let chunk = guest.console_read(port, from, max);
            Response::Serial {
                offset: chunk.offset,
                bytes: Base64(chunk.bytes),
            }
        }
        ConsoleRequest::Watch { past } => {
            let end = guest.console_end(port);
            let response = Response::SerialEnd { end };
            if end <= past && guest.end().is_none() {
                return Outcome::WatchConsole(port, response);
            }
            response
        }
        ConsoleRequest::Write { bytes } => match guest.console_write(port, &bytes.0) {
            Ok(count) => Response::Written {
                count: count as u64,
            },
            Err(Ended) => return failed(Failed::GuestEnded),
        },
        ConsoleRequest::Resize { size } => match guest.console_resize(port, size) {
            Ok(()) => Response::Done,
            Err(NotResized::Ended) => return failed(Failed::GuestEnded),
            Err(NotResized::NotATerminal) => return failed(Failed::NotATerminal),
        },
        ConsoleRequest::Unknown => return failed(Failed::Unsupported),
    })
}
