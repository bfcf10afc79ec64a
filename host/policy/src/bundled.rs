//! The policies that come with the binary: ordinary components.

use roost_model::Hook;

/// A bundled policy.
#[derive(Debug, Clone, Copy)]
pub struct Bundled {
    /// The plugin's name.
    pub name: &'static str,
    /// The hook that it is bound to.
    pub hook: Hook,
    /// The component.
    pub bytes: &'static [u8],
}

macro_rules! component {
    ($name:literal) => {
        include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../plugins/target/components/",
            $name,
            ".wasm"
        ))
    };
}

/// The bundled policies.
#[must_use]
pub fn bundled() -> &'static [Bundled] {
    const BUNDLED: &[Bundled] = &[
        Bundled {
            name: "admission-limits",
            hook: Hook::Admission,
            bytes: component!("admission-limits"),
        },
        Bundled {
            name: "cleanup-backoff",
            hook: Hook::Cleanup,
            bytes: component!("cleanup-backoff"),
        },
        Bundled {
            name: "recovery-restart",
            hook: Hook::Recovery,
            bytes: component!("recovery-restart"),
        },
        Bundled {
            name: "billing-meter",
            hook: Hook::Billing,
            bytes: component!("billing-meter"),
        },
    ];
    BUNDLED
}
