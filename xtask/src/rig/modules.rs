//! Kernel modules and what they depend on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A module, ready to be loaded.
pub(crate) struct Module {
    /// Its name, with underscores.
    pub(crate) name: String,
    /// Its uncompressed content.
    pub(crate) content: Vec<u8>,
}

/// `wanted` and everything that they depend on, in the order in which they can be loaded.
///
/// The package has no `modules.dep`, which is made when it is installed; each module names its
/// dependencies itself.
pub(crate) fn load_order(folder: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    find(folder, &mut files)?;
    let mut ordered = Vec::new();
    for name in wanted {
        add(name, &files, &mut ordered)?;
    }
    Ok(ordered)
}

fn find(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), files)?;
        } else if let Some((name, "ko" | "ko.xz")) =
            entry.file_name().to_string_lossy().split_once('.')
        {
            files.insert(name.replace('-', "_"), entry.path());
        }
    }
    Ok(())
}

fn add(name: &str, files: &BTreeMap<String, PathBuf>, ordered: &mut Vec<Module>) -> Result<()> {
    let name = name.replace('-', "_");
    if ordered.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let path = files
        .get(&name)
        .with_context(|| format!("the kernel package has no module {name}"))?;
    let content = read(path)?;
    for dependency in depends(&content) {
        add(&dependency, files, ordered)?;
    }
    ordered.push(Module { name, content });
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension() != Some("xz".as_ref()) {
        return fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let output = Command::new("xz")
        .arg("-dc")
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .context("cannot run xz")?;
    if !output.status.success() {
        bail!("xz cannot unpack {}", path.display());
    }
    Ok(output.stdout)
}

/// The `depends` entry of the `.modinfo` section: zero-terminated, names separated by commas.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next();
    String::from_utf8_lossy(value.unwrap_or_default())
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_after_what_it_depends_on() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("kvm-amd.ko", &b"\0depends=kvm,ccp\0"[..]),
            ("kvm.ko", b"\0depends=irqbypass\0"),
            ("irqbypass.ko", b"\0depends=\0"),
            ("ccp.ko", b"no information"),
        ] {
            fs::write(folder.path().join(name), content).unwrap();
        }
        let order = load_order(folder.path(), &["kvm-amd"]).unwrap();
        let names: Vec<_> = order.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["irqbypass", "kvm", "ccp", "kvm_amd"]);
    }
}
