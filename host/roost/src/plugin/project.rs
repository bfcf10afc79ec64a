//! The folder of a plugin: `plugin.json` says what it is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The file that makes a folder a project.
pub(super) const MANIFEST: &str = "plugin.json";

/// What a policy is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Language {
    /// With the SDK; needs cargo
    Rust,
    /// Needs Node.js
    Js,
    /// Needs Python 3.10 or newer
    Python,
    /// Needs zig or clang
    C,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) name: String,
    pub(super) language: Language,
    /// The world of `roost:policy` in `wit/`.
    pub(super) world: String,
}

pub(super) struct Project {
    pub(super) folder: PathBuf,
    pub(super) manifest: Manifest,
}

impl Project {
    pub(super) fn find(folder: &Path) -> Result<Self> {
        let file = folder.join(MANIFEST);
        let text = fs::read(&file).with_context(|| {
            format!(
                "{} can't be read; `roost plugin new` makes a project",
                file.display()
            )
        })?;
        let manifest = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not what it should be", file.display()))?;
        Ok(Self {
            folder: folder.to_owned(),
            manifest,
        })
    }

    /// Where the component is when it is built.
    pub(super) fn component(&self) -> PathBuf {
        let file = format!("{}.wasm", self.manifest.name);
        if self.folder == Path::new(".") {
            return file.into();
        }
        self.folder.join(file)
    }
}
