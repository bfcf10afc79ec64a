//! A backend, a directory, and how to wait for a guest.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use roost_model::VmId;
use roost_worker::{
    Adoption, Backend, HandleEvent, InProcessBackend, Launch, LaunchError, VmHandle, WorkerBackend,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use uuid::Uuid;

/// No promise: only how long a broken test hangs.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const NONCE: &str = "0123456789abcdef0123456789abcdef";

pub(crate) struct Fixture {
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) dir: TempDir,
    pub(crate) vm: VmId,
}

pub(crate) fn kvm() -> File {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .expect("these tests need /dev/kvm")
}

impl Fixture {
    pub(crate) fn worker() -> Self {
        Self::new(WorkerBackend::new(
            env!("CARGO_BIN_EXE_roost-worker").into(),
            kvm(),
        ))
    }

    pub(crate) fn in_process() -> Self {
        Self::new(InProcessBackend::new(kvm()))
    }

    pub(crate) fn new(backend: impl Backend + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            backend: Box::new(backend),
            dir,
            vm: VmId::from_uuid(Uuid::new_v4()),
        }
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub(crate) fn launch_of(&self, kernel: &[u8], cmdline: &str) -> Launch {
        let path = self.dir.path().join("kernel");
        std::fs::write(&path, kernel).unwrap();
        Launch {
            vm: self.vm,
            incarnation: 1,
            nonce: NONCE.to_owned(),
            run_dir: self.run_dir(),
            vcpus: 1,
            memory_bytes: 64 << 20,
            cmdline: cmdline.to_owned(),
            kernel: File::open(path).unwrap(),
            initrd: None,
            devices: roost_worker::Devices::default(),
            machine: roost_worker::Machine::default(),
        }
    }

    pub(crate) async fn try_launch(&self, kernel: &[u8]) -> Result<Arc<dyn VmHandle>, LaunchError> {
        within(self.backend.launch(self.launch_of(kernel, ""))).await
    }

    pub(crate) async fn launch(&self, kernel: &[u8]) -> Arc<dyn VmHandle> {
        self.try_launch(kernel).await.unwrap()
    }

    /// A guest that runs already.
    pub(crate) async fn boot(&self, kernel: &[u8]) -> Arc<dyn VmHandle> {
        let handle = self.launch(kernel).await;
        handle.resume().await.unwrap();
        handle
    }

    pub(crate) fn adoption(&self) -> Adoption {
        Adoption {
            vm: self.vm,
            incarnation: 1,
            nonce: NONCE.to_owned(),
            run_dir: self.run_dir(),
            pid: None,
            start_ticks: None,
        }
    }

    pub(crate) async fn adopt(&self) -> Arc<dyn VmHandle> {
        within(self.backend.adopt(&self.adoption())).await.unwrap()
    }
}

/// A failed test leaves no worker behind.
impl Drop for Fixture {
    fn drop(&mut self) {
        for pid in processes_in(self.dir.path()) {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// Other processes that hold a file below this directory open: workers hold their logs.
pub(crate) fn processes_in(dir: &Path) -> Vec<i32> {
    let is_there = |pid: &i32| {
        let links = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten();
        links
            .filter_map(|link| std::fs::read_link(link.path()).ok())
            .any(|target| target.starts_with(dir))
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .filter(|pid| u32::try_from(*pid) != Ok(std::process::id()))
        .filter(is_there)
        .collect()
}

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it hangs")
}

pub(crate) async fn event(handle: &Arc<dyn VmHandle>) -> HandleEvent {
    within(handle.next_event()).await
}

/// Waits until the guest has written `text` at or after `from`; returns where the text ends.
pub(crate) async fn output(handle: &Arc<dyn VmHandle>, from: u64, text: &str) -> u64 {
    within(async {
        let mut end = from;
        loop {
            let chunk = handle.serial_read(from, usize::MAX).await.unwrap();
            let found = String::from_utf8_lossy(&chunk.bytes).find(text);
            if let Some(at) = found {
                return chunk.offset + (at + text.len()) as u64;
            }
            end = end.max(chunk.offset + chunk.bytes.len() as u64);
            end = handle.serial_wait(end).await.unwrap();
        }
    })
    .await
}
