//! What the engine sees: a backend that makes handles, and the handle of one VM.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use roost_model::{Control, Counters, DeviceReport, GuestExit, VmId};
use roost_vmm::{ConsoleSize, SerialChunk};

use crate::devices::{Devices, Machine};
use crate::error::{AdoptError, ControlError, KillError, LaunchError};
use crate::process::WorkerIdentity;

/// Everything that one incarnation of a VM is started from.
#[derive(Debug)]
pub struct Launch {
    /// The VM.
    pub vm: VmId,
    /// Which boot of it, from 1.
    pub incarnation: u64,
    /// The secret by which a host proves that the worker is its own.
    pub nonce: String,
    /// The VM's run directory; made with mode 0700 if it does not exist.
    pub run_dir: PathBuf,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Guest memory, bytes.
    pub memory_bytes: u64,
    /// The kernel's command line.
    pub cmdline: String,
    /// The kernel image, open for reading.
    pub kernel: std::fs::File,
    /// The initial RAM disk, open for reading.
    pub initrd: Option<std::fs::File>,
    /// The devices, with all that they need opened.
    pub devices: Devices,
    /// What else can be chosen about the machine.
    pub machine: Machine,
}

/// What is known about a worker that an earlier host process started.
#[derive(Debug, Clone)]
pub struct Adoption {
    /// The VM.
    pub vm: VmId,
    /// Which boot of it.
    pub incarnation: u64,
    /// The secret that the worker was started with.
    pub nonce: String,
    /// The VM's run directory.
    pub run_dir: PathBuf,
    /// The process id, if it was written down before the host died.
    pub pid: Option<u32>,
    /// The start time, if it was written down: see [`WorkerIdentity::start_ticks`].
    pub start_ticks: Option<u64>,
}

/// Makes handles of VMs.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Builds the VM; returns when it is built and paused.
    ///
    /// # Errors
    /// The VM can't be built, or not within 10 s. Nothing is left behind then: no process, no
    /// socket, and no run directory if this call made it.
    async fn launch(&self, launch: Launch) -> Result<Arc<dyn VmHandle>, LaunchError>;

    /// Takes over a worker that an earlier host process started. An earlier host process's
    /// connection, if there still is one, is closed by the worker.
    ///
    /// # Errors
    /// [`AdoptError::NoWorker`] where none answers, and others where what answers is not it.
    async fn adopt(&self, adoption: &Adoption) -> Result<Arc<dyn VmHandle>, AdoptError>;

    /// Whether VMs can be made now. It leaves nothing behind, and may block.
    ///
    /// # Errors
    /// What the kernel refused.
    fn check(&self) -> io::Result<()>;

    /// Kills a worker process and waits until it is gone. Returns whether there was one: false
    /// if no process has this id and start time. Idempotent.
    ///
    /// # Errors
    /// The process could not be looked at or killed, or did not end within 10 s.
    async fn kill(&self, worker: WorkerIdentity) -> Result<bool, KillError>;

    /// Whether a worker process runs.
    ///
    /// # Errors
    /// `/proc` could not be read.
    fn is_running(&self, worker: WorkerIdentity) -> io::Result<bool>;

    /// Every worker process that belongs to a run directory below `run_dirs`, an absolute path
    /// without symbolic links: whoever started it, and whether or not anyone knows of it. It reads
    /// all of `/proc`: call it where that may block.
    ///
    /// # Errors
    /// `/proc` could not be read.
    fn workers(&self, run_dirs: &Path) -> io::Result<Vec<(VmId, WorkerIdentity)>>;
}

/// What a guest is doing, as last known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestState {
    /// Built, and never resumed yet.
    Built,
    /// Its vCPUs run.
    Running,
    /// Its vCPUs are held.
    Paused,
    /// Its execution has ended.
    Exited,
}

/// One incarnation of a VM. All requests have deadlines; dropping a handle does not end a guest
/// that has a worker process.
#[async_trait]
pub trait VmHandle: Send + Sync {
    /// The worker process; `None` where the guest runs in this process.
    fn identity(&self) -> Option<WorkerIdentity>;

    /// What the guest is doing, as last known.
    fn state(&self) -> GuestState;

    /// Lets the vCPUs run.
    ///
    /// # Errors
    /// The guest has ended, or the worker does not answer.
    async fn resume(&self) -> Result<(), ControlError>;

    /// Holds the vCPUs; returns when none of them is in the guest.
    ///
    /// # Errors
    /// The guest has ended, or the worker does not answer.
    async fn pause(&self) -> Result<(), ControlError>;

    /// Ends the guest. If it has ended already, tells how.
    ///
    /// # Errors
    /// The worker does not answer.
    async fn stop(&self) -> Result<(GuestExit, Counters), ControlError>;

    /// Ends the worker process, and its guest with it, waits until it is gone and removes the
    /// control socket. A worker that does not end by itself is killed. Idempotent.
    ///
    /// # Errors
    /// The process did not end even when it was killed.
    async fn quit(&self) -> Result<(), ControlError>;

    /// The counters now; the last ones if the guest has ended.
    ///
    /// # Errors
    /// The worker does not answer.
    async fn counters(&self) -> Result<Counters, ControlError>;

    /// Serial output from absolute position `from` on, at most `max` bytes and at most 128 KiB.
    /// What is no longer kept is skipped: the chunk's offset tells.
    ///
    /// # Errors
    /// The worker does not answer.
    async fn serial_read(&self, from: u64, max: usize) -> Result<SerialChunk, ControlError>;

    /// Waits until the serial output ends past `past` or the guest has ended; returns where the
    /// output ends. It waits as long as it takes: the caller bounds it.
    ///
    /// # Errors
    /// The worker does not answer or is gone.
    async fn serial_wait(&self, past: u64) -> Result<u64, ControlError>;

    /// Gives the guest input on its serial port; returns how many bytes were taken, which may
    /// be less than all of them.
    ///
    /// # Errors
    /// The guest has ended, or the worker does not answer.
    async fn serial_write(&self, bytes: &[u8]) -> Result<usize, ControlError>;

    /// Output of a port of the virtio console, as [`Self::serial_read`] gives it. The port is
    /// named by its index (0 is the terminal) or by its name.
    ///
    /// # Errors
    /// There is no such port, the worker is of a host that knew no ports, or it does not answer.
    async fn console_read(
        &self,
        port: &str,
        from: u64,
        max: usize,
    ) -> Result<SerialChunk, ControlError>;

    /// Waits for output of a console port, as [`Self::serial_wait`] does.
    ///
    /// # Errors
    /// As of [`Self::console_read`].
    async fn console_wait(&self, port: &str, past: u64) -> Result<u64, ControlError>;

    /// Gives the guest input on a console port; returns how many bytes there was room for.
    ///
    /// # Errors
    /// The guest has ended, and those of [`Self::console_read`].
    async fn console_write(&self, port: &str, bytes: &[u8]) -> Result<usize, ControlError>;

    /// Changes the size of a console port that is a terminal.
    ///
    /// # Errors
    /// It is not a terminal, and those of [`Self::console_write`].
    async fn console_resize(&self, port: &str, size: ConsoleSize) -> Result<(), ControlError>;

    /// Has a running guest do something, or changes what it may do.
    ///
    /// # Errors
    /// The guest has ended, the VM has no such device, or the worker does not answer.
    async fn control(&self, control: Control) -> Result<(), ControlError>;

    /// What the guest's devices report; nothing of a guest that has ended.
    ///
    /// # Errors
    /// The worker does not answer.
    async fn devices(&self) -> Result<DeviceReport, ControlError>;

    /// The next event. For one consumer; cancel-safe. After [`HandleEvent::Gone`] it never
    /// returns again.
    async fn next_event(&self) -> HandleEvent;

    /// Tells the worker that the event of this number need not be kept any longer.
    ///
    /// # Errors
    /// The worker does not answer.
    async fn acknowledge(&self, sequence: u64) -> Result<(), ControlError>;
}

/// What happens to a VM by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandleEvent {
    /// The guest's execution has ended. Told again by every adoption until it is acknowledged.
    GuestExited {
        /// The event's number in this incarnation, from 1.
        sequence: u64,
        /// How it ended.
        exit: GuestExit,
        /// The last counters.
        counters: Counters,
        /// When, ms since the Unix epoch.
        at_ms: u64,
    },
    /// The worker process is gone. Told once, after everything else.
    Gone {
        /// How it ended: "signal 9", "exit status 3", or "unknown" where it was not our child.
        status: String,
    },
}
