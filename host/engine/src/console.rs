//! The ports of a VM's virtio console. A port is named by its index, of which 0 is the terminal, or
//! by its name.

use std::time::Duration;

use roost_model::{VmId, VmRecord};
use roost_worker::{ConsoleSize, ControlError, SerialChunk};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::logs::{Log, TERMINAL};

impl Engine {
    /// Output of a port, as [`Self::serial_read`] gives it. Once a VM has ended, what its terminal
    /// printed last is kept.
    ///
    /// # Errors
    /// No such VM or port, or its worker does not answer or is too old.
    pub async fn console_read(
        &self,
        vm: VmId,
        port: &str,
        from: u64,
        max: usize,
    ) -> Result<SerialChunk, EngineError> {
        if let Some(handle) = self.handle(vm)? {
            match handle.console_read(port, from, max).await {
                Err(error) if error.has_ended() => {}
                read => return Ok(read?),
            }
        }
        let record = self.store().vm(vm)?;
        let is_named = |record: &&VmRecord| {
            let mut ports = record.spec.console_ports.iter();
            ports.any(|name| name.as_str() == port)
        };
        if let Some(record) = record.as_ref().filter(is_named) {
            let state = record.state.name().to_owned();
            return Err(EngineError::NotRunning { state });
        }
        let has_console = record.is_some_and(|record| record.spec.console);
        if !has_console || port != TERMINAL {
            let ports = has_console.then(|| TERMINAL.to_owned());
            return Err(EngineError::Worker(ControlError::NoPort {
                port: port.to_owned(),
                ports: ports.into_iter().collect(),
            }));
        }
        Ok(self.context.kept_log(vm, Log::Terminal, from, max).await)
    }

    /// Waits until a port has output past `past`, the guest ends, or `timeout` is over.
    ///
    /// # Errors
    /// Those of [`Self::console_read`].
    pub async fn console_wait(
        &self,
        vm: VmId,
        port: &str,
        past: u64,
        timeout: Duration,
    ) -> Result<(), EngineError> {
        if let Some(handle) = self.handle(vm)? {
            let waiting = tokio::time::timeout(timeout, handle.console_wait(port, past));
            match waiting.await {
                Ok(Err(error)) if !error.has_ended() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives the guest input on a port; returns how many bytes there was room for.
    ///
    /// # Errors
    /// The VM does not run, and those of [`Self::console_read`].
    pub async fn console_write(
        &self,
        vm: VmId,
        port: &str,
        bytes: &[u8],
    ) -> Result<usize, EngineError> {
        let written = self.running(vm)?.console_write(port, bytes).await;
        self.of_running(vm, written)
    }

    /// Changes the size of a port that is a terminal, and tells the guest.
    ///
    /// # Errors
    /// It is not a terminal, and those of [`Self::console_write`].
    pub async fn console_resize(
        &self,
        vm: VmId,
        port: &str,
        size: ConsoleSize,
    ) -> Result<(), EngineError> {
        let resized = self.running(vm)?.console_resize(port, size).await;
        self.of_running(vm, resized)
    }
}
