//! What `cargo metadata` says about this workspace. The promises are in `tests/`.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The one platform that Roost is built for; the dependencies of others do not count.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// A target of a package.
#[derive(Debug, Clone)]
pub struct Target {
    /// `lib`, `bin`, `test`, `example`, `custom-build`, …
    pub kind: String,
    /// The root of its source.
    pub root: PathBuf,
}

/// A package of the workspace.
#[derive(Debug, Clone)]
pub struct Member {
    /// What it is compiled from.
    pub targets: Vec<Target>,
    /// Packages that it is built with: ordinary and build dependencies.
    pub dependencies: BTreeSet<String>,
    /// Packages that only its tests and examples are built with.
    pub dev_dependencies: BTreeSet<String>,
    /// Everything that it is built with, over any number of steps.
    pub reachable: BTreeSet<String>,
}

/// The root of the repository.
#[must_use]
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

/// The packages of the workspace by name.
///
/// # Panics
/// `cargo metadata` fails or says something unheard of.
#[must_use]
pub fn members() -> BTreeMap<String, Member> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version=1",
            "--filter-platform",
            PLATFORM,
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = array(&metadata["packages"]);
    let names: BTreeMap<&str, &str> = packages
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let nodes: BTreeMap<&str, &Value> = array(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| (text(&node["id"]), node))
        .collect();

    let mut members = BTreeMap::new();
    for id in array(&metadata["workspace_members"]) {
        let id = text(id);
        let package = packages
            .iter()
            .find(|package| package["id"] == id)
            .expect("a package");
        let named = |ids: Vec<&str>| ids.into_iter().map(|id| names[id].to_owned()).collect();
        let mut reachable = BTreeSet::new();
        let mut to_visit = edges(nodes[id], false);
        while let Some(next) = to_visit.pop() {
            if reachable.insert(next) {
                to_visit.extend(edges(nodes[next], false));
            }
        }
        members.insert(
            names[id].to_owned(),
            Member {
                targets: array(&package["targets"]).iter().map(target).collect(),
                dependencies: named(edges(nodes[id], false)),
                dev_dependencies: named(edges(nodes[id], true)),
                reachable: named(reachable.into_iter().collect()),
            },
        );
    }
    members
}

fn target(value: &Value) -> Target {
    Target {
        kind: text(&value["kind"][0]).to_owned(),
        root: text(&value["src_path"]).into(),
    }
}

/// What a node of the dependency graph depends on, for tests only or else.
fn edges(node: &Value, dev: bool) -> Vec<&str> {
    array(&node["deps"])
        .iter()
        .filter(|edge| {
            array(&edge["dep_kinds"])
                .iter()
                .any(|kind| (kind["kind"] == "dev") == dev)
        })
        .map(|edge| text(&edge["pkg"]))
        .collect()
}

fn array(value: &Value) -> &[Value] {
    value
        .as_array()
        .map(Vec::as_slice)
        .expect("cargo metadata has a list here")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("cargo metadata has a text here")
}
