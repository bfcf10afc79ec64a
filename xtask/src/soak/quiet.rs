//! What must hold when nothing is under way.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use roost_model::Verb;
use serde_json::Value;

use super::chronicle::Chronicle;
use super::client::Client;
use super::mischief;
use super::model::At;
use super::plan::{self, Deed, Guest, Step};
use super::shared::Shared;
use crate::node::Node;
use crate::{leftovers, rest};

/// How long it may take until nothing is under way: a guest that fails again and again is given up
/// after some seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often that is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Waits until nothing is under way, then holds everything that there is against everything else.
pub(super) fn check(shared: &Shared, node: &Node, chronicle: &mut Chronicle) -> Result<()> {
    settle(shared, node, chronicle)?;
    let records = node.items("/v1/vms")?;
    models(shared, &records)?;
    let mut facts = shared.facts();
    chronicle.agrees_with(node, &records, &mut facts)?;
    for record in &records {
        rest::consistent(record)?;
        leases(record)?;
    }
    rest::audited(node)?;
    leftovers_of(node, &records)?;
    // What is not there any more explains nothing any more.
    let ids: BTreeSet<&str> = records
        .iter()
        .filter_map(|record| record["id"].as_str())
        .collect();
    facts.killed.retain(|(vm, _)| ids.contains(vm.as_str()));
    facts.guests.retain(|vm, _| ids.contains(vm.as_str()));
    mischief::no_panics(node)
}

/// A VM that does not run has none of the TAPs that it would have.
fn leases(record: &Value) -> Result<()> {
    if matches!(record["state"].as_str(), Some("running" | "paused")) {
        return Ok(());
    }
    rest::no_tap(record["id"].as_str().unwrap_or_default())
}

fn settle(shared: &Shared, node: &Node, chronicle: &mut Chronicle) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let client = Client {
        shared,
        who: "rest".to_owned(),
    };
    // Twice in a row: what ended in between may have begun something else.
    let mut quiet = 0;
    while quiet < 2 {
        calm(shared, node, &client)?;
        let mut seen = rest::under_way(node, &ends)?;
        chronicle.read_on(node, &shared.facts())?;
        if seen.is_empty()
            && let Some(window) = chronicle.told.unbilled()
        {
            seen = format!("a bill for {window}");
        }
        if seen.is_empty() {
            quiet += 1;
            continue;
        }
        quiet = 0;
        if Instant::now() > deadline {
            bail!("still under way after {PATIENCE:?}: {seen}");
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Whether the guest of a VM that runs ends by itself.
fn ends(record: &Value) -> bool {
    matches!(
        Guest::of(record),
        Some(Guest::Ends | Guest::Resets | Guest::Crashes)
    )
}

/// Shuts down the VMs that would never come to rest.
fn calm(shared: &Shared, node: &Node, client: &Client<'_>) -> Result<()> {
    for record in node.items("/v1/vms")? {
        if let Some(id) = record["id"].as_str()
            && let Some(guest) = Guest::of(&record)
        {
            shared.facts().guests.insert(id.to_owned(), guest);
        }
        if Guest::of(&record) != Some(Guest::Resets) || record["state"] != "running" {
            continue;
        }
        let name = record["spec"]["name"].as_str().unwrap_or_default();
        let vm = (0..plan::VMS).find(|vm| plan::name(*vm) == name);
        let step = Step {
            vm: vm.with_context(|| format!("{name} is none of ours"))?,
            deed: Deed::Verb {
                verb: Verb::Shutdown,
                waits: true,
                grace: None,
            },
            rest: Duration::ZERO,
        };
        if client.step(&step).is_err() {
            bail!("the shutdown of {name}");
        }
    }
    Ok(())
}

/// That each VM is as it can be.
fn models(shared: &Shared, records: &[Value]) -> Result<()> {
    for vm in 0..plan::VMS {
        let name = plan::name(vm);
        let record = records
            .iter()
            .find(|record| record["spec"]["name"] == name.as_str());
        let (at, guest) = match record {
            None => (At::Absent, None),
            Some(record) => {
                let state = record["state"].as_str().unwrap_or_default();
                let at = At::named(state).with_context(|| format!("{name} is {state}"))?;
                (at, Guest::of(record))
            }
        };
        if let Err(why) = shared.model(vm).rest(at, guest) {
            let what = format!("{name}: {why}");
            shared.violated(Some(&name), &what);
            bail!(what);
        }
    }
    Ok(())
}

/// That workers, run directories, sockets and disks are those of the records.
fn leftovers_of(node: &Node, records: &[Value]) -> Result<()> {
    let data = node.data();
    let running: BTreeSet<u32> = records
        .iter()
        .filter_map(|record| u32::try_from(record["worker"]["pid"].as_u64()?).ok())
        .collect();
    let there: BTreeSet<u32> = leftovers::processes(&data, &[])?.into_iter().collect();
    ensure!(
        there == running,
        "workers {there:?} run, {running:?} are recorded"
    );
    let record_of = |id: &str| records.iter().find(|record| record["id"] == id);
    for dir in ["run", "disks"] {
        for path in entries(&data.join(dir))? {
            let id = path.file_name().unwrap_or_default().to_string_lossy();
            let Some(record) = record_of(&id) else {
                bail!("{} is left", path.display());
            };
            let runs = !record["worker"].is_null();
            let sockets = entries(&path)?
                .into_iter()
                .filter(|entry| {
                    entry
                        .extension()
                        .is_some_and(|extension| extension == "sock")
                })
                .count();
            ensure!(
                runs == (sockets > 0) || dir == "disks",
                "{} has {sockets} sockets, its VM runs: {runs}",
                path.display()
            );
            let wanted = record["spec"]["disks"].as_array().map_or(0, Vec::len);
            ensure!(
                dir == "run" || entries(&path)?.len() == wanted,
                "{} has not {wanted} disks",
                path.display()
            );
        }
    }
    Ok(())
}

fn entries(dir: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}

/// Deletes all VMs; then nothing is left anywhere, and the store is sound.
pub(super) fn delete_all(
    shared: &Shared,
    node: &mut Node,
    chronicle: &mut Chronicle,
) -> Result<()> {
    let delete = |vm| Step {
        vm,
        deed: Deed::Verb {
            verb: Verb::Delete,
            waits: true,
            grace: None,
        },
        rest: Duration::ZERO,
    };
    thread::scope(|scope| {
        for number in 0..plan::CLIENTS {
            scope.spawn(move || {
                let mine = (number..plan::VMS).step_by(plan::CLIENTS);
                let steps: Vec<Step> = mine.map(delete).collect();
                // What goes wrong is told to everybody.
                let _ = Client::number(shared, number).run(&steps, || false);
            });
        }
    });
    if let Some(violation) = shared.violation() {
        bail!(violation.what);
    }
    check(shared, node, chronicle)?;
    let records = node.items("/v1/vms")?;
    ensure!(records.is_empty(), "VMs are left: {records:?}");
    node.stop()?;
    let processes = leftovers::processes(&node.data(), &[])?;
    ensure!(processes.is_empty(), "workers are left: {processes:?}");
    for dir in ["run", "disks"] {
        rest::empty(&node.data().join(dir))?;
    }
    let socket = node.data().join("roost.sock");
    ensure!(!socket.exists(), "{} is left", socket.display());
    node.check_store()
}
