//! Identifiers: a UUID of version 7 behind a prefix that names what it identifies.
//!
//! They are unique across nodes and sort by the time of their creation.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The text is not an identifier of the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id of the form {prefix}-<32 hexadecimal digits>")]
pub struct InvalidId {
    /// What was read, cut to 64 characters.
    pub text: String,
    /// The prefix that was expected.
    pub prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// The prefix of the textual form, without the dash.
            pub const PREFIX: &'static str = $prefix;

            /// The id whose 128 bits are `uuid`.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The 16 bytes of the UUID, most significant first: the key in the store.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}-{}", $prefix, self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.strip_prefix(concat!($prefix, "-"))
                    .filter(|hex| hex.len() == 32)
                    .and_then(|hex| Uuid::try_parse(hex).ok())
                    .map(Self)
                    .ok_or_else(|| InvalidId {
                        text: text.chars().take(64).collect(),
                        prefix: $prefix,
                    })
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }
    };
}

id!(
    /// Identifies a VM for as long as anything about it is kept.
    VmId,
    "vm"
);
id!(
    /// Identifies an operation: one verb on one VM.
    OperationId,
    "op"
);
id!(
    /// Identifies an incident.
    IncidentId,
    "inc"
);
id!(
    /// Identifies a cleanup task.
    CleanupId,
    "cl"
);
id!(
    /// Identifies an action-required record.
    ActionId,
    "act"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_text_and_refuses_other_prefixes() {
        let id = VmId::from_uuid(Uuid::from_u128(7));
        assert_eq!(id.to_string().parse::<VmId>(), Ok(id));
        assert!(id.to_string().parse::<OperationId>().is_err());
        assert!("vm-".parse::<VmId>().is_err());
        assert!(
            "vm-{00000000000000000000000000000007"
                .parse::<VmId>()
                .is_err()
        );
    }
}
