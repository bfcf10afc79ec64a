//! Text from a plugin, made fit for logs and terminals.

/// Longest text from a plugin that is kept, characters.
pub(crate) const MAX_CHARS: usize = 1024;

/// `text` without control characters and no longer than [`MAX_CHARS`].
///
/// What changes the direction or the lines of the text around it goes too: such as that can make
/// a log say something else than it does (Unicode's Bidirectional Algorithm, 2).
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if is_fit(c) { c } else { '\u{fffd}' })
        .take(MAX_CHARS)
        .collect()
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_fit(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{061c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_a_cursor_or_turns_text_around_is_left() {
        assert_eq!(
            clean("a\x1b[2J\r\nb\u{202e}c\u{2028}"),
            "a\u{fffd}[2J\u{fffd}\u{fffd}b\u{fffd}c\u{fffd}"
        );
        assert_eq!(clean("déjà vu ✓"), "déjà vu ✓");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(clean(&"é".repeat(5000)), "é".repeat(MAX_CHARS));
    }
}
