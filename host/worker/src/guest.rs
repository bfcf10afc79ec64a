//! One guest from built to ended, in whichever process it runs. What remains of it after its end
//! is small: how it ended, its last counters, the tail of its output.

mod console;

use std::os::fd::BorrowedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use roost_model::{Button, Control, Counters, DeviceReport, GuestExit};
use roost_vmm::{ControlError, NetLimits, SerialChunk, Vm};

use crate::backend::GuestState;
use crate::devices;
use crate::limits::MAX_SERIAL_BYTES;

pub(crate) use console::{NoPort, NotResized};
use console::{Remains, remains};

pub(crate) struct Guest {
    life: Life,
    /// Whether it ever ran.
    resumed: bool,
}

enum Life {
    Alive(Vm),
    Ended {
        end: End,
        tail: SerialChunk,
        consoles: Vec<Remains>,
    },
}

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) exit: GuestExit,
    pub(crate) counters: Counters,
    /// ms since the Unix epoch.
    pub(crate) at_ms: u64,
}

/// The guest's execution has ended: what was asked for can't be done any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended;

/// Why a guest was not asked to do something.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ControlFailed {
    /// The guest has ended.
    Ended,
    /// The VM can't.
    Vm(String),
}

impl From<ControlError> for Ended {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Exited(_) => Self,
        }
    }
}

impl Guest {
    pub(crate) const fn new(vm: Vm) -> Self {
        Self {
            life: Life::Alive(vm),
            resumed: false,
        }
    }

    /// A guest that has ended, and its output from position `from` on, on the serial port and on
    /// a console with two ports.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn ended(end: End, from: u64, output: Vec<u8>) -> Self {
        let tail = SerialChunk {
            offset: from,
            bytes: output,
        };
        let stream = Some("stream".to_owned());
        let console = |name| Remains::new(name, tail.clone());
        let consoles = [None, stream].map(console).into();
        Self {
            life: Life::Ended {
                end,
                tail,
                consoles,
            },
            resumed: true,
        }
    }

    const fn vm(&self) -> Option<&Vm> {
        match &self.life {
            Life::Alive(vm) => Some(vm),
            Life::Ended { .. } => None,
        }
    }

    pub(crate) fn state(&self) -> GuestState {
        match &self.life {
            Life::Ended { .. } => GuestState::Exited,
            Life::Alive(vm) if !vm.is_paused() => GuestState::Running,
            Life::Alive(_) if self.resumed => GuestState::Paused,
            Life::Alive(_) => GuestState::Built,
        }
    }

    pub(crate) fn resume(&mut self) -> Result<(), Ended> {
        let vm = self.vm().filter(|vm| vm.exit().is_none()).ok_or(Ended)?;
        // A guest can run and end before this returns. It was resumed nevertheless; its end is
        // told as an event.
        let _ = vm.resume();
        self.resumed = true;
        Ok(())
    }

    pub(crate) fn pause(&self) -> Result<(), Ended> {
        Ok(self.vm().ok_or(Ended)?.pause()?)
    }

    pub(crate) fn counters(&self) -> Counters {
        match &self.life {
            Life::Alive(vm) => vm.counters(),
            Life::Ended { end, .. } => end.counters,
        }
    }

    /// Output from `from` on, at most `max` bytes and [`MAX_SERIAL_BYTES`].
    pub(crate) fn serial_read(&self, from: u64, max: usize) -> SerialChunk {
        let max = max.min(MAX_SERIAL_BYTES);
        match &self.life {
            Life::Alive(vm) => vm.serial().read(from, max),
            Life::Ended { tail, .. } => part(tail, from, max),
        }
    }

    pub(crate) fn serial_end(&self) -> u64 {
        match &self.life {
            Life::Alive(vm) => vm.serial().end(),
            Life::Ended { tail, .. } => end_of(tail),
        }
    }

    pub(crate) fn serial_write(&self, bytes: &[u8]) -> Result<usize, Ended> {
        Ok(self.vm().ok_or(Ended)?.serial().write_input(bytes))
    }

    /// Does what is asked of a guest that has not ended.
    pub(crate) fn control(&self, control: &Control) -> Result<(), ControlFailed> {
        let vm = self.vm().ok_or(ControlFailed::Ended)?;
        match control {
            Control::Press { button } => match button {
                Button::PowerButton => vm.press_power_button(),
                Button::CtrlAltDelete => vm.ctrl_alt_delete(),
            }
            .map_err(|error| {
                let Ended = error.into();
                ControlFailed::Ended
            }),
            Control::SerialLimit { limit } => {
                vm.serial().set_output_limit(limit.map(devices::limit));
                Ok(())
            }
            Control::DiskLimits { disk, limits } => {
                if vm.set_disk_limits(disk.as_str(), devices::limits(*limits)) {
                    Ok(())
                } else {
                    Err(ControlFailed::Vm(format!("there is no disk {disk}")))
                }
            }
            Control::NetworkLimits {
                index,
                rx_limits,
                tx_limits,
            } => {
                let limits = NetLimits {
                    receive: devices::limits(*rx_limits),
                    transmit: devices::limits(*tx_limits),
                };
                let set = vm.set_net_limits(*index, limits);
                set.map_err(|error| ControlFailed::Vm(error.to_string()))
            }
            Control::Balloon { target_mib } => {
                let set = vm.set_balloon(*target_mib);
                set.map_err(|error| ControlFailed::Vm(error.to_string()))
            }
        }
    }

    /// What the devices report; nothing once the guest has ended.
    pub(crate) fn devices(&self) -> DeviceReport {
        self.vm().map(devices::report).unwrap_or_default()
    }

    /// Readable from the guest's end on; `None` once [`Self::settle`] has seen it.
    pub(crate) fn exit_fd(&self) -> Option<BorrowedFd<'_>> {
        self.vm().map(Vm::exit_fd)
    }

    /// Readable when there is new output. Whoever reads it drains it.
    pub(crate) fn output_fd(&self) -> Option<BorrowedFd<'_>> {
        self.vm().map(|vm| vm.serial().output_fd())
    }

    /// Ends the guest, if it has not ended: a [`Self::settle`] must follow.
    pub(crate) fn stop(&self) {
        if let Some(vm) = self.vm() {
            vm.stop();
        }
    }

    /// Once the guest has ended, keeps what remains of it and returns the VM for the caller to
    /// drop when there is time: that takes the kernel some 20 ms.
    pub(crate) fn settle(&mut self) -> Option<Vm> {
        let vm = self.vm()?;
        let exit = vm.exit()?;
        // Makes the counters final.
        vm.stop();
        let end = End {
            exit,
            counters: vm.counters(),
            at_ms: now_ms(),
        };
        let ended = Life::Ended {
            end,
            tail: vm.serial().read(0, usize::MAX),
            consoles: remains(vm),
        };
        match std::mem::replace(&mut self.life, ended) {
            Life::Alive(vm) => Some(vm),
            Life::Ended { .. } => None,
        }
    }

    /// How the guest ended, once [`Self::settle`] has seen it.
    pub(crate) const fn end(&self) -> Option<&End> {
        match &self.life {
            Life::Alive(_) => None,
            Life::Ended { end, .. } => Some(end),
        }
    }
}

/// Of a tail of output: from position `from` on, at most `max` bytes.
fn part(tail: &SerialChunk, from: u64, max: usize) -> SerialChunk {
    let offset = from.clamp(tail.offset, end_of(tail));
    let skip = usize::try_from(offset - tail.offset).unwrap_or(usize::MAX);
    let bytes = tail.bytes.iter().skip(skip).take(max).copied().collect();
    SerialChunk { offset, bytes }
}

fn end_of(chunk: &SerialChunk) -> u64 {
    chunk.offset.saturating_add(chunk.bytes.len() as u64)
}

/// Wall clock, ms since the Unix epoch.
fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
