//! A PS/2 keyboard that answers its driver and can type one thing: Ctrl-Alt-Delete.
//!
//! Commands, answers and scan codes (set 2, the set of a keyboard after a reset) are those of IBM's
//! PS/2 technical reference, "Keyboards".

use std::collections::VecDeque;

/// Bytes that wait to be read: a real keyboard keeps 16 of what was typed.
const QUEUE_BYTES: usize = 32;

const SET_LEDS: u8 = 0xed;
const ECHO: u8 = 0xee;
const SCAN_CODE_SET: u8 = 0xf0;
const READ_ID: u8 = 0xf2;
const SET_RATE: u8 = 0xf3;
const ENABLE: u8 = 0xf4;
const DISABLE: u8 = 0xf5;
const SET_DEFAULTS: u8 = 0xf6;
const RESET: u8 = 0xff;

const ACKNOWLEDGE: u8 = 0xfa;
const PASSED: u8 = 0xaa;
/// "Send that again": the answer to what is not understood.
const RESEND: u8 = 0xfe;
const ID: [u8; 2] = [0xab, 0x83];
/// The only set there is.
const SET_2: u8 = 2;

/// Before the code of a key that is released.
const RELEASE: u8 = 0xf0;
/// Left Ctrl, left Alt, and the two bytes of Delete: pressed, then released.
const CTRL_ALT_DELETE: [u8; 11] = [
    0x14, 0x11, 0xe0, 0x71, 0xe0, RELEASE, 0x71, RELEASE, 0x11, RELEASE, 0x14,
];

pub(super) struct Keyboard {
    queue: VecDeque<u8>,
    /// A command that waits for its parameter.
    command: Option<u8>,
    /// Whether keys are reported.
    scanning: bool,
}

impl Default for Keyboard {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            command: None,
            scanning: true,
        }
    }
}

impl Keyboard {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The next byte, as the controller's translation to set 1 leaves it if `translated`.
    pub(super) fn read(&mut self, translated: bool) -> Option<u8> {
        let byte = self.queue.pop_front()?;
        if !translated {
            return Some(byte);
        }
        match byte {
            RELEASE => self.queue.pop_front().map(|key| translate(key) | 0x80),
            byte => Some(translate(byte)),
        }
    }

    /// Queues `bytes` if there is room for all of them.
    fn send(&mut self, bytes: &[u8]) {
        if self.queue.len() + bytes.len() <= QUEUE_BYTES {
            self.queue.extend(bytes);
        }
    }

    /// Presses Ctrl, Alt and Delete and lets them go. Without effect where the driver has switched
    /// the keyboard off or reads nothing.
    pub(super) fn ctrl_alt_delete(&mut self) {
        if self.scanning {
            self.send(&CTRL_ALT_DELETE);
        }
    }

    /// Takes a byte from the driver: a command, or the parameter of one.
    pub(super) fn write(&mut self, byte: u8) {
        match (self.command.take(), byte) {
            (Some(SCAN_CODE_SET), 0) => self.send(&[ACKNOWLEDGE, SET_2]),
            (Some(SCAN_CODE_SET), SET_2) | (Some(SET_LEDS | SET_RATE), _) => {
                self.send(&[ACKNOWLEDGE]);
            }
            (None, SET_LEDS | SET_RATE | SCAN_CODE_SET) => {
                self.command = Some(byte);
                self.send(&[ACKNOWLEDGE]);
            }
            (None, ECHO) => self.send(&[ECHO]),
            (None, READ_ID) => self.send(&[ACKNOWLEDGE, ID[0], ID[1]]),
            (None, ENABLE | SET_DEFAULTS) => {
                self.scanning = true;
                self.send(&[ACKNOWLEDGE]);
            }
            (None, DISABLE) => {
                self.scanning = false;
                self.send(&[ACKNOWLEDGE]);
            }
            (None, RESET) => {
                *self = Self::default();
                self.send(&[ACKNOWLEDGE, PASSED]);
            }
            _ => self.send(&[RESEND]),
        }
    }
}

/// Set 2 to set 1, as far as this keyboard sends it; the rest is the same in both.
fn translate(code: u8) -> u8 {
    match code {
        0x14 => 0x1d,
        0x11 => 0x38,
        0x71 => 0x53,
        0x83 => 0x41,
        code => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(keyboard: &mut Keyboard, bytes: &[u8], translated: bool) -> Vec<u8> {
        for byte in bytes {
            keyboard.write(*byte);
        }
        std::iter::from_fn(|| keyboard.read(translated)).collect()
    }

    #[test]
    fn a_driver_that_looks_for_a_keyboard_finds_one() {
        let mut keyboard = Keyboard::default();
        assert_eq!(
            answers(&mut keyboard, &[READ_ID], false),
            [ACKNOWLEDGE, 0xab, 0x83]
        );
        assert_eq!(
            answers(&mut keyboard, &[READ_ID], true),
            [ACKNOWLEDGE, 0xab, 0x41]
        );
        assert_eq!(
            answers(&mut keyboard, &[RESET], true),
            [ACKNOWLEDGE, PASSED]
        );
        let settings = [SET_LEDS, 7, SET_RATE, 0, SCAN_CODE_SET, 2, ENABLE];
        assert_eq!(answers(&mut keyboard, &settings, true), [ACKNOWLEDGE; 7]);
        assert_eq!(
            answers(&mut keyboard, &[SCAN_CODE_SET, 0], false),
            [ACKNOWLEDGE, ACKNOWLEDGE, 2]
        );
        assert_eq!(answers(&mut keyboard, &[ECHO, 0x12], true), [ECHO, RESEND]);
        let unknown = [SCAN_CODE_SET, 3];
        assert_eq!(
            answers(&mut keyboard, &unknown, true),
            [ACKNOWLEDGE, RESEND]
        );
    }

    #[test]
    fn ctrl_alt_delete_is_typed_in_both_sets_and_every_key_is_let_go() {
        let mut keyboard = Keyboard::default();
        keyboard.ctrl_alt_delete();
        assert_eq!(
            answers(&mut keyboard, &[], true),
            [0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d]
        );
        keyboard.ctrl_alt_delete();
        assert_eq!(answers(&mut keyboard, &[], false), CTRL_ALT_DELETE);
    }

    #[test]
    fn nothing_is_typed_on_a_keyboard_that_is_off_and_what_nobody_reads_is_bounded() {
        let mut keyboard = Keyboard::default();
        answers(&mut keyboard, &[DISABLE], true);
        keyboard.ctrl_alt_delete();
        assert!(keyboard.is_empty());
        keyboard.write(ENABLE);
        for _ in 0..1000 {
            keyboard.ctrl_alt_delete();
            keyboard.write(READ_ID);
        }
        assert!(keyboard.queue.len() <= QUEUE_BYTES);
    }
}
