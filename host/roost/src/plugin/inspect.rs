//! `roost plugin inspect`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use roost_model::Grant;
use serde::Serialize;
use serde_json::{Value, json};
use wit_component::DecodedWasm;
use wit_parser::{Resolve, WorldItem, WorldKey};

use super::component::{Component, digest};
use crate::cli::Format;
use crate::output;

/// The interface whose functions need grants.
const HOST: &str = "roost:policy/host@0.1.0";
/// What those of WASI are called.
const WASI: &str = "wasi:";

/// Show what is in a component: exports, imports, size, digest, and what it needs to be granted.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost plugin inspect limits.wasm\n  \
    roost plugin inspect -o json")]
pub(crate) struct Inspect {
    /// The component; that of the project in this folder if absent.
    component: Option<PathBuf>,
}

/// An interface, or a function of none.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Item {
    name: String,
    functions: Vec<String>,
}

impl Inspect {
    pub(super) fn run(self, format: Format) -> Result<()> {
        let component = Component::read(self.component)?;
        let (imports, exports) = items(&component.bytes)
            .with_context(|| format!("{} is no component", component.file.display()))?;
        let needs = needs(&imports);
        let loaded = component.load();
        let about = match &loaded {
            Ok(loaded) => {
                let plugin = &loaded.plugin;
                let description = plugin.description();
                json!({
                    "name": description.name,
                    "version": description.version,
                    "summary": description.summary,
                    "hooks": plugin.hooks(),
                })
            }
            Err(error) => json!({ "refused": format!("{error:#}") }),
        };
        let found = json!({
            "file": component.file,
            "size_bytes": component.bytes.len(),
            "digest": digest(&component.bytes),
            "about": about,
            "exports": exports,
            "imports": imports,
            "needs": needs,
        });
        match format {
            Format::Json => output::json(&found),
            Format::Table => print(&found, &exports, &imports, &needs),
        }
    }
}

fn print(found: &Value, exports: &[Item], imports: &[Item], needs: &BTreeSet<Grant>) -> Result<()> {
    let text = |pointer: &str| output::text(found, pointer);
    let row = |name: &str, value: &str| {
        output::line(output::printable(&format!("{name:10}{value}")).trim_end())
    };
    row("file", &text("/file"))?;
    row("size", &format!("{} bytes", text("/size_bytes")))?;
    row("digest", &text("/digest"))?;
    match text("/about/refused") {
        refused if refused.is_empty() => {
            row(
                "name",
                &format!("{} {}", text("/about/name"), text("/about/version")),
            )?;
            row("summary", &text("/about/summary"))?;
            row("hooks", &super::report::names(&found["about"]["hooks"]))?;
        }
        refused => row("refused", &refused)?,
    }
    for (name, items) in [("exports", exports), ("imports", imports)] {
        if items.is_empty() {
            row(name, "nothing")?;
        }
        for (index, item) in items.iter().enumerate() {
            let name = if index == 0 { name } else { "" };
            row(
                name,
                &format!("{}: {}", item.name, item.functions.join(", ")),
            )?;
        }
    }
    let needs: Vec<_> = needs.iter().map(|grant| grant.name()).collect();
    row(
        "needs",
        if needs.is_empty() {
            "no grants".to_owned()
        } else {
            needs.join(",")
        }
        .as_str(),
    )
}

/// What a component imports and exports. Interfaces of nothing but types ask for nothing and are
/// left out.
fn items(bytes: &[u8]) -> Result<(Vec<Item>, Vec<Item>)> {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(bytes)? else {
        bail!("it holds a package of WIT");
    };
    let world = resolve.worlds.get(world).context("it has no world")?;
    let of = |items: &[(&WorldKey, &WorldItem)]| -> Vec<Item> {
        items
            .iter()
            .filter_map(|(key, item)| named(&resolve, key, item))
            .collect()
    };
    let imports: Vec<_> = world.imports.iter().collect();
    let exports: Vec<_> = world.exports.iter().collect();
    Ok((of(&imports), of(&exports)))
}

fn named(resolve: &Resolve, key: &WorldKey, item: &WorldItem) -> Option<Item> {
    let functions: Vec<String> = match item {
        WorldItem::Interface { id, .. } => {
            let interface = resolve.interfaces.get(*id)?;
            interface.functions.keys().cloned().collect()
        }
        WorldItem::Function(function) => vec![function.name.clone()],
        WorldItem::Type { .. } => return None,
    };
    (!functions.is_empty()).then(|| Item {
        name: resolve.name_world_key(key),
        functions,
    })
}

/// The grants without which a host refuses what imports `imports`.
fn needs(imports: &[Item]) -> BTreeSet<Grant> {
    let grant = |item: &Item, function: &str| {
        if item.name.starts_with(WASI) {
            return Some(Grant::Wasi);
        }
        match function {
            _ if item.name != HOST => None,
            "log" => Some(Grant::Log),
            "get-vm" | "list-vms" | "history" => Some(Grant::Query),
            _ if function.starts_with("kv-") => Some(Grant::Kv),
            _ => None,
        }
    };
    imports
        .iter()
        .flat_map(|item| {
            item.functions
                .iter()
                .filter_map(move |name| grant(item, name))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, functions: &[&str]) -> Item {
        Item {
            name: name.to_owned(),
            functions: functions.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn each_import_needs_its_grant() {
        let needed = needs(&[
            item(HOST, &["log", "kv-get", "kv-set"]),
            item("wasi:clocks/wall-clock@0.2.0", &["now"]),
            item("acme:own/thing", &["do"]),
        ]);
        assert_eq!(needed, BTreeSet::from([Grant::Log, Grant::Kv, Grant::Wasi]));
        assert!(needs(&[]).is_empty());
    }

    #[test]
    fn a_bundled_policy_exports_its_hook_and_imports_nothing() {
        for bundled in roost_policy::bundled() {
            let (imports, exports) = items(bundled.bytes).unwrap();
            assert!(imports.is_empty(), "{}: {imports:?}", bundled.name);
            let hook = format!("roost:policy/{}@0.1.0", bundled.hook);
            assert!(exports.contains(&item(&hook, &["decide"])), "{exports:?}");
        }
    }
}
