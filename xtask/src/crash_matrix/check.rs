//! What must hold after a host, its worker, or both died anywhere, and a host ran again.

use anyhow::{Context, Result, ensure};
use roost_model::Victim;
use serde_json::Value;

use super::scenario::{End, Scenario};
use crate::leftovers;
use crate::node::Node;
use crate::rest::{self, audited, consistent};
use crate::usage::Told;

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
        let mut seen = rest::under_way(node, &|_| guest_ends)?;
        if seen.is_empty()
            && let Some(window) = told(node)?.unbilled()
        {
            seen = format!("a bill for {window}");
        }
        if !seen.is_empty() {
            return Ok(seen);
        }
    }
    Ok(String::new())
}

/// What the event log tells about usage.
fn told(node: &Node) -> Result<Told> {
    let mut told = Told::default();
    for event in node.items("/v1/events?limit=10000")? {
        told.hear(&event)?;
    }
    Ok(told)
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

/// That windows and charges of each VM add up, and that each incarnation that ran has its windows.
fn bill(node: &Node, vm: Option<&Value>) -> Result<()> {
    let told = told(node)?;
    for id in told.vms() {
        let usage = node.get(&format!("/v1/usage?vm={id}"))?;
        told.agrees_with(id, &usage, vm.filter(|vm| vm["id"] == id))?;
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
        rest::empty(&data.join(dir))?;
    }
    id.map_or(Ok(()), |id| rest::no_tap(&id))
}
