//! `roost plugin new`: a project of its own, from templates that are in this binary.
//!
//! The templates are the examples of the repository, which are built and tested there; only their
//! name is another. A project holds all that it needs: the contract, and for Rust the SDK.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::project::{Language, MANIFEST, Manifest};
use super::report::report;
use super::templates::{
    C, CARGO_CONFIG, CARGO_MANIFEST, EXAMPLES, JS, PACKAGE, PYTHON, README, REQUIREMENTS, SDK,
    SDK_MANIFEST, WIT, texts,
};
use crate::cli::Format;

/// Longest name of a plugin, characters.
const MAX_NAME: usize = 63;

/// Begin a policy: a folder with a first version of it, test cases, and the contract.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost plugin new --lang rust night-watch\n  \
    roost plugin new --lang rust --hook admission night-shift\n  \
    roost plugin new --lang python night-watch")]
pub(crate) struct New {
    /// The name, and the folder that is made.
    name: String,
    /// What it is written in.
    #[arg(long, value_enum)]
    lang: Language,
    /// What it decides; only recovery has templates in every language.
    #[arg(long, value_enum, default_value_t = Hook::Recovery)]
    hook: Hook,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Hook {
    /// Who may create or boot a VM
    Admission,
    /// When a failed cleanup is tried again
    Cleanup,
    /// What becomes of a VM that failed
    Recovery,
    /// What usage costs
    Billing,
}

impl Hook {
    const fn world(self) -> &'static str {
        match self {
            Self::Admission => "admission-policy",
            Self::Cleanup => "cleanup-policy",
            Self::Recovery => "recovery-policy",
            Self::Billing => "billing-policy",
        }
    }
}

/// A file of the project, relative to its folder.
struct File {
    path: PathBuf,
    content: String,
}

impl New {
    pub(super) fn run(self, format: Format) -> Result<()> {
        check_name(&self.name)?;
        let files = self.files()?;
        let folder = Path::new(&self.name);
        if folder.exists() {
            bail!("{} is there already", folder.display());
        }
        for file in &files {
            let path = folder.join(&file.path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)
                    .with_context(|| format!("{} can't be made", parent.display()))?;
            }
            fs::write(&path, &file.content)
                .with_context(|| format!("{} can't be written", path.display()))?;
        }
        let paths: Vec<_> = files.iter().map(|file| &file.path).collect();
        let made = json!({ "folder": folder, "files": paths });
        report(format, &made, || {
            format!(
                "{}: {} files; README.md says how to go on",
                folder.display(),
                files.len()
            )
        })
    }

    fn files(&self) -> Result<Vec<File>> {
        if self.lang != Language::Rust && self.hook != Hook::Recovery {
            bail!(
                "a template for that hook is there only in Rust; the contract in wit/ is the same"
            );
        }
        let Some(example) = EXAMPLES.iter().find(|example| example.hook == self.hook) else {
            bail!("there is no template for that hook");
        };
        let rename = |text: &str| {
            let text = text.replace(example.name, &self.name);
            text.replace("/../fixtures", "/fixtures")
                .replace(example.type_name, &type_name(&self.name))
        };
        let mut files = Vec::new();
        let mut file = |path: &str, content: String| {
            files.push(File {
                path: path.into(),
                content,
            });
        };
        let manifest = Manifest {
            name: self.name.clone(),
            language: self.lang,
            world: self.hook.world().to_owned(),
        };
        file(MANIFEST, serde_json::to_string_pretty(&manifest)? + "\n");
        file("README.md", self.readme());
        file(".gitignore", ignored(self.lang).to_owned());
        for (path, text) in texts(&example.fixtures) {
            file(&format!("fixtures/{path}"), text.to_owned());
        }
        let contract = match self.lang {
            Language::Rust => "sdk/wit",
            _ => "wit",
        };
        for (path, text) in texts(&WIT) {
            file(&format!("{contract}/{path}"), text.to_owned());
        }
        match self.lang {
            Language::Rust => {
                file("Cargo.toml", CARGO_MANIFEST.replace("NAME", &self.name));
                file(".cargo/config.toml", CARGO_CONFIG.to_owned());
                for (path, text) in texts(&example.source) {
                    file(&format!("src/{path}"), rename(text));
                }
                file("sdk/Cargo.toml", SDK_MANIFEST.to_owned());
                for (path, text) in texts(&SDK) {
                    file(&format!("sdk/src/{path}"), text.to_owned());
                }
            }
            Language::Js => {
                file("package.json", PACKAGE.replace("NAME", &self.name));
                file("policy.js", rename(JS));
            }
            Language::Python => {
                file("requirements.txt", REQUIREMENTS.to_owned());
                file("policy.py", rename(PYTHON));
            }
            Language::C => file("policy.c", rename(C)),
        }
        Ok(files)
    }

    fn readme(&self) -> String {
        let (edit, set_up) = match self.lang {
            Language::Rust => ("src/lib.rs", "rustup target add wasm32-unknown-unknown\n"),
            Language::Js => ("policy.js", "npm install\n"),
            Language::Python => (
                "policy.py",
                "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt\n",
            ),
            Language::C => (
                "policy.c",
                "python3 -m venv .venv && .venv/bin/pip install ziglang    # or any zig or clang\n",
            ),
        };
        README
            .replace("SETUP\n", set_up)
            .replace("EDIT", edit)
            .replace("NAME", &self.name)
    }
}

const fn ignored(language: Language) -> &'static str {
    match language {
        Language::Rust => "/target\n/*.wasm\n",
        Language::Js => "/node_modules\n/policy.built.js\n/*.wasm\n",
        Language::Python => "/.venv\n/bindings\n__pycache__\n/*.wasm\n",
        Language::C => "/.venv\n/bindings\n/*.wasm\n",
    }
}

/// What the API takes for a plugin's name and every toolchain for a project's.
fn check_name(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ends = !name.ends_with('-') && name.starts_with(|c: char| c.is_ascii_lowercase());
    if name.len() > MAX_NAME || !name.chars().all(good) || !ends {
        bail!("a name is 1 to {MAX_NAME} of a-z, 0-9 and -, and begins with a letter");
    }
    Ok(())
}

/// `night-watch` as `NightWatch`.
fn type_name(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let mut letters = word.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(lang: Language, hook: Hook) -> Vec<File> {
        let name = "own-policy".to_owned();
        New { name, lang, hook }.files().unwrap()
    }

    #[test]
    fn every_language_gets_the_contract_and_test_cases() {
        for lang in Language::value_variants() {
            let files = new(*lang, Hook::Recovery);
            let has = |path: &str| files.iter().any(|file| file.path.ends_with(path));
            assert!(
                has("wit/types.wit") && has("fixtures/first-incident.json"),
                "{lang:?}"
            );
        }
    }

    #[test]
    fn nothing_of_the_examples_name_is_left() {
        for lang in Language::value_variants() {
            for file in new(*lang, Hook::Recovery) {
                let of_sdk = file.path.starts_with("sdk");
                assert!(
                    of_sdk || !file.content.contains("night-watch"),
                    "{:?}",
                    file.path
                );
                assert!(
                    of_sdk || !file.content.contains("NightWatch"),
                    "{:?}",
                    file.path
                );
            }
        }
    }

    #[test]
    fn every_hook_has_a_template_in_rust() {
        for hook in Hook::value_variants() {
            let files = new(Language::Rust, *hook);
            let lib = files
                .iter()
                .find(|file| file.path == Path::new("src/lib.rs"))
                .unwrap();
            assert!(lib.content.contains("roost_plugin::export!"));
        }
    }

    #[test]
    fn names_are_those_that_a_host_takes() {
        assert!(check_name("night-watch2").is_ok());
        for bad in [
            "",
            "Night",
            "night watch",
            "../x",
            "-a",
            "a-",
            "1a",
            &"x".repeat(64),
        ] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(type_name("night-watch2"), "NightWatch2");
    }
}
