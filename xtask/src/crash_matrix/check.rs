//! What must hold after a host, its worker, or both died anywhere, and a host ran again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use roost_model::Victim;
use serde_json::Value;

use super::node::Node;
use super::scenario::{End, Scenario};
use crate::leftovers;
use crate::usage::Sums;

/// States that a VM is not left in.
const PASSING: [&str; 6] = [
    "creating", "starting", "pausing", "resuming", "stopping", "deleting",
];

/// Waits until nothing is under way any more; a guest that ends by itself is, while it runs.
pub(super) fn settle(node: &Node, guest_ends: bool) -> Result<()> {
    let mut seen = String::new();
    node.wait("rest", |node| {
        seen = under_way(node, guest_ends)?;
        Ok(seen.is_empty().then_some(()))
    })
    .with_context(|| format!("still under way: {seen}"))
}

/// [`settle`], unless the host is one whose start is looked at, so that rest is not waited for.
pub(super) fn settle_unless(node: &Node, starts: bool) -> Result<()> {
    if starts { Ok(()) } else { settle(node, false) }
}

/// What is under way; empty if nothing is. It is looked at twice: what ended in between may have
/// begun something else.
fn under_way(node: &Node, guest_ends: bool) -> Result<String> {
    for _ in 0..2 {
        let seen = seen_under_way(node, guest_ends)?;
        if !seen.is_empty() {
            return Ok(seen);
        }
    }
    Ok(String::new())
}

fn seen_under_way(node: &Node, guest_ends: bool) -> Result<String> {
    // First of all: an actor answers when it is done with what it found at the start, and one
    // whose worker has just died has not noticed yet.
    let audit = node.get("/v1/audit")?;
    let found = audit["divergences"]
        .as_array()
        .is_none_or(|all| !all.is_empty());
    if audit["busy"] != 0 || found {
        return Ok(format!("what the audit saw: {audit}"));
    }
    for operation in node.items("/v1/operations")? {
        if operation["status"] == "running" || operation["status"] == "queued" {
            return Ok(format!("an operation: {operation}"));
        }
    }
    for incident in node.items("/v1/incidents")? {
        if incident["closed"] != true {
            return Ok(format!("an incident: {incident}"));
        }
    }
    if let Some(task) = node.items("/v1/cleanup-tasks")?.first() {
        return Ok(format!("a cleanup: {task}"));
    }
    if let Some(vm) = node.vm()?
        && vm["state"]
            .as_str()
            .is_some_and(|state| PASSING.contains(&state) || guest_ends && state == "running")
    {
        return Ok(format!("the VM is {}", vm["state"]));
    }
    let usage = node.get("/v1/usage")?;
    let keys = |name: &str| -> BTreeSet<String> {
        let items = usage[name].as_array().into_iter().flatten();
        items.map(key).collect()
    };
    if keys("windows") != keys("charges") {
        return Ok(format!("a bill: {usage}"));
    }
    Ok(String::new())
}

fn key(item: &Value) -> String {
    format!(
        "{} {} {}",
        item["vm"], item["incarnation"], item["sequence"]
    )
}

/// That the VM is as the scenario allows, that records and node agree, and that the bill adds up.
pub(super) fn state(node: &Node, scenario: &Scenario, victim: Option<Victim>) -> Result<()> {
    let vm = node.vm()?;
    let found = vm
        .as_ref()
        .map(|vm| vm["state"].as_str().unwrap_or_default());
    let is = |end: End| match end {
        End::Absent => found.is_none(),
        End::In(state) => found == Some(state),
    };
    let is_of = |states: &[&str]| found.is_some_and(|found| states.contains(&found));
    let operations = node.items("/v1/operations")?;
    let legal = match victim {
        None => is(scenario.target),
        // Either it was not asked for durably, or it is finished.
        Some(Victim::Host) => is(scenario.target) || is(scenario.origin) || is_of(scenario.midway),
        Some(Victim::Worker | Victim::Both) => {
            let also = is_of(scenario.midway) || is_of(scenario.also);
            is(scenario.target) || is(scenario.origin) || also
        }
    };
    let shown = serde_json::json!({ "vm": vm, "operations": operations });
    ensure!(legal, "the VM is {found:?}: {shown}");
    if victim == Some(Victim::Host) {
        host_alone(scenario, &vm, &operations)?;
    }
    if let Some(vm) = &vm {
        consistent(vm)?;
    }
    audited(node)?;
    // A window that the grid has just closed is charged for a moment later.
    let mut last = None;
    let adds_up = node.wait("a bill that adds up", |node| {
        last = bill(node, node.vm()?.as_ref()).err();
        Ok(last.is_none().then_some(()))
    });
    adds_up.map_err(|error| last.unwrap_or(error))
}

/// A host that died alone loses nothing that it wrote down: what was asked for is done.
fn host_alone(scenario: &Scenario, vm: &Option<Value>, operations: &[Value]) -> Result<()> {
    let earlier = scenario.before_fault.is_some();
    for operation in operations
        .iter()
        .filter(|operation| !earlier || operation["origin"] == "recovery")
    {
        let verb = operation["verb"].as_str().unwrap_or_default();
        let may_fail = scenario.target == End::In("failed") && verb == "boot"
            || scenario.may_fail.contains(&verb);
        let well = operation["status"] == "succeeded" || operation["status"] == "cancelled";
        ensure!(
            well || may_fail,
            "an operation failed because its host died: {operation}"
        );
    }
    let Some(verb) = scenario.name.split('-').next() else {
        return Ok(());
    };
    let asked = operations.iter().any(|operation| operation["verb"] == verb);
    let state = vm.as_ref().and_then(|vm| vm["state"].as_str());
    let done = match scenario.target {
        End::Absent => state.is_none(),
        End::In(target) => state == Some(target),
    };
    ensure!(
        !asked || done,
        "{verb} was asked for and is not done: the VM is {state:?}"
    );
    Ok(())
}

/// What is desired, what is, and whether there is a worker belong together.
fn consistent(vm: &Value) -> Result<()> {
    let state = vm["state"].as_str().unwrap_or_default();
    let desired = vm["desired"].as_str().unwrap_or_default();
    let agree = state == desired || state == "failed";
    ensure!(agree, "the VM is {state} and desired {desired}: {vm}");
    let worker = vm["worker"]["pid"].as_u64();
    let has_worker = matches!(state, "running" | "paused");
    ensure!(
        has_worker == worker.is_some(),
        "the VM is {state} and its worker is {worker:?}"
    );
    if let Some(pid) = worker {
        let pid = u32::try_from(pid)?;
        ensure!(crate::host::is_running(pid), "worker {pid} does not run");
    }
    Ok(())
}

/// That the host itself finds nothing.
fn audited(node: &Node) -> Result<()> {
    let audit = node.get("/v1/audit")?;
    let found = audit["divergences"].as_array();
    let found = found.context("the audit has no divergences")?;
    ensure!(found.is_empty(), "the audit found {audit}");
    let actions = node.items("/v1/actions-required")?;
    ensure!(actions.is_empty(), "a person must act: {actions:?}");
    Ok(())
}

/// That windows and charges of each VM add up, and that each incarnation that ran has its windows.
fn bill(node: &Node, vm: Option<&Value>) -> Result<()> {
    let usage = node.get("/v1/usage")?;
    let sums = Sums::of(&usage)?;
    let events = node.items("/v1/events?limit=10000")?;
    let mut closed = BTreeMap::<String, u32>::new();
    let mut charged = BTreeMap::<String, u32>::new();
    let mut ran = BTreeSet::new();
    for event in &events {
        match event["kind"].as_str() {
            Some("window-closed") => *closed.entry(key(&event["window"])).or_default() += 1,
            Some("charged") => {
                let charges = event["charges"].as_array().into_iter().flatten();
                for charge in charges.filter(|charge| charge["item"] == "vcpu-time") {
                    *charged.entry(key(charge)).or_default() += 1;
                }
            }
            Some("state-changed") if event["to"] == "running" => {
                ran.insert(event["incarnation"].as_u64().context("no incarnation")?);
            }
            _ => {}
        }
    }
    let windows = usage["windows"].as_array().context("no windows")?;
    for window in windows {
        let key = key(window);
        ensure!(closed.get(&key) == Some(&1), "closed {closed:?}: {key}");
        ensure!(charged.get(&key) == Some(&1), "charged {charged:?}: {key}");
    }
    ensure!(
        closed.len() == sums.windows && charged.len() == sums.windows,
        "{} windows, {} closed, {} charged for",
        sums.windows,
        closed.len(),
        charged.len()
    );
    // The window of an incarnation that goes on is open.
    let going_on = vm.filter(|vm| matches!(vm["state"].as_str(), Some("running" | "paused")));
    let going_on = going_on.and_then(|vm| vm["incarnation"].as_u64());
    for incarnation in ran.iter().filter(|ran| Some(**ran) != going_on) {
        ensure!(
            sums.incarnations.contains_key(incarnation),
            "incarnation {incarnation} ran and no window says so: {usage}"
        );
    }
    Ok(())
}

/// Deletes the VM; then nothing of it is left anywhere.
pub(super) fn delete(node: &mut Node) -> Result<()> {
    let id = match node.vm()? {
        None => None,
        Some(vm) => {
            let id = vm["id"].as_str().context("a VM has no id")?.to_owned();
            let operation = node.send("DELETE", &format!("/v1/vms/{id}"), &[])?;
            ensure!(operation["status"] == "succeeded", "delete: {operation}");
            Some(id)
        }
    };
    settle(node, false)?;
    ensure!(node.vm()?.is_none(), "the VM is still there");
    audited(node)?;
    bill(node, None)?;
    node.stop()?;
    let data = node.data();
    let processes = leftovers::processes(&data, &[])?;
    ensure!(processes.is_empty(), "workers are left: {processes:?}");
    for dir in ["run", "disks"] {
        empty(&data.join(dir))?;
    }
    if let Some(id) = id {
        // As `host/engine/src/devices.rs` names them.
        let suffix = id.get(id.len().saturating_sub(11)..).unwrap_or_default();
        let tap = format!("/sys/class/net/rt{suffix}-0");
        ensure!(!Path::new(&tap).exists(), "{tap} is left");
    }
    Ok(())
}

fn empty(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let entry = std::fs::read_dir(dir)?.next();
    if let Some(entry) = entry {
        bail!("{} is left", entry?.path().display());
    }
    Ok(())
}
