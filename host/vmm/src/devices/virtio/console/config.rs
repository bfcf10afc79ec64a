//! What a console is made of.

use std::io;

use serde::{Deserialize, Serialize};

use super::MAX_PORTS;

/// Most bytes of a port's name.
const MAX_NAME_BYTES: usize = 64;

/// The size of a terminal, characters. Zero: not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleSize {
    /// In a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

impl Default for ConsoleSize {
    /// A VT100's.
    fn default() -> Self {
        Self {
            columns: 80,
            rows: 24,
        }
    }
}

/// A console. Port 0, the terminal, is always there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsoleConfig {
    /// The terminal's size at first.
    pub size: ConsoleSize,
    /// Names of ports 1 to 3, as many as there are. A Linux guest finds them as
    /// `/dev/virtio-ports/<name>`.
    pub ports: Vec<String>,
}

/// Why there can't be such a console.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleConfigError {
    /// Too many ports.
    #[error("{0} ports beside the terminal; {max} can be made", max = MAX_PORTS - 1)]
    TooMany(usize),
    /// It can't be a name of a file.
    #[error(
        "{0:?} can't be a port's name: 1 to {MAX_NAME_BYTES} bytes, no slash, no control \
         characters, and not . or .. can"
    )]
    Name(String),
    /// Two ports have it.
    #[error("two ports have the name {0:?}")]
    SameName(String),
    /// The host refused something.
    #[error("an eventfd or a timer for it: {0}")]
    Host(#[from] io::Error),
}

impl ConsoleConfig {
    pub(super) fn check(&self) -> Result<(), ConsoleConfigError> {
        if self.ports.len() >= MAX_PORTS {
            return Err(ConsoleConfigError::TooMany(self.ports.len()));
        }
        for (n, name) in self.ports.iter().enumerate() {
            let is_name = (1..=MAX_NAME_BYTES).contains(&name.len())
                && !name.contains(|c: char| c == '/' || c.is_control())
                && name != "."
                && name != "..";
            if !is_name {
                return Err(ConsoleConfigError::Name(name.clone()));
            }
            if self.ports.iter().skip(n + 1).any(|other| other == name) {
                return Err(ConsoleConfigError::SameName(name.clone()));
            }
        }
        Ok(())
    }
}
