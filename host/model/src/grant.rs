//! What a plugin may import.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a plugin may ask of the host beyond its facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    /// Lines in the host's log.
    Log,
    /// VMs of the subject's tenant, and their history.
    Query,
    /// Durable values of its own.
    Kv,
    /// Standard WASI with nothing inside, for toolchains that insist on it.
    Wasi,
}

impl Grant {
    /// Every grant.
    pub const ALL: [Self; 4] = [Self::Log, Self::Query, Self::Kv, Self::Wasi];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Query => "query",
            Self::Kv => "kv",
            Self::Wasi => "wasi",
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no grant {0:?}; there are log, query, kv, wasi")]
pub struct UnknownGrant(pub String);

impl FromStr for Grant {
    type Err = UnknownGrant;

    fn from_str(text: &str) -> Result<Self, UnknownGrant> {
        Self::ALL
            .into_iter()
            .find(|grant| grant.name() == text)
            .ok_or_else(|| UnknownGrant(text.chars().take(64).collect()))
    }
}
