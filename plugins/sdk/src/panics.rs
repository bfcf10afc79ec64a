//! What a panic says reaches the operator.
//!
//! A component that panics traps, and a trapped instance answers no more questions. So the message
//! is left in its memory as a *note*, which the host looks for there: two words that mark it, the
//! length of the text in bytes, and the text, at an address that 8 divides.

use std::hint::black_box;
use std::panic::{self, PanicHookInfo};

/// Marks of a note, complemented: the marks themselves stand in memory only once there is a note.
const NOT_MARKS: [u64; 2] = [!0x7074_736f_6f72_2d31, !0x6574_6f6e_3a63_696e];
/// Longest text, bytes.
const MAX_BYTES: usize = 1024;

/// Has panics leave notes from now on. In a native test they are printed as ever.
pub(crate) fn leave_notes() {
    if cfg!(target_arch = "wasm32") {
        panic::set_hook(Box::new(|panic| {
            black_box(Box::leak(note(&text(panic))));
        }));
    }
}

fn text(panic: &PanicHookInfo<'_>) -> String {
    let message = panic
        .payload_as_str()
        .unwrap_or("a panic without a message");
    match panic.location() {
        Some(at) => format!("{message} ({}:{})", at.file(), at.line()),
        None => message.to_owned(),
    }
}

fn note(text: &str) -> Box<[u64]> {
    let text = &text.as_bytes()[..text.floor_char_boundary(MAX_BYTES)];
    let mut words: Vec<u64> = NOT_MARKS.iter().map(|mark| !black_box(*mark)).collect();
    words.push(text.len() as u64);
    words.extend(text.chunks(8).map(|bytes| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    }));
    words.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(note: &[u64]) -> Vec<u8> {
        note.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn a_note_is_marked_and_says_how_long_it_is() {
        let note = bytes(&note("no such price"));
        assert_eq!(&note[..16], b"1-roostpnic:note");
        assert_eq!(note[16..24], 13_u64.to_le_bytes());
        assert_eq!(&note[24..37], b"no such price");
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let long = note(&"é".repeat(600));
        assert_eq!(long[2], 1024);
        let odd = note(&format!("x{}", "é".repeat(600)));
        assert_eq!(odd[2], 1023);
    }
}
