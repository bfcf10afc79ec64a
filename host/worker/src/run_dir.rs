//! A VM's run directory and the control socket in it.
//!
//! Socket addresses hold 107 bytes of path (`sun_path`, unix(7)), and run directories can be
//! deeper than that: the socket is reached through `/proc/self/fd/<directory>/control.sock`.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use roost_model::VmId;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, chmodat, openat, unlinkat};
use tokio::net::UnixStream;

use crate::devices::VSOCK_SOCKET;
use crate::limits::MAX_LOG_BYTES;

const SOCKET: &str = "control.sock";

/// A fresh listening socket for a VM's vsock device, in its run directory, and the directory.
///
/// # Errors
/// The directory or the socket can't be made.
pub fn listen_vsock(run_dir: &Path) -> io::Result<(UnixListener, OwnedFd)> {
    let run_dir = RunDir::open_or_make(run_dir)?;
    let listener = run_dir.listen_at(VSOCK_SOCKET)?;
    Ok((listener, run_dir.dir))
}

/// Whether a worker's control socket is in its VM's run directory.
///
/// # Errors
/// The directory can't be looked at.
pub fn has_control_socket(run_dir: &Path) -> io::Result<bool> {
    run_dir.join(SOCKET).try_exists()
}

/// Whether sockets of a worker are in a VM's run directory.
///
/// # Errors
/// The directory can't be looked at.
pub fn has_sockets(run_dir: &Path) -> io::Result<bool> {
    Ok(has_control_socket(run_dir)? || run_dir.join(VSOCK_SOCKET).try_exists()?)
}

/// Removes the sockets of a worker that is gone. None there: fine.
///
/// # Errors
/// The directory can't be changed.
pub fn remove_sockets(run_dir: &Path) -> io::Result<()> {
    let run_dir = match RunDir::open(run_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    run_dir.remove(SOCKET)?;
    run_dir.remove(VSOCK_SOCKET)
}

/// The VM whose worker writes to `log`: a file in its run directory, below `run_dirs`.
pub(crate) fn vm_of_log(run_dirs: &Path, log: &Path) -> Option<VmId> {
    // How the kernel marks a file that was removed (proc(5)).
    let log = log.to_str()?;
    let log = Path::new(log.strip_suffix(" (deleted)").unwrap_or(log));
    let log = log.strip_prefix(run_dirs).ok()?;
    let vm = log.parent()?.to_str()?.parse().ok()?;
    (log.file_name()? == LOG).then_some(vm)
}

/// What a worker writes to its standard error: nothing, unless it breaks.
const LOG: &str = "worker.log";

#[derive(Debug)]
pub(crate) struct RunDir {
    dir: OwnedFd,
    path: PathBuf,
    /// Whether it did not exist before.
    made: bool,
}

impl RunDir {
    /// Opens the directory; makes it, for this user only, if it does not exist.
    pub(crate) fn open_or_make(path: &Path) -> io::Result<Self> {
        let made = match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::DirBuilder::new()
                    .mode(0o700)
                    .recursive(true)
                    .create(path)?;
                true
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            made,
            ..Self::open(path)?
        })
    }

    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, path, flags, Mode::empty())?;
        Ok(Self {
            dir,
            path: path.to_owned(),
            made: false,
        })
    }

    fn socket_path(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.dir.as_raw_fd()).into()
    }

    /// A fresh listening control socket in the place of whatever there was.
    pub(crate) fn listen(&self) -> io::Result<UnixListener> {
        self.listen_at(SOCKET)
    }

    fn listen_at(&self, name: &str) -> io::Result<UnixListener> {
        self.remove(name)?;
        let listener = UnixListener::bind(self.socket_path(name))?;
        chmodat(&self.dir, name, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
        Ok(listener)
    }

    pub(crate) async fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(self.socket_path(SOCKET)).await
    }

    /// An empty log for a new worker.
    pub(crate) fn create_log(&self) -> io::Result<File> {
        let flags = OFlags::RDWR
            | OFlags::CREATE
            | OFlags::TRUNC
            | OFlags::APPEND
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC;
        Ok(File::from(openat(
            &self.dir,
            LOG,
            flags,
            Mode::RUSR | Mode::WUSR,
        )?))
    }

    /// The end of the log, after a colon; empty if nothing was logged.
    pub(crate) fn log_tail(&self) -> String {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(mut log) = openat(&self.dir, LOG, flags, Mode::empty()).map(File::from) else {
            return String::new();
        };
        let length = log.metadata().map_or(0, |metadata| metadata.len());
        let mut bytes = Vec::new();
        let limit = MAX_LOG_BYTES as u64;
        let start = SeekFrom::Start(length.saturating_sub(limit));
        let read = log
            .seek(start)
            .and_then(|_| log.take(limit).read_to_end(&mut bytes));
        match String::from_utf8_lossy(&bytes).trim() {
            text if read.is_ok() && !text.is_empty() => format!(": {text}"),
            _ => String::new(),
        }
    }

    /// Removes what a launch made, as far as it can be removed.
    pub(crate) fn undo(&self) {
        self.remove_worker_files();
        if self.made {
            let _ = std::fs::remove_dir(&self.path);
        }
    }

    /// Removes the sockets and the log of a worker that ended in order.
    pub(crate) fn remove_worker_files(&self) {
        for name in [SOCKET, VSOCK_SOCKET, LOG] {
            // What can't be removed here goes with the directory.
            let _ = self.remove(name);
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.dir, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
