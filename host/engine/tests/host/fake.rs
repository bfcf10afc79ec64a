//! A backend without KVM and without processes, in which everything can be made to go wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use roost_model::{Control, Counters, DeviceReport, GuestExit, VmId};
use roost_worker::{
    AdoptError, Adoption, Backend, ConsoleSize, ControlError, GuestState, HandleEvent, KillError,
    Launch, LaunchError, SerialChunk, VmHandle, WorkerIdentity,
};
use tokio::sync::{RwLock, watch};

/// The name of a worker's socket in its run directory.
pub(crate) const SOCKET: &str = "control.sock";

/// Processes that are numbers.
#[derive(Default)]
pub(crate) struct Fake {
    next_pid: AtomicU32,
    /// By pid: whose worker it is.
    pub(crate) workers: Mutex<BTreeMap<u32, VmId>>,
    /// Pids that no signal ends.
    pub(crate) immortal: Mutex<BTreeSet<u32>>,
    /// Launches that are still to fail.
    pub(crate) failing_launches: AtomicU32,
    /// Whether no VM can be made.
    pub(crate) unusable: AtomicBool,
    /// Whether workers answer.
    pub(crate) mute: Arc<AtomicBool>,
    /// Whether guests power off when they are told to.
    pub(crate) obey: Arc<AtomicBool>,
    /// How often a button was pressed.
    pub(crate) pressed: Arc<AtomicU32>,
    /// The most guests that were being stopped at the same moment.
    pub(crate) most_stopping: Arc<AtomicU32>,
    stopping: Arc<AtomicU32>,
    /// Held for writing, it keeps workers from being started and guests from being stopped.
    pub(crate) gate: Arc<RwLock<()>>,
    /// How long the vCPUs of each guest ran, ns, and how much it printed.
    pub(crate) ran_ns: Arc<AtomicU64>,
    pub(crate) printed: Arc<AtomicU64>,
    /// Whether workers are gone, and nobody has noticed yet.
    pub(crate) gone: Arc<AtomicBool>,
    /// How guests have ended by themselves before anybody hears that they run, if they have.
    pub(crate) brief: Arc<Mutex<Option<GuestExit>>>,
    guests: Mutex<BTreeMap<u32, Arc<Guest>>>,
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// A process that nobody started through this backend.
    pub(crate) fn stray(&self, vm: VmId) -> WorkerIdentity {
        let pid = self.next_pid.fetch_add(1, Ordering::Relaxed) + 1;
        self.workers.lock().unwrap().insert(pid, vm);
        identity(pid)
    }

    pub(crate) fn is_alive(&self, pid: u32) -> bool {
        self.workers.lock().unwrap().contains_key(&pid)
    }

    /// Ends a guest by itself.
    pub(crate) fn exit(&self, pid: u32, exit: GuestExit) {
        let guests = self.guests.lock().unwrap();
        guests[&pid].exited.send_replace(Some(exit));
    }

    /// Ends a process without a word to whoever holds it.
    pub(crate) fn vanish(&self, pid: u32) {
        self.workers.lock().unwrap().remove(&pid);
    }
}

const fn identity(pid: u32) -> WorkerIdentity {
    WorkerIdentity {
        pid,
        start_ticks: 7,
    }
}

#[async_trait]
impl Backend for Fake {
    async fn launch(&self, launch: Launch) -> Result<Arc<dyn VmHandle>, LaunchError> {
        let _open = self.gate.read().await;
        let fails =
            self.failing_launches
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(1)
                });
        if fails.is_ok() {
            return Err(LaunchError::Build("it was told to fail".to_owned()));
        }
        let failed = |source| LaunchError::RunDirectory {
            path: launch.run_dir.clone(),
            source,
        };
        std::fs::create_dir_all(&launch.run_dir).map_err(failed)?;
        std::fs::write(launch.run_dir.join(SOCKET), "").map_err(failed)?;
        let identity = self.stray(launch.vm);
        let guest = Arc::new(Guest {
            identity,
            socket: launch.run_dir.join(SOCKET),
            mute: Arc::clone(&self.mute),
            obey: Arc::clone(&self.obey),
            pressed: Arc::clone(&self.pressed),
            most_stopping: Arc::clone(&self.most_stopping),
            stopping: Arc::clone(&self.stopping),
            exited: watch::Sender::default(),
            gate: Arc::clone(&self.gate),
            ran_ns: Arc::clone(&self.ran_ns),
            printed: Arc::clone(&self.printed),
            gone: Arc::clone(&self.gone),
            brief: Arc::clone(&self.brief),
            // What the VM needs stays open as long as its worker.
            devices: Mutex::new(Some(launch.devices)),
        });
        self.guests
            .lock()
            .unwrap()
            .insert(identity.pid, Arc::clone(&guest));
        Ok(guest)
    }

    async fn adopt(&self, adoption: &Adoption) -> Result<Arc<dyn VmHandle>, AdoptError> {
        let pid = adoption.pid.filter(|pid| self.is_alive(*pid));
        let guests = self.guests.lock().unwrap();
        let guest = pid.and_then(|pid| guests.get(&pid).cloned());
        Ok(guest.ok_or(AdoptError::NoWorker)?)
    }

    fn check(&self) -> io::Result<()> {
        if self.unusable.load(Ordering::Relaxed) {
            return Err(io::Error::other("it was told to fail"));
        }
        Ok(())
    }

    async fn kill(&self, worker: WorkerIdentity) -> Result<bool, KillError> {
        let pid = worker.pid;
        if self.immortal.lock().unwrap().contains(&pid) {
            return Err(KillError::StillThere { pid, after_ms: 0 });
        }
        if let Some(guest) = self.guests.lock().unwrap().remove(&pid) {
            guest.devices.lock().unwrap().take();
        }
        Ok(self.workers.lock().unwrap().remove(&pid).is_some())
    }

    fn is_running(&self, worker: WorkerIdentity) -> io::Result<bool> {
        Ok(self.is_alive(worker.pid))
    }

    fn workers(&self, _run_dirs: &Path) -> io::Result<Vec<(VmId, WorkerIdentity)>> {
        let workers = self.workers.lock().unwrap();
        Ok(workers
            .iter()
            .map(|(pid, vm)| (*vm, identity(*pid)))
            .collect())
    }
}

struct Guest {
    identity: WorkerIdentity,
    socket: std::path::PathBuf,
    mute: Arc<AtomicBool>,
    obey: Arc<AtomicBool>,
    pressed: Arc<AtomicU32>,
    most_stopping: Arc<AtomicU32>,
    stopping: Arc<AtomicU32>,
    exited: watch::Sender<Option<GuestExit>>,
    gate: Arc<RwLock<()>>,
    ran_ns: Arc<AtomicU64>,
    printed: Arc<AtomicU64>,
    gone: Arc<AtomicBool>,
    brief: Arc<Mutex<Option<GuestExit>>>,
    devices: Mutex<Option<roost_worker::Devices>>,
}

impl Guest {
    fn answer<T>(&self, request: &'static str, answer: T) -> Result<T, ControlError> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(ControlError::Gone);
        }
        if self.mute.load(Ordering::Relaxed) {
            return Err(ControlError::Timeout {
                request,
                after_ms: 0,
            });
        }
        Ok(answer)
    }
}

#[async_trait]
impl VmHandle for Guest {
    fn identity(&self) -> Option<WorkerIdentity> {
        Some(self.identity)
    }

    fn state(&self) -> GuestState {
        GuestState::Running
    }

    async fn resume(&self) -> Result<(), ControlError> {
        if self.brief.lock().unwrap().is_some() {
            return Err(ControlError::GuestEnded);
        }
        self.answer("resume", ())
    }

    async fn pause(&self) -> Result<(), ControlError> {
        self.answer("pause", ())
    }

    async fn stop(&self) -> Result<(GuestExit, Counters), ControlError> {
        let _open = self.gate.read().await;
        let now = self.stopping.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_stopping.fetch_max(now, Ordering::SeqCst);
        // Others get to it meanwhile, if they may.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        self.stopping.fetch_sub(1, Ordering::SeqCst);
        self.answer("stop", (GuestExit::Stopped, Counters::default()))
    }

    /// Lets go of what it has open; its process is the engine's to kill.
    async fn quit(&self) -> Result<(), ControlError> {
        self.devices.lock().unwrap().take();
        let _ = std::fs::remove_file(&self.socket);
        self.answer("quit", ())
    }

    async fn counters(&self) -> Result<Counters, ControlError> {
        let counters = Counters {
            running_ns: self.ran_ns.load(Ordering::Relaxed),
            serial_tx_bytes: self.printed.load(Ordering::Relaxed),
            ..Counters::default()
        };
        self.answer("counters", counters)
    }

    async fn serial_read(&self, from: u64, _max: usize) -> Result<SerialChunk, ControlError> {
        self.answer(
            "serial-read",
            SerialChunk {
                offset: from,
                bytes: Vec::new(),
            },
        )
    }

    async fn serial_wait(&self, past: u64) -> Result<u64, ControlError> {
        self.answer("serial-wait", past)?;
        std::future::pending().await
    }

    async fn serial_write(&self, bytes: &[u8]) -> Result<usize, ControlError> {
        self.answer("serial-write", bytes.len())
    }

    async fn console_read(
        &self,
        port: &str,
        _from: u64,
        _max: usize,
    ) -> Result<SerialChunk, ControlError> {
        Err(no_console(port))
    }

    async fn console_wait(&self, port: &str, _past: u64) -> Result<u64, ControlError> {
        Err(no_console(port))
    }

    async fn console_write(&self, port: &str, _bytes: &[u8]) -> Result<usize, ControlError> {
        Err(no_console(port))
    }

    async fn console_resize(&self, port: &str, _size: ConsoleSize) -> Result<(), ControlError> {
        Err(no_console(port))
    }

    async fn control(&self, control: Control) -> Result<(), ControlError> {
        if matches!(control, Control::Press { .. }) {
            self.pressed.fetch_add(1, Ordering::Relaxed);
            if self.obey.load(Ordering::Relaxed) {
                self.exited.send_replace(Some(GuestExit::PowerOff));
            }
        }
        self.answer("control", ())
    }

    async fn devices(&self) -> Result<DeviceReport, ControlError> {
        self.answer("devices", DeviceReport::default())
    }

    async fn next_event(&self) -> HandleEvent {
        if let Some(exit) = self.brief.lock().unwrap().clone() {
            return HandleEvent::GuestExited {
                sequence: 1,
                exit,
                counters: Counters::default(),
                at_ms: 0,
            };
        }
        let mut exited = self.exited.subscribe();
        let exit = exited.wait_for(Option::is_some).await;
        let Ok(Some(exit)) = exit.map(|exit| exit.clone()) else {
            return std::future::pending().await;
        };
        // It is told once.
        self.exited.send_replace(None);
        HandleEvent::GuestExited {
            sequence: 1,
            exit,
            counters: Counters::default(),
            at_ms: 0,
        }
    }

    async fn acknowledge(&self, _sequence: u64) -> Result<(), ControlError> {
        self.answer("ack", ())
    }
}

/// These VMs have none.
fn no_console(port: &str) -> ControlError {
    ControlError::NoPort {
        port: port.to_owned(),
        ports: Vec::new(),
    }
}
