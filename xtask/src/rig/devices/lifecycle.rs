//! How a guest ends, by whom, and what the host makes of it.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::VM;
use super::host::Rig;
use super::serial::Serial;

/// How long a guest is given to end by itself.
const GRACE: &str = "60";
/// What `tests/rig/devices-init` prints when the power button is pressed.
const BUTTON: &str = "power button: off";

/// The guest resets its machine, and the spec says that the VM is booted again then.
pub(super) fn reset(rig: &Rig, mut guest: Serial) -> Result<Serial> {
    guest.type_line("sync; reboot -f")?;
    let next = rig.next_shell(VM, 2)?;
    ended(rig, 1, "reset")?;
    Ok(next)
}

/// The operator reboots the VM: the guest is told by its power button and ends by itself.
pub(super) fn reboot(rig: &Rig, guest: Serial) -> Result<Serial> {
    drop(guest);
    rig.verb(&["reboot", VM, "--deadline", GRACE])?;
    let next = rig.next_shell(VM, 2)?;
    ended(rig, 1, "power-off")?;
    Ok(next)
}

/// The guest's kernel panics: an incident, and the recovery policy has the VM booted again.
pub(super) fn panic(rig: &Rig, mut guest: Serial) -> Result<Serial> {
    ensure!(
        incidents(rig)?.is_empty(),
        "there were incidents before the panic: {}",
        json!(incidents(rig)?)
    );
    guest.type_line("echo c >/proc/sysrq-trigger")?;
    let next = rig.next_shell(VM, 3)?;
    ended(rig, 2, "panic")?;
    let incidents = incidents(rig)?;
    let [incident] = incidents.as_slice() else {
        anyhow::bail!("one panic, and these incidents: {}", json!(incidents));
    };
    ensure!(
        incident["incident_kind"] == "guest-failure"
            && incident["exit"] == "panic"
            && incident["incarnation"] == 2
            && incident["decision"]["action"] == "restart"
            && incident["closed"] == true,
        "the incident is not that of a panic that was recovered from: {incident}"
    );
    Ok(next)
}

/// The operator shuts the VM down: the guest is told by its power button and ends by itself.
pub(super) fn shutdown(rig: &Rig, guest: Serial) -> Result<()> {
    drop(guest);
    rig.verb(&["shutdown", VM, "--deadline", GRACE])?;
    let record = rig.host.vm(VM)?;
    ensure!(
        record["state"] == "stopped" && record["worker"].is_null(),
        "a VM that was shut down is {record}"
    );
    ended(rig, 3, "power-off")?;
    let logs = rig.host.logs(VM)?;
    ensure!(
        logs.contains(BUTTON),
        "the guest does not say that its button was pressed:\n{logs}"
    );
    Ok(())
}

fn incidents(rig: &Rig) -> Result<Vec<Value>> {
    rig.host.items(&["incidents"])
}

/// An incarnation ended once, and in this way: it was not the host that stopped it.
fn ended(rig: &Rig, incarnation: u64, exit: &str) -> Result<()> {
    let events = rig.host.events()?;
    let id = rig.host.vm(VM)?["id"].clone();
    let exits: Vec<_> = events
        .iter()
        .filter(|event| {
            event["kind"] == "guest-exited"
                && event["vm"] == id
                && event["incarnation"] == incarnation
        })
        .collect();
    ensure!(
        exits.len() == 1 && exits[0]["exit"] == exit,
        "incarnation {incarnation} ended otherwise than by {exit}: {}",
        json!(exits)
    );
    Ok(())
}
