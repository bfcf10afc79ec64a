//! The Unix socket: who may connect, how many, how slowly.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use axum::http::StatusCode;
use futures_util::FutureExt as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use roost_engine::{Engine, failure_kind};
use roost_model::FailureKind;
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{Duration, sleep, timeout};

use crate::limits::{CONNECTIONS_SHARE, HEAD_TIMEOUT, MAX_CONNECTIONS, REFUSAL_TIMEOUT};
use crate::problem::Problem;
use crate::routes::router;

/// How long requests that are under way may go on when the host stops.
const DRAIN: Duration = Duration::from_secs(5);
/// How long to wait when the host has no descriptors left to accept with.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Binds the socket with mode 0600. A socket that an earlier host left is replaced.
///
/// # Errors
/// Something else is at `path`, somebody listens there, or the file system said no.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} is there and is not a socket", path.display()),
            ));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("another process listens on {}", path.display()),
            ));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves the API until `stop` resolves, then lets requests that are under way finish.
pub async fn serve(listener: UnixListener, engine: Engine, stop: impl Future<Output = ()>) {
    let service = TowerToHyperService::new(router(engine));
    let places = Arc::new(Semaphore::new(max_connections()));
    let mut spare = Spare::default();
    let graceful = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        // A place first: a crowd waits in the kernel's queue.
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        spare.keep();
        let (stream, place) = tokio::select! {
            () = &mut stop => break,
            (accepted, place) = accepted => match accepted {
                Ok((stream, _)) => (stream, place),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    if !spare.refuse(&listener, &error).await {
                        sleep(ACCEPT_RETRY).await;
                    }
                    continue;
                }
            },
        };
        if !is_allowed(&stream) {
            tracing::warn!("a connection of another user was refused");
            continue;
        }
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service.clone());
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended badly");
            }
        });
    }
    if timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish in time");
    }
}

/// How many connections are served at once.
fn max_connections() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let share = usize::try_from(descriptors / CONNECTIONS_SHARE).unwrap_or(usize::MAX);
    share.clamp(1, MAX_CONNECTIONS)
}

/// A descriptor that is kept for the moment when there are none: with it a client is told so,
/// rather than left waiting.
#[derive(Default)]
struct Spare(Option<OwnedFd>);

impl Spare {
    /// Sees to it that there is one, if that can be.
    fn keep(&mut self) {
        if self.0.is_none() {
            self.0 = eventfd(0, EventfdFlags::CLOEXEC).ok();
        }
    }

    /// Answers the next connection, which could not be accepted because of `error`, in the place of
    /// the spare descriptor. False if that can't be done.
    async fn refuse(&mut self, listener: &UnixListener, error: &io::Error) -> bool {
        if failure_kind(error) != FailureKind::NoDescriptors || self.0.take().is_none() {
            return false;
        }
        let Some(Ok((mut stream, _))) = listener.accept().now_or_never() else {
            return false;
        };
        let detail = format!(
            "this host has as many files open as it may (RLIMIT_NOFILE): {error}; try again when \
             connections are closed or VMs are shut down"
        );
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-descriptors", detail);
        let answering = async {
            // Whoever is still sending would not read an answer.
            let _ = stream.read(&mut [0; 1024]).await?;
            stream.write_all(problem.into_http().as_bytes()).await
        };
        // It may go away before; the next one has the same place.
        let _ = timeout(REFUSAL_TIMEOUT, answering).await;
        true
    }
}

/// Whether the peer is the host's own user, or root.
fn is_allowed(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}
