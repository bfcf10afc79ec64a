//! Licences and duplicates of everything that is compiled, offline, from `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use spdx::{Expression, LicenseReq, ParseMode};

use crate::{fuzz, process, workspace};

/// Licences that go with Apache-2.0 without asking anyone.
const ALLOWED: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    // libFuzzer, which is compiled into fuzz targets only.
    "NCSA",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates whose types cross from one of our crates to another, or that hold process-wide state:
/// two versions of them compile but do not work together.
const SINGLE: [&str; 14] = [
    "axum",
    "http",
    "hyper",
    "kvm-bindings",
    "kvm-ioctls",
    "redb",
    "rustix",
    "serde",
    "tokio",
    "tracing-core",
    "vm-memory",
    "vm-superio",
    "vmm-sys-util",
    "wasmtime",
];

/// The one platform that Roost is built for; what others would need is not compiled.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Checks every workspace.
///
/// # Errors
/// A package has a licence that is not allowed, or a crate that must be single is not.
pub(crate) fn check() -> Result<()> {
    for folder in [
        workspace::root().to_owned(),
        workspace::root().join("plugins"),
        fuzz::folder(),
    ] {
        check_workspace(&folder)?;
    }
    Ok(())
}

fn check_workspace(folder: &Path) -> Result<()> {
    // --locked: a lock file that does not match the manifests is an error too.
    let text = process::output(
        workspace::cargo()
            .args(["metadata", "--format-version=1", "--locked"])
            .args(["--filter-platform", PLATFORM])
            .current_dir(folder),
    )?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata has no packages")?;

    let mut problems = Vec::new();
    let mut versions = BTreeMap::<&str, BTreeSet<&str>>::new();
    for package in packages {
        let (Some(name), Some(version)) = (package["name"].as_str(), package["version"].as_str())
        else {
            bail!("cargo metadata has a package without a name or a version");
        };
        versions.entry(name).or_default().insert(version);
        match package["license"].as_str() {
            Some(licence) if is_allowed(licence)? => {}
            Some(licence) => problems.push(format!("{name} {version} is under {licence}")),
            None => problems.push(format!("{name} {version} names no licence")),
        }
    }
    versions.retain(|_, versions| versions.len() > 1);
    for (name, versions) in &versions {
        let list = versions.iter().copied().collect::<Vec<_>>().join(", ");
        if SINGLE.contains(name) {
            problems.push(format!(
                "{name} must be there once, and is in versions {list}"
            ));
        } else {
            println!("note: {name} is there in versions {list}");
        }
    }
    println!("{}: {} packages", folder.display(), packages.len());
    if !problems.is_empty() {
        bail!("{}", problems.join("; "));
    }
    Ok(())
}

/// Whether an SPDX expression can be met by allowed licences alone.
fn is_allowed(licence: &str) -> Result<bool> {
    // Lax, because older crates write "MIT/Apache-2.0".
    let expression = Expression::parse_mode(licence, ParseMode::LAX)
        .with_context(|| format!("{licence:?} is no SPDX expression"))?;
    Ok(expression
        .evaluate(|requirement: &LicenseReq| ALLOWED.contains(&requirement.to_string().as_str())))
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn an_expression_is_allowed_if_one_choice_of_it_is() {
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0-only OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(is_allowed(good).unwrap(), "{good}");
        }
        for bad in ["GPL-3.0-only", "MIT AND GPL-2.0-only", "MPL-2.0"] {
            assert!(!is_allowed(bad).unwrap(), "{bad}");
        }
        assert!(is_allowed("whatever").is_err());
    }
}
