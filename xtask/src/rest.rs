//! What must hold on a host on which nothing is under way, and how to know that nothing is.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::host;
use crate::node::Node;

/// States that a VM is not left in.
const PASSING: [&str; 6] = [
    "creating", "starting", "pausing", "resuming", "stopping", "deleting",
];

/// Most that a list is asked for.
const MOST: &str = "limit=10000";

/// What is under way; empty if nothing is. VMs whose guest ends by itself soon are named by
/// `ends`.
pub(crate) fn under_way(node: &Node, ends: &impl Fn(&Value) -> bool) -> Result<String> {
    // First of all: an actor answers when it is done with what it found at the start, and one
    // whose worker has just died has not noticed yet.
    let audit = node.get("/v1/audit")?;
    let found = audit["divergences"]
        .as_array()
        .is_none_or(|all| !all.is_empty());
    if audit["busy"] != 0 || found {
        return Ok(format!("what the audit saw: {audit}"));
    }
    for operation in node.items(&format!("/v1/operations?{MOST}"))? {
        if operation["status"] == "running" || operation["status"] == "queued" {
            return Ok(format!("an operation: {operation}"));
        }
    }
    for incident in node.items(&format!("/v1/incidents?{MOST}"))? {
        if incident["closed"] != true {
            return Ok(format!("an incident: {incident}"));
        }
    }
    if let Some(task) = node.items("/v1/cleanup-tasks")?.first() {
        return Ok(format!("a cleanup: {task}"));
    }
    for vm in node.items("/v1/vms")? {
        let state = vm["state"].as_str().unwrap_or_default();
        if PASSING.contains(&state) || state == "running" && ends(&vm) {
            return Ok(format!("{} is {state}", vm["spec"]["name"]));
        }
    }
    Ok(String::new())
}

/// That what is desired, what is, and whether there is a worker belong together.
pub(crate) fn consistent(vm: &Value) -> Result<()> {
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
        ensure!(host::is_running(pid), "worker {pid} does not run");
    }
    Ok(())
}

/// That the host itself finds nothing, and nothing is left to a person.
pub(crate) fn audited(node: &Node) -> Result<()> {
    let audit = node.get("/v1/audit")?;
    let found = audit["divergences"].as_array();
    let found = found.context("the audit has no divergences")?;
    ensure!(found.is_empty(), "the audit found {audit}");
    let actions = node.items("/v1/actions-required")?;
    ensure!(actions.is_empty(), "a person must act: {actions:?}");
    Ok(())
}

/// That no TAP of the VM with this id is left.
pub(crate) fn no_tap(id: &str) -> Result<()> {
    // As `host/engine/src/devices.rs` names them.
    let suffix = id.get(id.len().saturating_sub(11)..).unwrap_or_default();
    let tap = format!("/sys/class/net/rt{suffix}-0");
    ensure!(!Path::new(&tap).exists(), "{tap} is left");
    Ok(())
}

/// That nothing is in a folder, if there is one.
pub(crate) fn empty(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let entry = std::fs::read_dir(dir)?.next();
    if let Some(entry) = entry {
        bail!("{} is left", entry?.path().display());
    }
    Ok(())
}
