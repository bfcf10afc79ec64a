//! What there is to decide.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A decision that a plugin can make: an interface of `roost:policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Hook {
    Admission,
    Cleanup,
    Recovery,
    Billing,
    Observer,
}

impl Hook {
    /// Every hook.
    pub const ALL: [Self; 5] = [
        Self::Admission,
        Self::Cleanup,
        Self::Recovery,
        Self::Billing,
        Self::Observer,
    ];

    /// The name of the interface in `roost:policy`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Cleanup => "cleanup",
            Self::Recovery => "recovery",
            Self::Billing => "billing",
            Self::Observer => "observer",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no hook.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no hook {0:?}; there are admission, cleanup, recovery, billing, observer")]
pub struct UnknownHook(pub String);

impl FromStr for Hook {
    type Err = UnknownHook;

    fn from_str(text: &str) -> Result<Self, UnknownHook> {
        Self::ALL
            .into_iter()
            .find(|hook| hook.name() == text)
            .ok_or_else(|| UnknownHook(text.chars().take(64).collect()))
    }
}
