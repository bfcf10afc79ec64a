//! Starting a worker process.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use roost_model::{Effect, FailureKind, Moment};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::time::timeout;

use super::greeting::{Connection, GreetingError, greet};
use super::handle::WorkerHandle;
use super::link::Link;
use crate::backend::{Launch, VmHandle};
use crate::bootstrap::{self, CONFIG_VERSION, WorkerConfig};
use crate::error::LaunchError;
use crate::limits::{LAUNCH_DEADLINE, RECONNECT_PAUSE};
use crate::probe::Probe;
use crate::process::Process;
use crate::protocol::{Welcome, WorkerState};
use crate::run_dir::RunDir;

/// What the worker is called with.
const SUBCOMMAND: &str = "vm-worker";

/// What is needed to start any worker.
pub(super) struct Starter {
    pub(super) executable: PathBuf,
    pub(super) kvm: Arc<File>,
    pub(super) probe: Arc<dyn Probe>,
}

impl Starter {
    pub(super) async fn launch(self, launch: Launch) -> Result<Arc<dyn VmHandle>, LaunchError> {
        let nonce = launch.nonce.clone();
        let probe = Arc::clone(&self.probe);
        probe.reach(Effect::EvictWorker, Moment::Before);
        evict(&launch.run_dir).await;
        probe.reach(Effect::EvictWorker, Moment::After);
        let spawned = tokio::task::spawn_blocking(move || Spawned::start(&self, launch))
            .await
            .map_err(|_| LaunchError::ShuttingDown)??;
        let unfinished = spawned.watch()?;
        probe.reach(Effect::BuildVm, Moment::Before);
        let result = match timeout(LAUNCH_DEADLINE, unfinished.until_built(&nonce)).await {
            Ok(result) => result,
            Err(_) => Err(LaunchError::Timeout(LAUNCH_DEADLINE.as_millis())),
        };
        probe.reach(Effect::BuildVm, Moment::After);
        match result {
            Ok((connection, state)) => {
                let (process, run_dir) = unfinished.finish().ok_or(LaunchError::ShuttingDown)?;
                Ok(WorkerHandle::start(
                    Link::new(process, run_dir, nonce, &state),
                    connection,
                ))
            }
            Err(error) => {
                unfinished.abandon().await;
                Err(error)
            }
        }
    }
}

/// Kills a worker of an earlier incarnation that still listens in the run directory: one that
/// could not be adopted and whose process id was never written down. Nobody else would find it
/// once its socket is replaced.
async fn evict(run_dir: &Path) {
    let Ok(run_dir) = RunDir::open(run_dir) else {
        return;
    };
    // A socket that can't be connected to at once has no process that could be found by it.
    let Ok(Ok(stream)) = timeout(RECONNECT_PAUSE, run_dir.connect()).await else {
        return;
    };
    let Ok(listener) = super::adopt::listener(&stream) else {
        return;
    };
    if let Ok(Some(process)) = Process::of_stranger(listener)
        // Before a worker listens itself, the socket names the host that made it, and that
        // number may be another process's by now.
        && std::fs::read(format!("/proc/{listener}/comm")).is_ok_and(|name| name == COMM)
    {
        // If it can't be killed, it can't be killed: the new worker does not depend on it.
        let _ = process.kill().await;
    }
}

/// What `/proc/<pid>/comm` says of a worker.
const COMM: &[u8] = b"roost-worker\n";

/// A process that nobody watches yet. Dropping it kills it and undoes what was made.
struct Spawned(Option<(Child, RunDir)>);

impl Spawned {
    fn start(starter: &Starter, launch: Launch) -> Result<Self, LaunchError> {
        let path = launch.run_dir.clone();
        let probe = &starter.probe;
        probe.reach(Effect::MakeRunDirectory, Moment::Before);
        let run_dir = RunDir::open_or_make(&path)
            .map_err(|source| LaunchError::RunDirectory { path, source })?;
        match spawn(starter, launch, &run_dir) {
            Ok((child, socket, message)) => {
                let spawned = Self(Some((child, run_dir)));
                probe
                    .around(Effect::HandOver, || message.send(&socket))
                    .map_err(LaunchError::Handover)?;
                Ok(spawned)
            }
            Err(error) => {
                run_dir.undo();
                Err(error)
            }
        }
    }

    /// Has the process watched by the runtime.
    fn watch(mut self) -> Result<Unfinished, LaunchError> {
        let (child, run_dir) = self.0.take().ok_or(LaunchError::ShuttingDown)?;
        match Process::of_child(child) {
            Ok(process) => Ok(Unfinished(Some((process, run_dir)))),
            Err(source) => {
                run_dir.undo();
                Err(LaunchError::Spawn {
                    executable: SUBCOMMAND.into(),
                    source,
                })
            }
        }
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if let Some((mut child, run_dir)) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
            run_dir.undo();
        }
    }
}

/// The message that makes a process the worker of a VM.
struct Message {
    config: WorkerConfig,
    control: OwnedFd,
    kvm: OwnedFd,
    kernel: File,
    initrd: Option<File>,
    devices: Vec<OwnedFd>,
}

impl Message {
    fn send(&self, socket: &OwnedFd) -> io::Result<()> {
        let mut descriptors: Vec<BorrowedFd<'_>> =
            vec![self.control.as_fd(), self.kvm.as_fd(), self.kernel.as_fd()];
        descriptors.extend(self.initrd.as_ref().map(File::as_fd));
        descriptors.extend(self.devices.iter().map(OwnedFd::as_fd));
        bootstrap::send(socket, &self.config, &descriptors)
    }
}

/// Starts the process; it waits for its message.
fn spawn(
    starter: &Starter,
    launch: Launch,
    run_dir: &RunDir,
) -> Result<(Child, OwnedFd, Message), LaunchError> {
    let Starter {
        executable,
        kvm,
        probe,
    } = starter;
    let failed = |source: io::Error| LaunchError::Spawn {
        executable: executable.clone(),
        source,
    };
    let control = run_dir.listen().map_err(LaunchError::ControlSocket)?;
    let log = run_dir.create_log().map_err(failed)?;
    probe.reach(Effect::MakeRunDirectory, Moment::After);
    let kvm = kvm.as_fd().try_clone_to_owned().map_err(failed)?;
    let (here, there) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|error| failed(error.into()))?;
    probe.reach(Effect::SpawnWorker, Moment::Before);
    let child = Command::new(executable)
        .arg0(OsStr::new("roost"))
        .arg(SUBCOMMAND)
        .env_clear()
        // One malloc arena for all threads: arenas of their own would cost memory and give
        // threads that hardly allocate nothing.
        .env("MALLOC_ARENA_MAX", "1")
        .stdin(Stdio::from(there))
        .stdout(Stdio::null())
        .stderr(Stdio::from(log))
        .spawn()
        .map_err(failed)?;
    probe.spawned(child.id());
    probe.reach(Effect::SpawnWorker, Moment::After);
    let (devices, device_descriptors) = launch.devices.split();
    let config = WorkerConfig {
        version: CONFIG_VERSION,
        vm: launch.vm,
        incarnation: launch.incarnation,
        nonce: launch.nonce,
        vcpus: launch.vcpus,
        memory_bytes: launch.memory_bytes,
        cmdline: launch.cmdline,
        initrd: launch.initrd.is_some(),
        devices,
        machine: launch.machine,
    };
    let control = control.into();
    let message = Message {
        config,
        control,
        kvm,
        kernel: launch.kernel,
        initrd: launch.initrd,
        devices: device_descriptors,
    };
    Ok((child, here, message))
}

/// A worker that has not said yet that its VM is built. Dropping it kills it and undoes what was
/// made.
struct Unfinished(Option<(Process, RunDir)>);

impl Unfinished {
    /// Waits until the worker says what became of the VM.
    async fn until_built(&self, nonce: &str) -> Result<(Connection, WorkerState), LaunchError> {
        let (process, run_dir) = self.0.as_ref().ok_or(LaunchError::ShuttingDown)?;
        let greeting = async {
            let stream = run_dir.connect().await.map_err(|_| GreetingError::Closed)?;
            greet(stream, nonce).await
        };
        let ended = |status| LaunchError::WorkerEnded {
            status,
            log: run_dir.log_tail(),
        };
        let greeted = tokio::select! {
            biased;
            greeted = greeting => greeted,
            status = process.ended() => return Err(ended(status)),
        };
        match greeted {
            Ok((connection, Welcome { state, .. })) => match state {
                WorkerState::BuildFailed { error, kind } => {
                    // It ends by itself now that it has told.
                    let _ = timeout(RECONNECT_PAUSE, process.ended()).await;
                    Err(LaunchError::build(
                        error,
                        kind.unwrap_or(FailureKind::Start),
                    ))
                }
                state => Ok((connection, state)),
            },
            Err(GreetingError::Closed) => match timeout(RECONNECT_PAUSE, process.ended()).await {
                Ok(status) => Err(ended(status)),
                Err(_) => Err(LaunchError::Protocol("it closed the connection".to_owned())),
            },
            Err(error) => Err(LaunchError::Protocol(error.to_string())),
        }
    }

    /// Hands the process and its directory on; they are there until this.
    fn finish(mut self) -> Option<(Process, RunDir)> {
        self.0.take()
    }

    /// Leaves nothing behind.
    async fn abandon(mut self) {
        if let Some((process, run_dir)) = self.0.take() {
            // A process that does not end even now is the kernel's to end.
            let _ = process.kill().await;
            run_dir.undo();
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some((process, run_dir)) = self.0.take() {
            let _ = process.signal_kill();
            run_dir.undo();
        }
    }
}
