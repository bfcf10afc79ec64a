//! What is known of a call that trapped: which trap, the message of the panic behind it, and the
//! functions that it was in.
//!
//! A panic's message is in one of two places. A component that imports `log` has written it there.
//! One without imports leaves a *panic note* in its memory, which outlives it: at an address
//! divisible by 8 the two words of [`MAGIC`], the length of the text as 32 bits, 32 bits of zeros,
//! and the text in UTF-8; all little-endian.

use wasmtime::{FrameInfo, Store, Trap, WasmCoreDump};

use crate::call::CallState;
use crate::text::clean;

/// The bytes `1-roostpnic:note`: unlikely in a memory by accident, and never there before a panic,
/// if it is written by code rather than laid out in the component's data.
const MAGIC: [u8; 16] = *b"1-roostpnic:note";
/// Longest text of a note, bytes.
const MAX_NOTE_BYTES: usize = 1024;
/// Memories that are searched: a component has its own and those of adapters.
const MAX_MEMORIES: usize = 8;
/// Longest name of a function, characters.
const MAX_FUNCTION_CHARS: usize = 80;
/// Functions that every panic ends in; they say nothing.
const PANICKING: [&str; 6] = [
    "core::panicking",
    "std::panicking",
    "std::sys",
    "__rust",
    "rust_begin_unwind",
    "rust_panic",
];

/// The trap's name in wasmtime, as names are written in JSON.
pub(crate) fn code_of(trap: Trap) -> String {
    let mut code = String::new();
    for c in format!("{trap:?}").chars() {
        if c.is_ascii_uppercase() && !code.is_empty() {
            code.push('-');
        }
        code.push(c.to_ascii_lowercase());
    }
    code
}

/// One sentence about a trap.
pub(crate) fn text_of(store: &Store<CallState>, trap: Trap, dump: Option<&WasmCoreDump>) -> String {
    let mut text = trap.to_string();
    let note = dump.and_then(|dump| note(store, dump));
    let said = store.data().access.last_error().map(str::to_owned);
    if let Some(said) = said.or(note) {
        text = format!("{text}; it said: {said}");
    }
    let names: Vec<String> = dump
        .map(WasmCoreDump::frames)
        .unwrap_or_default()
        .iter()
        .filter_map(FrameInfo::func_name)
        .filter(|name| !PANICKING.iter().any(|word| name.contains(word)))
        .map(|name| name.chars().take(MAX_FUNCTION_CHARS).collect())
        .collect();
    if !names.is_empty() {
        text = format!("{text}; in {}", names.join(" < "));
    }
    clean(&text)
}

fn note(store: &Store<CallState>, dump: &WasmCoreDump) -> Option<String> {
    let memories = dump.memories().iter().take(MAX_MEMORIES);
    memories
        .filter_map(|memory| note_in(memory.data(store)))
        .next()
}

fn note_in(memory: &[u8]) -> Option<String> {
    let words = memory.chunks_exact(8).enumerate();
    let begins = words.filter(|(_, word)| MAGIC.starts_with(word));
    begins
        .filter_map(|(index, _)| read_note(memory.get(index * 8..)?))
        .next()
}

/// The text of a note at the beginning of `bytes`.
fn read_note(bytes: &[u8]) -> Option<String> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (zeros, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if !(1..=MAX_NOTE_BYTES).contains(&length) || *zeros != [0; 4] {
        return None;
    }
    let text = clean(&String::from_utf8_lossy(rest.get(..length)?));
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory_with(at: usize, length: u32, text: &str) -> Vec<u8> {
        let mut memory = vec![0xaa; at];
        memory.extend(MAGIC);
        memory.extend(length.to_le_bytes());
        memory.extend([0; 4]);
        memory.extend(text.as_bytes());
        memory.resize(at + 2048, 0);
        memory
    }

    #[test]
    fn a_note_is_found_where_it_is_aligned_and_whole() {
        assert_eq!(
            note_in(&memory_with(64, 4, "oops")),
            Some("oops".to_owned())
        );
        assert_eq!(note_in(&memory_with(64, 2, "oops")), Some("oo".to_owned()));
        assert_eq!(note_in(&memory_with(60, 4, "oops")), None);
        assert_eq!(note_in(&memory_with(64, 0, "")), None);
        assert_eq!(note_in(&memory_with(64, 1025, "oops")), None);
        assert_eq!(note_in(&memory_with(64, u32::MAX, "oops")), None);
        let cut = memory_with(0, 100, "oops");
        assert_eq!(note_in(&cut[..40]), None);
        assert_eq!(note_in(&[]), None);
    }

    #[test]
    fn a_note_is_fit_for_a_terminal() {
        let note = note_in(&memory_with(8, 4, "a\x1b\nb"));
        assert_eq!(note.as_deref(), Some("a\u{fffd}\u{fffd}b"));
    }

    #[test]
    fn a_note_behind_a_broken_one_is_found() {
        let mut memory = memory_with(8, 0, "");
        memory.extend(memory_with(8, 3, "why"));
        assert_eq!(note_in(&memory).as_deref(), Some("why"));
    }
}
