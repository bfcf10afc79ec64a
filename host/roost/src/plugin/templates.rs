//! The templates of `roost plugin new`: the repository's examples, the SDK and the contract, and
//! what a project has around them.

use include_dir::{Dir, include_dir};

use super::new::Hook;

/// An example in Rust that is a template.
pub(super) struct Example {
    pub(super) hook: Hook,
    /// Its name, and that of its type: what a project calls otherwise.
    pub(super) name: &'static str,
    pub(super) type_name: &'static str,
    pub(super) source: Dir<'static>,
    pub(super) fixtures: Dir<'static>,
}

pub(super) static WIT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../wit");
pub(super) static SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../plugins/sdk/src");
pub(super) static EXAMPLES: [Example; 4] = [
    Example {
        hook: Hook::Recovery,
        name: "night-watch",
        type_name: "NightWatch",
        source: include_dir!("$CARGO_MANIFEST_DIR/../../examples/plugins/night-watch/rust/src"),
        fixtures: include_dir!("$CARGO_MANIFEST_DIR/../../examples/plugins/night-watch/fixtures"),
    },
    Example {
        hook: Hook::Admission,
        name: "maintenance-window",
        type_name: "Maintenance",
        source: include_dir!("$CARGO_MANIFEST_DIR/../../examples/plugins/maintenance-window/src"),
        fixtures: include_dir!(
            "$CARGO_MANIFEST_DIR/../../examples/plugins/maintenance-window/fixtures"
        ),
    },
    Example {
        hook: Hook::Cleanup,
        name: "cleanup-escalate",
        type_name: "Escalate",
        source: include_dir!("$CARGO_MANIFEST_DIR/../../examples/plugins/cleanup-escalate/src"),
        fixtures: include_dir!(
            "$CARGO_MANIFEST_DIR/../../examples/plugins/cleanup-escalate/fixtures"
        ),
    },
    Example {
        hook: Hook::Billing,
        name: "billing-tiers",
        type_name: "Tiers",
        source: include_dir!("$CARGO_MANIFEST_DIR/../../examples/plugins/billing-tiers/src"),
        fixtures: include_dir!("$CARGO_MANIFEST_DIR/../../examples/plugins/billing-tiers/fixtures"),
    },
];

macro_rules! repository {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../", $path))
    };
}
pub(super) const SDK_MANIFEST: &str = repository!("plugins/sdk/Cargo.toml");
pub(super) const JS: &str = repository!("examples/plugins/night-watch/js/policy.js");
pub(super) const PYTHON: &str = repository!("examples/plugins/night-watch/python/policy.py");
pub(super) const C: &str = repository!("examples/plugins/night-watch/c/policy.c");
pub(super) const CARGO_MANIFEST: &str = include_str!("templates/rust/Cargo.toml");
pub(super) const CARGO_CONFIG: &str = include_str!("templates/rust/config.toml");
pub(super) const PACKAGE: &str = include_str!("templates/js/package.json");
pub(super) const REQUIREMENTS: &str = include_str!("templates/python/requirements.txt");

pub(super) const README: &str = include_str!("templates/README.md");

/// The files of a template that are text, with their paths in it.
pub(super) fn texts<'a>(dir: &'a Dir<'a>) -> Vec<(String, &'a str)> {
    let mut texts = Vec::new();
    let mut rest = vec![dir];
    while let Some(dir) = rest.pop() {
        rest.extend(dir.dirs());
        for file in dir.files() {
            if let Some(text) = file.contents_utf8() {
                texts.push((file.path().display().to_string(), text));
            }
        }
    }
    texts.sort();
    texts
}
