//! Guests on threads of this process. They end with it, and whatever one of them breaks, it
//! breaks here: for tests, and for embedding where guests are trusted.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use roost_model::{Control, Counters, DeviceReport, FailureKind, GuestExit, VmId};
use roost_vmm::{ConsoleSize, SerialChunk, Vm, VmConfig};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::backend::{Adoption, Backend, GuestState, HandleEvent, Launch, VmHandle};
use crate::error::{AdoptError, ControlError, KillError, LaunchError, failure_kind};
use crate::guest::{ControlFailed, End, Ended, Guest, NoPort, NotResized};
use crate::limits::{LAUNCH_DEADLINE, REQUEST_DEADLINE, STOP_DEADLINE};
use crate::process::WorkerIdentity;
use crate::readiness;
use crate::run_dir::RunDir;

/// The number of the only event of an incarnation.
const EXIT_SEQUENCE: u64 = 1;

/// Runs guests in this process.
#[derive(Debug)]
pub struct InProcessBackend {
    kvm: File,
}

impl InProcessBackend {
    /// A backend on `kvm`, an open `/dev/kvm`.
    #[must_use]
    pub const fn new(kvm: File) -> Self {
        Self { kvm }
    }
}

#[async_trait]
impl Backend for InProcessBackend {
    async fn launch(&self, launch: Launch) -> Result<Arc<dyn VmHandle>, LaunchError> {
        let Launch {
            run_dir: path,
            vcpus,
            memory_bytes,
            cmdline,
            kernel,
            initrd,
            devices,
            machine,
            ..
        } = launch;
        let executable = || "/dev/kvm".into();
        let kvm = self.kvm.try_clone().map_err(|source| LaunchError::Spawn {
            executable: executable(),
            source,
        })?;
        let build = spawn_blocking(move || {
            let run_dir = RunDir::open_or_make(&path)
                .map_err(|source| LaunchError::RunDirectory { path, source })?;
            let config = VmConfig {
                vcpus,
                memory_bytes,
                cmdline,
                kernel,
                initrd,
                devices: devices.into(),
                machine: machine.options(),
            };
            let vm = Vm::build(kvm, config).map_err(|error| {
                run_dir.undo();
                let kind = error.io_error().map_or(FailureKind::Start, failure_kind);
                LaunchError::build(error.to_string(), kind)
            })?;
            machine.apply(&vm);
            Ok(vm)
        });
        let vm = timeout(LAUNCH_DEADLINE, build)
            .await
            .map_err(|_| LaunchError::Timeout(LAUNCH_DEADLINE.as_millis()))?
            .map_err(|_| LaunchError::ShuttingDown)??;
        let handle = InProcess::start(vm).map_err(|source| LaunchError::Spawn {
            executable: executable(),
            source,
        })?;
        Ok(Arc::new(handle))
    }

    /// No guest outlives the process that it runs in.
    async fn adopt(&self, _adoption: &Adoption) -> Result<Arc<dyn VmHandle>, AdoptError> {
        Err(AdoptError::NoWorker)
    }

    fn check(&self) -> io::Result<()> {
        roost_vmm::check_kvm(&self.kvm).map_err(io::Error::other)
    }

    /// There are no worker processes.
    async fn kill(&self, _worker: WorkerIdentity) -> Result<bool, KillError> {
        Ok(false)
    }

    /// There are no worker processes.
    fn is_running(&self, _worker: WorkerIdentity) -> io::Result<bool> {
        Ok(false)
    }

    /// There are no worker processes.
    fn workers(&self, _run_dirs: &Path) -> io::Result<Vec<(VmId, WorkerIdentity)>> {
        Ok(Vec::new())
    }
}

struct InProcess {
    inner: Arc<Inner>,
    /// Whether the guest's end was told. Held while waiting: there is one consumer.
    told: AsyncMutex<bool>,
}

struct Inner {
    guest: Mutex<Guest>,
    /// How the guest ended, once it has.
    end: watch::Sender<Option<End>>,
    serial_end: watch::Sender<u64>,
    /// Changes when a port of the console has more output.
    console_news: watch::Sender<()>,
}

impl Inner {
    fn guest(&self) -> MutexGuard<'_, Guest> {
        self.guest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the guest's end, if it has ended, and tears its VM down.
    fn settle(&self) {
        let mut guest = self.guest();
        let Some(vm) = guest.settle() else { return };
        let (end, serial_end) = (guest.end().cloned(), guest.serial_end());
        drop(guest);
        self.serial_end.send_replace(serial_end);
        self.end.send_replace(end);
        drop(vm);
    }
}

impl InProcess {
    fn start(vm: Vm) -> std::io::Result<Self> {
        let exit = vm.exit_fd().try_clone_to_owned()?;
        let output = vm.serial().output_fd().try_clone_to_owned()?;
        let exit = readiness::watch(Arc::new(exit))?;
        let output = readiness::watch(Arc::new(output))?;
        let mut ports = Vec::new();
        for port in (0..).map_while(|index| vm.console(index)) {
            let exit = readiness::watch(Arc::new(vm.exit_fd().try_clone_to_owned()?))?;
            let output = readiness::watch(Arc::new(port.output_fd().try_clone_to_owned()?))?;
            ports.push((exit, output));
        }
        let inner = Arc::new(Inner {
            guest: Mutex::new(Guest::new(vm)),
            end: watch::Sender::new(None),
            serial_end: watch::Sender::new(0),
            console_news: watch::Sender::new(()),
        });
        tokio::spawn(follow(Arc::downgrade(&inner), exit, output));
        for (exit, output) in ports {
            tokio::spawn(follow_console(Arc::downgrade(&inner), exit, output));
        }
        Ok(Self {
            inner,
            told: AsyncMutex::new(false),
        })
    }

    /// Does `work` where it may block.
    async fn with<T: Send + 'static>(
        &self,
        request: &'static str,
        deadline: Duration,
        work: impl FnOnce(&Inner) -> T + Send + 'static,
    ) -> Result<T, ControlError> {
        let inner = Arc::clone(&self.inner);
        match timeout(deadline, spawn_blocking(move || work(&inner))).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => Err(ControlError::Gone),
            Err(_) => Err(ControlError::Timeout {
                request,
                after_ms: deadline.as_millis(),
            }),
        }
    }
}

type Readable = AsyncFd<Arc<OwnedFd>>;

/// Notes new output and the guest's end until the handle is dropped.
async fn follow(inner: Weak<Inner>, exit: Readable, output: Readable) {
    loop {
        tokio::select! {
            biased;
            ready = output.readable() => {
                let Ok(mut ready) = ready else { return };
                // An eventfd: reading resets it.
                let _ = rustix::io::read(output.get_ref(), &mut [0; 8]);
                ready.clear_ready();
                let Some(inner) = inner.upgrade() else { return };
                let end = inner.guest().serial_end();
                inner.serial_end.send_if_modified(|known| {
                    let grown = end > *known;
                    *known = end.max(*known);
                    grown
                });
            }
            ready = exit.readable() => {
                let Some(inner) = inner.upgrade().filter(|_| ready.is_ok()) else { return };
                // It fails only when the runtime is going down.
                let _ = spawn_blocking(move || inner.settle()).await;
                return;
            }
        }
    }
}

/// Notes new output of a port of the console until the guest ends.
async fn follow_console(inner: Weak<Inner>, exit: Readable, output: Readable) {
    loop {
        tokio::select! {
            biased;
            _ = exit.readable() => return,
            ready = output.readable() => {
                let Ok(mut ready) = ready else { return };
                // An eventfd: reading resets it.
                let _ = rustix::io::read(output.get_ref(), &mut [0; 8]);
                ready.clear_ready();
                let Some(inner) = inner.upgrade() else { return };
                inner.console_news.send_replace(());
            }
        }
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        // Stopping the guest joins its threads and frees its memory: not here, if it can be
        // elsewhere. Its end wakes the following task, which then ends too.
        let inner = Arc::clone(&self.inner);
        let end = move || {
            inner.guest().stop();
            inner.settle();
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(end)),
            Err(_) => end(),
        }
    }
}

#[async_trait]
impl VmHandle for InProcess {
    fn identity(&self) -> Option<WorkerIdentity> {
        None
    }

    fn state(&self) -> GuestState {
        self.inner.guest().state()
    }

    async fn resume(&self) -> Result<(), ControlError> {
        let resumed = self.with("resume", REQUEST_DEADLINE, |inner| inner.guest().resume());
        resumed.await?.map_err(|Ended| ControlError::GuestEnded)
    }

    async fn pause(&self) -> Result<(), ControlError> {
        let paused = self.with("pause", REQUEST_DEADLINE, |inner| inner.guest().pause());
        paused.await?.map_err(|Ended| ControlError::GuestEnded)
    }

    async fn stop(&self) -> Result<(GuestExit, Counters), ControlError> {
        let end = self.with("stop", STOP_DEADLINE, |inner| {
            inner.guest().stop();
            inner.settle();
            inner.guest().end().cloned()
        });
        let end = end
            .await?
            .ok_or_else(|| ControlError::Vm("the guest did not stop".to_owned()))?;
        Ok((end.exit, end.counters))
    }

    async fn quit(&self) -> Result<(), ControlError> {
        self.stop().await.map(drop)
    }

    async fn counters(&self) -> Result<Counters, ControlError> {
        self.with("counters", REQUEST_DEADLINE, |inner| {
            inner.guest().counters()
        })
        .await
    }

    async fn serial_read(&self, from: u64, max: usize) -> Result<SerialChunk, ControlError> {
        Ok(self.inner.guest().serial_read(from, max))
    }

    async fn serial_wait(&self, past: u64) -> Result<u64, ControlError> {
        let mut output = self.inner.serial_end.subscribe();
        let mut end = self.inner.end.subscribe();
        tokio::select! {
            grown = output.wait_for(|end| *end > past) => {
                grown.map(|end| *end).map_err(|_| ControlError::Gone)
            }
            ended = end.wait_for(Option::is_some) => {
                ended.map(|_| self.inner.guest().serial_end()).map_err(|_| ControlError::Gone)
            }
        }
    }

    async fn serial_write(&self, bytes: &[u8]) -> Result<usize, ControlError> {
        self.inner
            .guest()
            .serial_write(bytes)
            .map_err(|Ended| ControlError::GuestEnded)
    }

    async fn console_read(
        &self,
        port: &str,
        from: u64,
        max: usize,
    ) -> Result<SerialChunk, ControlError> {
        let guest = self.inner.guest();
        Ok(guest.console_read(console(&guest, port)?, from, max))
    }

    async fn console_wait(&self, port: &str, past: u64) -> Result<u64, ControlError> {
        let mut news = self.inner.console_news.subscribe();
        let mut ended = self.inner.end.subscribe();
        loop {
            news.mark_unchanged();
            {
                let guest = self.inner.guest();
                let end = guest.console_end(console(&guest, port)?);
                if end > past || guest.end().is_some() {
                    return Ok(end);
                }
            }
            tokio::select! {
                changed = news.changed() => changed.map_err(|_| ControlError::Gone)?,
                ended = ended.wait_for(Option::is_some) => {
                    ended.map_err(|_| ControlError::Gone)?;
                }
            }
        }
    }

    async fn console_write(&self, port: &str, bytes: &[u8]) -> Result<usize, ControlError> {
        let guest = self.inner.guest();
        let written = guest.console_write(console(&guest, port)?, bytes);
        written.map_err(|Ended| ControlError::GuestEnded)
    }

    async fn console_resize(&self, port: &str, size: ConsoleSize) -> Result<(), ControlError> {
        let guest = self.inner.guest();
        let resized = guest.console_resize(console(&guest, port)?, size);
        resized.map_err(|why| match why {
            NotResized::Ended => ControlError::GuestEnded,
            NotResized::NotATerminal => ControlError::NotATerminal(port.to_owned()),
        })
    }

    async fn control(&self, control: Control) -> Result<(), ControlError> {
        let done = self.with("control", REQUEST_DEADLINE, move |inner| {
            inner.guest().control(&control)
        });
        done.await?.map_err(|failed| match failed {
            ControlFailed::Ended => ControlError::GuestEnded,
            ControlFailed::Vm(detail) => ControlError::Vm(detail),
        })
    }

    async fn devices(&self) -> Result<DeviceReport, ControlError> {
        let report = |inner: &Inner| inner.guest().devices();
        self.with("devices", REQUEST_DEADLINE, report).await
    }

    async fn next_event(&self) -> HandleEvent {
        let mut told = self.told.lock().await;
        let mut end = self.inner.end.subscribe();
        let ended = async {
            match end.wait_for(Option::is_some).await {
                Ok(end) => end.clone(),
                Err(_) => None,
            }
        };
        match ended.await {
            Some(End {
                exit,
                counters,
                at_ms,
            }) if !*told => {
                *told = true;
                HandleEvent::GuestExited {
                    sequence: EXIT_SEQUENCE,
                    exit,
                    counters,
                    at_ms,
                }
            }
            _ => std::future::pending().await,
        }
    }

    /// What is not acknowledged can't outlive this process: there is nothing to do.
    async fn acknowledge(&self, _sequence: u64) -> Result<(), ControlError> {
        Ok(())
    }
}

/// The index of a port of the guest's console.
fn console(guest: &Guest, port: &str) -> Result<usize, ControlError> {
    guest
        .console(port)
        .map_err(|NoPort { ports }| ControlError::NoPort {
            port: port.to_owned(),
            ports,
        })
}
