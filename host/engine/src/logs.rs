//! The tails of what a guest printed on its serial port and its terminal, kept after its worker is
//! gone.

use std::io;
use std::path::PathBuf;

use roost_model::{Effect, VmId};
use roost_worker::{ControlError, SerialChunk, VmHandle};

use crate::context::Context;

/// Bytes of output that are kept after an orderly end: as many as a worker's ring holds.
const KEPT_BYTES: usize = 64 << 10;

/// The port of the console whose output is kept: the terminal.
pub(crate) const TERMINAL: &str = "0";

/// Which output.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Log {
    Serial,
    /// Of the console's port [`TERMINAL`].
    Terminal,
}

impl Log {
    /// The file in the run directory: the absolute offset of its first byte of output as a 64-bit
    /// little-endian number, then the output.
    const fn file(self) -> &'static str {
        match self {
            Self::Serial => "serial.tail",
            Self::Terminal => "console.tail",
        }
    }
}

impl Context {
    fn log_path(&self, vm: VmId, log: Log) -> PathBuf {
        self.run_dir(vm).join(log.file())
    }

    /// Keeps what the worker's rings hold. A log that can't be kept does not hold up a stop.
    pub(crate) async fn keep_log(&self, vm: VmId, handle: &dyn VmHandle) {
        let keeping = self.try_keep_log(vm, handle);
        let result = self.config.faults.around(Effect::KeepLog, keeping).await;
        if let Err(error) = result {
            tracing::warn!(%vm, %error, "the guest's output could not be kept");
        }
    }

    async fn try_keep_log(&self, vm: VmId, handle: &dyn VmHandle) -> Result<(), String> {
        let serial = handle.serial_read(0, KEPT_BYTES).await;
        let serial = serial.map_err(|error| error.to_string())?;
        self.write_log(vm, Log::Serial, &serial).await?;
        match handle.console_read(TERMINAL, 0, KEPT_BYTES).await {
            Ok(console) => self.write_log(vm, Log::Terminal, &console).await,
            Err(ControlError::NoPort { .. } | ControlError::Unsupported { .. }) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn write_log(&self, vm: VmId, log: Log, chunk: &SerialChunk) -> Result<(), String> {
        let mut file = chunk.offset.to_le_bytes().to_vec();
        file.extend_from_slice(&chunk.bytes);
        match tokio::fs::create_dir_all(self.run_dir(vm)).await {
            Ok(()) => tokio::fs::write(self.log_path(vm, log), file).await,
            Err(error) => Err(error),
        }
        .map_err(|error| error.to_string())
    }

    /// Forgets the output of the incarnation before.
    pub(crate) async fn forget_log(&self, vm: VmId) {
        let removing = async {
            let mut removed = Ok(());
            for log in [Log::Serial, Log::Terminal] {
                match tokio::fs::remove_file(self.log_path(vm, log)).await {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => removed = Err(error),
                    _ => {}
                }
            }
            removed
        };
        let faults = &self.config.faults;
        if let Err(error) = faults.around(Effect::ForgetLog, removing).await {
            tracing::warn!(%vm, %error, "old output could not be removed");
        }
    }

    /// What was kept, from `from` on. Nothing kept: an empty chunk at 0.
    pub(crate) async fn kept_log(&self, vm: VmId, log: Log, from: u64, max: usize) -> SerialChunk {
        let file = tokio::fs::read(self.log_path(vm, log)).await;
        let file = file.unwrap_or_default();
        let Some((offset, bytes)) = file.split_first_chunk::<8>() else {
            return SerialChunk {
                offset: 0,
                bytes: Vec::new(),
            };
        };
        let offset = u64::from_le_bytes(*offset);
        let skip = usize::try_from(from.saturating_sub(offset)).unwrap_or(usize::MAX);
        let bytes = bytes.get(skip.min(bytes.len())..).unwrap_or_default();
        SerialChunk {
            offset: offset.saturating_add(u64::try_from(skip).unwrap_or(u64::MAX)),
            bytes: bytes
                .get(..max.min(bytes.len()))
                .unwrap_or_default()
                .to_vec(),
        }
    }
}
