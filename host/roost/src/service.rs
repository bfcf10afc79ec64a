//! The service manager that this host runs under, if it does: what it is told (sd_notify(3)), and
//! the socket that it passes (sd_listen_fds(3)).
//!
//! Everything goes by environment variables of systemd's protocol, so any manager that speaks it
//! will do, and without one nothing here does anything.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use listenfd::ListenFd;
use roost_engine::Engine;
use sd_notify::NotifyState;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

/// The socket that the manager listens on for this host, if it does. To be called once, before
/// this process opens anything or has a second thread.
///
/// # Errors
/// What was passed is not one Unix socket that listens.
pub(crate) fn passed_socket() -> Result<Option<UnixListener>> {
    let mut passed = ListenFd::from_env();
    if passed.len() == 0 {
        return Ok(None);
    }
    let count = passed.len();
    ensure!(
        count == 1,
        "the service manager passed {count} sockets, and one is expected: LISTEN_FDS"
    );
    let socket = passed
        .take_unix_listener(0)
        .context("the socket that the service manager passed")?
        .context("the service manager passed no socket")?;
    ensure!(
        rustix::net::sockopt::socket_acceptconn(&socket)?,
        "the socket that the service manager passed does not listen: ListenStream= is needed"
    );
    Ok(Some(socket))
}

type Notice = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// Who is told how this host is. What is told goes through a thread of its own: a manager may read
/// it late or never, and nothing waits for that.
#[derive(Clone)]
pub(crate) struct Manager {
    /// Each notice with who waits until it is told. At most three are on the way: the two here, and
    /// the watchdog's, of which there is no second before the first is told.
    notices: Option<mpsc::Sender<(Notice, oneshot::Sender<()>)>>,
}

impl Manager {
    /// The one that started this process, or nobody.
    pub(crate) fn new() -> io::Result<Self> {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(Self { notices: None });
        }
        let (notices, untold) = mpsc::channel::<(Notice, oneshot::Sender<()>)>();
        thread::Builder::new()
            .name("notices".to_owned())
            .spawn(move || {
                for (notice, told) in untold {
                    if let Err(error) = notice() {
                        tracing::warn!(%error, "the service manager could not be told");
                    }
                    let _ = told.send(());
                }
            })?;
        Ok(Self {
            notices: Some(notices),
        })
    }

    /// Tells that requests are answered, and then tells its watchdog that `engine` is alive, as
    /// often as it wants to be told, as long as that holds.
    ///
    /// An engine that does not answer is not reported: that is what has the manager kill this
    /// process and start another one, while VMs go on.
    pub(crate) async fn ready(self, status: String, engine: Engine) {
        let state = move || sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
        self.tell(state).await;
        if let Some(limit) = sd_notify::watchdog_enabled() {
            let alive = || self.tell(|| sd_notify::notify(&[NotifyState::Watchdog]));
            feed(limit, || engine.answers(), alive).await;
        }
    }

    /// Tells that this host ends, for which it needs `time` at most.
    pub(crate) async fn stopping(&self, status: &'static str, time: Duration) {
        let extended = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let told = self.tell(move || {
            sd_notify::notify(&[
                NotifyState::Stopping,
                NotifyState::Status(status),
                NotifyState::ExtendTimeoutUsec(extended),
            ])
        });
        if timeout(LAST_WORD, told).await.is_err() {
            tracing::warn!("the service manager does not read what it is told");
        }
    }

    /// Returns when the manager is told.
    async fn tell(&self, notice: impl FnOnce() -> io::Result<()> + Send + 'static) {
        let Some(notices) = &self.notices else { return };
        let (told, wait) = oneshot::channel();
        if notices.send((Box::new(notice), told)).is_ok() {
            let _ = wait.await;
        }
    }
}

async fn feed<A: Future<Output = ()>, T: Future<Output = ()>>(
    limit: Duration,
    answers: impl Fn() -> A,
    tell: impl Fn() -> T,
) {
    // Twice in the time, as sd_watchdog_enabled(3) wants it, and not so often that it is work.
    let pause = (limit / 2).max(MIN_PAUSE);
    loop {
        let begun = Instant::now();
        match timeout(pause, answers()).await {
            Ok(()) => tell().await,
            Err(_) => tracing::error!("the engine does not answer: the watchdog is not told"),
        }
        sleep_until(begun + pause).await;
    }
}

/// Shortest time between two reports to a watchdog.
const MIN_PAUSE: Duration = Duration::from_millis(10);

/// Longest that a host which ends waits until its manager knows.
const LAST_WORD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_told_twice_in_its_time_as_long_as_the_engine_answers() {
        let (told, hangs) = (Cell::new(0), Cell::new(false));
        let feeding = feed(
            Duration::from_secs(60),
            || async {
                if hangs.get() {
                    std::future::pending::<()>().await;
                }
            },
            || async { told.set(told.get() + 1) },
        );
        tokio::pin!(feeding);
        let mut minutes = async |minutes: u64| {
            let time = Duration::from_secs(60 * minutes - 1);
            assert!(timeout(time, &mut feeding).await.is_err());
            told.take()
        };
        assert_eq!(minutes(5).await, 10);
        hangs.set(true);
        assert_eq!(minutes(5).await, 0);
        hangs.set(false);
        assert!(minutes(5).await >= 9);
    }
}
