//! What kind of file a push is, by its first bytes: most mistakes are seen here, and get a better
//! answer than a parser's.

use crate::error::LoadError;

/// First bytes of a component: magic, version, layer (WebAssembly's Component Model, "Binary").
const COMPONENT: [u8; 8] = [b'\0', b'a', b's', b'm', 0x0d, 0, 1, 0];
/// First bytes of a core module (WebAssembly's core specification, "Modules" of the binary format).
const CORE_MODULE: [u8; 8] = [b'\0', b'a', b's', b'm', 1, 0, 0, 0];
/// First bytes of native code, which wasmtime's own artifacts also are (System V ABI, "ELF Header").
const ELF: [u8; 4] = [0x7f, b'E', b'L', b'F'];
/// How much is looked at to tell text from anything else.
const TEXT_SAMPLE_BYTES: usize = 256;

/// Refuses whatever is not a component at first sight.
pub(crate) fn check_magic(bytes: &[u8]) -> Result<(), LoadError> {
    if bytes.starts_with(&COMPONENT) {
        return Ok(());
    }
    if bytes.starts_with(&ELF) {
        return Err(LoadError::Precompiled);
    }
    Err(LoadError::NotAComponent(if bytes.is_empty() {
        "empty"
    } else if bytes.starts_with(&CORE_MODULE) {
        "a core module, which wasm-component-ld or `wasm-tools component new` makes a component of"
    } else if is_text(bytes) {
        "text"
    } else {
        "something else"
    }))
}

fn is_text(bytes: &[u8]) -> bool {
    let sample = bytes.get(..TEXT_SAMPLE_BYTES).unwrap_or(bytes);
    let text = match std::str::from_utf8(sample) {
        Ok(text) => text,
        // The sample may end within a character.
        Err(error) if error.error_len().is_none() => {
            let whole = sample.get(..error.valid_up_to()).unwrap_or_default();
            std::str::from_utf8(whole).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.is_empty() && !text.chars().any(|c| c.is_control() && !c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said_of(bytes: &[u8]) -> String {
        check_magic(bytes).unwrap_err().to_string()
    }

    #[test]
    fn each_kind_of_file_is_called_by_its_name() {
        assert!(said_of(b"").starts_with("it is empty"));
        assert!(said_of(b"(component)\n").starts_with("it is text"));
        assert!(said_of("é".repeat(1000).as_bytes()).starts_with("it is text"));
        assert!(said_of(b"\0asm\x01\0\0\0").starts_with("it is a core module"));
        assert!(said_of(b"\x7fELF\x02\x01\x01\0").contains("native code"));
        for other in [
            &b"\0as"[..],
            b"\0\0\0\0",
            b"\xff\xfe\xfd",
            b"\0asm\x0e\0\x01\0",
        ] {
            assert!(
                said_of(other).starts_with("it is something else"),
                "{other:?}"
            );
        }
        assert!(check_magic(&COMPONENT).is_ok());
    }
}
