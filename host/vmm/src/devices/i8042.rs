//! A keyboard controller with a keyboard and no mouse, which can reset the machine.
//!
//! It answers every command that a kernel waits on while it looks for a keyboard and a mouse: one
//! that is not answered costs the guest half a second of polling. Commands and bits are those of
//! IBM's PS/2 technical reference, "Keyboard and auxiliary device controller".

use std::sync::{Mutex, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use super::PortWrite;
use super::keyboard::Keyboard;

/// Status: the output buffer holds a byte.
const OUTPUT_FULL: u8 = 1 << 0;
/// Status: the self-test has passed; the keyboard is not locked.
const READY: u8 = 1 << 2 | 1 << 4;

const READ_CONTROL: u8 = 0x20;
const WRITE_CONTROL: u8 = 0x60;
const DISABLE_MOUSE: u8 = 0xa7;
const ENABLE_MOUSE: u8 = 0xa8;
const TEST_MOUSE: u8 = 0xa9;
const TEST_SELF: u8 = 0xaa;
const TEST_KEYBOARD: u8 = 0xab;
const DISABLE_KEYBOARD: u8 = 0xad;
const ENABLE_KEYBOARD: u8 = 0xae;
const READ_OUTPUT_PORT: u8 = 0xd0;
const WRITE_OUTPUT_PORT: u8 = 0xd1;
const LOOP_MOUSE: u8 = 0xd3;
const WRITE_MOUSE: u8 = 0xd4;
/// Pulses the reset line.
const RESET: u8 = 0xfe;

/// Output port: the reset line, which is active when low, and the A20 gate.
const NOT_RESET: u8 = 1 << 0;
/// See [`NOT_RESET`].
const A20: u8 = 1 << 1;
/// Control byte: the keyboard's bytes raise its interrupt.
const KEYBOARD_INTERRUPT: u8 = 1 << 0;
/// Control byte: the machine has started.
const SYSTEM: u8 = 1 << 2;
/// Control byte: scan codes are translated from set 2 to set 1.
const TRANSLATE: u8 = 1 << 6;
/// Control byte: the keyboard's, the mouse's clock is off.
const KEYBOARD_OFF: u8 = 1 << 4;
/// See [`KEYBOARD_OFF`].
const MOUSE_OFF: u8 = 1 << 5;
/// Answers to the tests: passed; and, for the mouse, that its clock line is stuck.
const SELF_PASSED: u8 = 0x55;
/// See [`SELF_PASSED`].
const KEYBOARD_PASSED: u8 = 0;
/// See [`SELF_PASSED`].
const MOUSE_FAILED: u8 = 1;

pub(super) struct I8042 {
    state: Mutex<State>,
    interrupt: EventFd,
}

struct State {
    /// The controller's own answer, which is read before what the keyboard sends.
    answer: Option<u8>,
    control: u8,
    /// A command that waits for its parameter on the data port.
    command: Option<u8>,
    keyboard: Keyboard,
}

impl State {
    /// Whether the keyboard has a byte that may be sent.
    fn keyboard_sends(&self) -> bool {
        self.control & KEYBOARD_OFF == 0 && !self.keyboard.is_empty()
    }
}

impl I8042 {
    /// A controller as firmware leaves it, whose keyboard raises its interrupt through `interrupt`.
    pub(super) fn new(interrupt: EventFd) -> Self {
        let state = State {
            answer: None,
            control: SYSTEM | TRANSLATE | MOUSE_OFF,
            command: None,
            keyboard: Keyboard::default(),
        };
        Self {
            state: Mutex::new(state),
            interrupt,
        }
    }

    /// Does something, then raises the interrupt if that let the keyboard send its next byte.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> (T, Next)) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.keyboard_sends();
        let (result, next) = act(&mut state);
        let is_new = !before || next == Next::Byte;
        if is_new && state.keyboard_sends() && state.control & KEYBOARD_INTERRUPT != 0 {
            // It can fail only when the counter is full, and then the interrupt is on its way.
            let _ = self.interrupt.write(1);
        }
        result
    }

    /// Types Ctrl-Alt-Delete.
    pub(super) fn ctrl_alt_delete(&self) {
        self.with(|state| (state.keyboard.ctrl_alt_delete(), Next::Same));
    }

    pub(super) fn status(&self) -> u8 {
        self.with(|state| {
            let full = state.answer.is_some() || state.keyboard_sends();
            let full = if full { OUTPUT_FULL } else { 0 };
            (READY | full, Next::Same)
        })
    }

    pub(super) fn data(&self) -> u8 {
        self.with(|state| {
            if let Some(answer) = state.answer.take() {
                return (answer, Next::Same);
            }
            if !state.keyboard_sends() {
                return (0, Next::Same);
            }
            let translated = state.control & TRANSLATE != 0;
            (state.keyboard.read(translated).unwrap_or(0), Next::Byte)
        })
    }

    pub(super) fn write_command(&self, command: u8) -> PortWrite {
        self.with(|state| {
            state.command = None;
            match command {
                RESET => return (PortWrite::Reset, Next::Same),
                WRITE_CONTROL | WRITE_OUTPUT_PORT | LOOP_MOUSE | WRITE_MOUSE => {
                    state.command = Some(command);
                }
                READ_CONTROL => state.answer = Some(state.control),
                READ_OUTPUT_PORT => state.answer = Some(NOT_RESET | A20),
                TEST_SELF => state.answer = Some(SELF_PASSED),
                TEST_KEYBOARD => state.answer = Some(KEYBOARD_PASSED),
                TEST_MOUSE => state.answer = Some(MOUSE_FAILED),
                DISABLE_KEYBOARD => state.control |= KEYBOARD_OFF,
                ENABLE_KEYBOARD => state.control &= !KEYBOARD_OFF,
                DISABLE_MOUSE => state.control |= MOUSE_OFF,
                ENABLE_MOUSE => state.control &= !MOUSE_OFF,
                _ => {}
            }
            (PortWrite::Done, Next::Same)
        })
    }

    pub(super) fn write_data(&self, value: u8) -> PortWrite {
        self.with(|state| {
            match state.command.take() {
                // What came while the interrupt was off is announced when it goes on.
                Some(WRITE_CONTROL) => {
                    state.control = value;
                    return (PortWrite::Done, Next::Byte);
                }
                Some(WRITE_OUTPUT_PORT) if value & NOT_RESET == 0 => {
                    return (PortWrite::Reset, Next::Same);
                }
                // It comes back, but not marked as the mouse's: there is none.
                Some(LOOP_MOUSE) => state.answer = Some(value),
                // What is meant for a mouse reaches nobody.
                Some(_) => {}
                None => {
                    // Talking to the keyboard switches its clock on.
                    state.control &= !KEYBOARD_OFF;
                    state.keyboard.write(value);
                }
            }
            (PortWrite::Done, Next::Same)
        })
    }
}

/// Whether the byte that the keyboard sends, if it does, is another than before.
#[derive(PartialEq, Eq)]
enum Next {
    Same,
    Byte,
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    fn controller() -> (I8042, EventFd) {
        let interrupt = EventFd::new(EFD_NONBLOCK).unwrap();
        (I8042::new(interrupt.try_clone().unwrap()), interrupt)
    }

    #[test]
    fn what_a_kernel_asks_while_it_probes_is_answered_at_once() {
        let (controller, interrupt) = controller();
        assert_eq!(controller.status() & OUTPUT_FULL, 0);
        for (command, answer) in [
            (TEST_SELF, SELF_PASSED),
            (TEST_KEYBOARD, KEYBOARD_PASSED),
            (TEST_MOUSE, MOUSE_FAILED),
            (READ_CONTROL, SYSTEM | TRANSLATE | MOUSE_OFF),
        ] {
            assert_eq!(controller.write_command(command), PortWrite::Done);
            assert_eq!(controller.status() & OUTPUT_FULL, OUTPUT_FULL);
            assert_eq!(controller.data(), answer, "{command:#x}");
            assert_eq!(controller.status() & OUTPUT_FULL, 0, "it was read");
        }
        assert!(interrupt.read().is_err(), "none of it raises an interrupt");
    }

    #[test]
    fn the_control_byte_reads_back_as_written_with_the_clocks_that_were_switched() {
        let (controller, _) = controller();
        controller.write_command(WRITE_CONTROL);
        controller.write_data(0x03);
        controller.write_command(DISABLE_KEYBOARD);
        controller.write_command(READ_CONTROL);
        assert_eq!(controller.data(), 0x03 | KEYBOARD_OFF);
    }

    #[test]
    fn both_ways_to_pull_the_reset_line_reset_and_data_alone_does_not() {
        let (controller, _) = controller();
        assert_eq!(controller.write_data(RESET), PortWrite::Done);
        assert_eq!(controller.write_command(RESET), PortWrite::Reset);
        controller.write_command(WRITE_OUTPUT_PORT);
        assert_eq!(controller.write_data(NOT_RESET | A20), PortWrite::Done);
        controller.write_command(WRITE_OUTPUT_PORT);
        assert_eq!(controller.write_data(A20), PortWrite::Reset);
    }

    #[test]
    fn each_byte_that_is_typed_raises_the_interrupt_once() {
        let (controller, interrupt) = controller();
        controller.write_command(WRITE_CONTROL);
        controller.write_data(KEYBOARD_INTERRUPT | TRANSLATE);
        controller.ctrl_alt_delete();
        let mut typed = Vec::new();
        while controller.status() & OUTPUT_FULL != 0 {
            assert_eq!(interrupt.read().unwrap(), 1, "after {typed:x?}");
            typed.push(controller.data());
        }
        assert_eq!(typed, [0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d]);
        assert!(interrupt.read().is_err());
    }

    #[test]
    fn what_was_typed_too_early_is_announced_when_the_driver_is_ready() {
        let (controller, interrupt) = controller();
        controller.write_command(DISABLE_KEYBOARD);
        controller.ctrl_alt_delete();
        assert_eq!(controller.status() & OUTPUT_FULL, 0);
        assert_eq!(controller.data(), 0);
        controller.write_command(WRITE_CONTROL);
        controller.write_data(KEYBOARD_INTERRUPT);
        assert_eq!(interrupt.read().unwrap(), 1);
        assert_eq!(controller.data(), 0x14, "not translated any more");
    }
}
