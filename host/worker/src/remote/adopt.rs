//! Taking over a worker that an earlier host process started.

use std::io;
use std::sync::Arc;

use rustix::net::sockopt::socket_peercred;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::greeting::{Connection, GreetingError, greet};
use super::handle::WorkerHandle;
use super::link::Link;
use crate::backend::{Adoption, VmHandle};
use crate::error::AdoptError;
use crate::limits::ADOPT_DEADLINE;
use crate::process::Process;
use crate::protocol::{Welcome, WorkerState};
use crate::run_dir::RunDir;

pub(crate) async fn adopt(adoption: &Adoption) -> Result<Arc<dyn VmHandle>, AdoptError> {
    let late = || {
        let after_ms = ADOPT_DEADLINE.as_millis();
        AdoptError::Protocol(format!("no welcome within {after_ms} ms"))
    };
    timeout(ADOPT_DEADLINE, try_adopt(adoption))
        .await
        .map_err(|_| late())?
}

async fn try_adopt(adoption: &Adoption) -> Result<Arc<dyn VmHandle>, AdoptError> {
    let run_dir = RunDir::open(&adoption.run_dir).map_err(no_worker_or_io)?;
    let mut greeted = connect(&run_dir, &adoption.nonce).await?;
    if greeted.listener != greeted.welcome.pid {
        // The socket was made by the host that started the worker, and the worker listens on it
        // again as soon as it runs. A connection from before that names the old host.
        greeted = connect(&run_dir, &adoption.nonce).await?;
    }
    let Greeted {
        connection,
        welcome,
        listener: pid,
    } = greeted;
    check("vm", &adoption.vm, &welcome.vm)?;
    check("incarnation", &adoption.incarnation, &welcome.incarnation)?;
    check("pid", &pid, &welcome.pid)?;
    let process = Process::of_stranger(pid)?.ok_or(AdoptError::NoWorker)?;
    if let Some(expected) = adoption.pid {
        check("pid", &expected, &pid)?;
    }
    if let Some(expected) = adoption.start_ticks {
        check("start time", &expected, &process.identity().start_ticks)?;
    }
    if matches!(welcome.state, WorkerState::BuildFailed { .. }) {
        // It ends now that it has told.
        process.ended().await;
        run_dir.remove_worker_files();
        return Err(AdoptError::NoWorker);
    }
    let link = Link::new(process, run_dir, adoption.nonce.clone(), &welcome.state);
    Ok(WorkerHandle::start(link, connection))
}

struct Greeted {
    connection: Connection,
    welcome: Welcome,
    /// The process that listens on the socket, as the kernel knows it.
    listener: u32,
}

async fn connect(run_dir: &RunDir, nonce: &str) -> Result<Greeted, AdoptError> {
    let stream = run_dir.connect().await.map_err(no_worker_or_io)?;
    let listener = listener(&stream)?;
    match greet(stream, nonce).await {
        Ok((connection, welcome)) => Ok(Greeted {
            connection,
            welcome,
            listener,
        }),
        Err(GreetingError::Closed) => Err(AdoptError::NoWorker),
        Err(GreetingError::WrongNonce) => Err(AdoptError::WrongIdentity {
            expected: "the recorded nonce".to_owned(),
            found: format!("another nonce in process {listener}"),
        }),
        Err(GreetingError::Protocol(detail)) => Err(AdoptError::Protocol(detail)),
    }
}

/// The process that listens on the socket at the other end.
pub(crate) fn listener(stream: &UnixStream) -> io::Result<u32> {
    let peer = socket_peercred(stream)?;
    Ok(peer.pid.as_raw_nonzero().get().unsigned_abs())
}

fn check<T: PartialEq + std::fmt::Display>(
    what: &str,
    expected: &T,
    found: &T,
) -> Result<(), AdoptError> {
    if expected == found {
        return Ok(());
    }
    Err(AdoptError::WrongIdentity {
        expected: format!("{what} {expected}"),
        found: format!("{what} {found}"),
    })
}

fn no_worker_or_io(error: io::Error) -> AdoptError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AdoptError::NoWorker,
        _ => AdoptError::Io(error),
    }
}
