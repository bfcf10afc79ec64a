//! The I/O ports: COM1, the keyboard controller, the clock, reset and power-off, events, panic.

use std::sync::Arc;

use roost_model::{GuestExit, PanicKind};
use vmm_sys_util::eventfd::EventFd;

use super::events::Events;
use super::i8042::I8042;
use super::panic::PanicDevice;
use super::power;
use super::rtc::Rtc;
use super::serial::SerialPort;

/// COM1's registers.
pub(crate) const COM1: u16 = 0x3f8;
/// How many they are.
pub(crate) const COM1_BYTES: u8 = 8;
/// See [`COM1`].
const COM1_END: u16 = COM1 + COM1_BYTES as u16 - 1;
/// The i8042's data port.
pub(crate) const I8042_DATA: u16 = 0x60;
/// The i8042's command and status port.
pub(crate) const I8042_COMMAND: u16 = 0x64;
/// The clock's index port, which can only be written.
pub(crate) const RTC_INDEX: u16 = 0x70;
/// The clock's data port.
const RTC_DATA: u16 = 0x71;
/// Reset control register of PC chipsets (Intel ICH, section "RST_CNT"). Only byte accesses reach
/// it: wider ones at 0xCF8 are PCI configuration addresses.
pub(crate) const RESET_CONTROL: u16 = 0xcf9;
/// `RST_CPU` in it.
const RESET_CPU: u8 = 1 << 2;
/// `RST_CPU` with `SYS_RST`: what resets the whole machine.
pub(crate) const RESET_NOW: u8 = RESET_CPU | 1 << 1;
/// The panic device, where QEMU has it.
pub(crate) const PANIC: u16 = 0x505;
/// ACPI's sleep control register. It and the next two are ports that no PC device has.
pub(crate) const SLEEP_CONTROL: u16 = 0x600;
/// ACPI's sleep status register.
pub(crate) const SLEEP_STATUS: u16 = 0x601;
/// The event device's status register.
pub(crate) const EVENTS: u16 = 0x602;

/// What a write did beside changing a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortWrite {
    Done,
    /// The guest reset the machine.
    Reset,
    /// The guest powered the machine off.
    PowerOff,
    /// The guest's kernel panicked.
    Panic(PanicKind),
}

impl PortWrite {
    /// How the guest ended by this write, if it did.
    pub(crate) fn exit(self) -> Option<GuestExit> {
        match self {
            Self::Done => None,
            Self::Reset => Some(GuestExit::Reset),
            Self::PowerOff => Some(GuestExit::PowerOff),
            Self::Panic(panic_kind) => Some(GuestExit::Panic { panic_kind }),
        }
    }
}

pub(crate) struct Ports {
    serial: Arc<SerialPort>,
    i8042: I8042,
    rtc: Rtc,
    events: Events,
    panic: PanicDevice,
}

/// What the devices on ports raise their interrupts through, beside the serial port.
pub(crate) struct PortInterrupts {
    pub(crate) keyboard: EventFd,
    pub(crate) events: EventFd,
}

impl Ports {
    pub(crate) fn new(serial: Arc<SerialPort>, interrupts: PortInterrupts) -> Self {
        Self {
            serial,
            i8042: I8042::new(interrupts.keyboard),
            rtc: Rtc::default(),
            events: Events::new(interrupts.events),
            panic: PanicDevice::default(),
        }
    }

    /// The event device.
    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    /// Types Ctrl-Alt-Delete on the keyboard.
    pub(crate) fn ctrl_alt_delete(&self) {
        self.i8042.ctrl_alt_delete();
    }

    /// Reads `data` from `port`, in items of `width` bytes: a string instruction reads several
    /// items from the same port.
    pub(crate) fn read(&self, port: u16, width: usize, data: &mut [u8]) {
        for item in data.chunks_mut(width.max(1)) {
            match (port, item) {
                (COM1..=COM1_END, [byte]) => *byte = self.serial.register(port - COM1),
                (I8042_DATA, [byte]) => *byte = self.i8042.data(),
                (I8042_COMMAND, [byte]) => *byte = self.i8042.status(),
                (RTC_DATA, [byte]) => *byte = self.rtc.data(),
                (PANIC, [byte]) => *byte = PanicDevice::capabilities(),
                (SLEEP_CONTROL | SLEEP_STATUS, [byte]) => *byte = power::AWAKE,
                (EVENTS, [byte]) => *byte = self.events.take(),
                (_, item) => item.fill(u8::MAX),
            }
        }
    }

    /// Writes `data` to `port`, in items of `width` bytes. Nothing is written behind the guest's
    /// end.
    pub(crate) fn write(&self, port: u16, width: usize, data: &[u8]) -> PortWrite {
        for item in data.chunks(width.max(1)) {
            let done = match (port, item) {
                (COM1..=COM1_END, &[value]) => {
                    self.serial.set_register(port - COM1, value);
                    PortWrite::Done
                }
                (I8042_DATA, &[value]) => self.i8042.write_data(value),
                (I8042_COMMAND, &[value]) => self.i8042.write_command(value),
                (RTC_INDEX, &[value]) => {
                    self.rtc.select(value);
                    PortWrite::Done
                }
                (RESET_CONTROL, &[value]) if value & RESET_CPU != 0 => PortWrite::Reset,
                (SLEEP_CONTROL, &[value]) if power::is_power_off(value) => PortWrite::PowerOff,
                (PANIC, &[event]) if self.panic.tell(event) => {
                    PortWrite::Panic(PanicKind::Panicked)
                }
                _ => PortWrite::Done,
            };
            match done {
                PortWrite::Done => {}
                // A crash kernel ends so when it has written its dump.
                PortWrite::Reset | PortWrite::PowerOff if self.panic.crash_loaded() => {
                    return PortWrite::Panic(PanicKind::CrashLoaded);
                }
                end => return end,
            }
        }
        PortWrite::Done
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    fn ports() -> Ports {
        let interrupt = || EventFd::new(EFD_NONBLOCK).unwrap();
        let serial = SerialPort::new(interrupt()).unwrap();
        let interrupts = PortInterrupts {
            keyboard: interrupt(),
            events: interrupt(),
        };
        Ports::new(Arc::new(serial), interrupts)
    }

    #[test]
    fn a_string_instruction_writes_every_byte_to_the_same_port() {
        let ports = ports();
        ports.write(COM1, 1, b"string");
        assert_eq!(ports.serial.read(0, 100).bytes, b"string");
    }

    #[test]
    fn what_is_not_there_reads_as_all_ones_in_every_width() {
        for width in [1, 2, 4] {
            let mut data = [0; 8];
            ports().read(0x1234, width, &mut data);
            assert_eq!(data, [u8::MAX; 8]);
        }
    }

    #[test]
    fn the_reset_register_takes_bytes_and_a_pci_address_is_no_reset() {
        let ports = ports();
        assert_eq!(ports.write(RESET_CONTROL, 1, &[2]), PortWrite::Done);
        assert_eq!(ports.write(RESET_CONTROL, 1, &[6]), PortWrite::Reset);
        assert_eq!(ports.write(0xcf8, 4, &[0xff; 4]), PortWrite::Done);
        assert_eq!(ports.write(I8042_COMMAND, 2, &[0xfe, 0]), PortWrite::Done);
    }

    #[test]
    fn only_sleeping_as_s5_says_powers_off() {
        let ports = ports();
        let mut byte = [0xff];
        ports.read(SLEEP_STATUS, 1, &mut byte);
        assert_eq!(byte, [0]);
        for value in 0..=u8::MAX {
            let expected = match value & 0x3c {
                0x34 => PortWrite::PowerOff,
                _ => PortWrite::Done,
            };
            assert_eq!(ports.write(SLEEP_CONTROL, 1, &[value]), expected);
            assert_eq!(ports.write(SLEEP_STATUS, 1, &[value]), PortWrite::Done);
        }
        assert_eq!(
            ports.write(SLEEP_CONTROL, 2, &[0x34, 0x34]),
            PortWrite::Done
        );
    }

    #[test]
    fn a_panic_ends_the_guest_and_a_crash_kernel_is_waited_for() {
        let ports = ports();
        let mut byte = [0];
        ports.read(PANIC, 1, &mut byte);
        assert_eq!(byte, [3], "both events are understood");
        let panicked = PortWrite::Panic(PanicKind::Panicked);
        assert_eq!(ports.write(PANIC, 1, &[1]), panicked);
        assert_eq!(ports.write(PANIC, 1, &[0x80]), PortWrite::Done);
        assert_eq!(ports.write(PANIC, 1, &[2]), PortWrite::Done);
        let dumped = PortWrite::Panic(PanicKind::CrashLoaded);
        assert_eq!(ports.write(RESET_CONTROL, 1, &[RESET_NOW]), dumped);
        assert_eq!(ports.write(SLEEP_CONTROL, 1, &[0x34]), dumped);
    }

    #[test]
    fn the_power_button_is_read_once_from_the_event_register() {
        let ports = ports();
        ports.events().raise(crate::devices::events::POWER_BUTTON);
        let read = || {
            let mut byte = [0xff];
            ports.read(EVENTS, 1, &mut byte);
            byte[0]
        };
        assert_eq!((read(), read()), (1, 0));
    }
}
