//! Finds the bundled policies, which `cargo xtask plugins` builds, and embeds them.

use std::path::Path;

/// The bundled policies and the hooks that they are bound to.
const BUNDLED: [&str; 4] = [
    "admission-limits",
    "billing-meter",
    "cleanup-backoff",
    "recovery-restart",
];

fn main() {
    // Read when it runs: a build script may be reused for a checkout that was moved.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let components = Path::new(&package).join("../../plugins/target/components");
    println!("cargo::rerun-if-changed={}", components.display());
    for name in BUNDLED {
        let component = components.join(format!("{name}.wasm"));
        println!("cargo::rerun-if-changed={}", component.display());
        if !component.exists() {
            println!(
                "cargo::error=the bundled policies are not built; run `cargo xtask plugins` first"
            );
            return;
        }
    }
}
