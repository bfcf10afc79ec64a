//! What is done to a VM while a host dies of it.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use anyhow::{Context, Result};
use roost_model::Effect;
use serde_json::{Value, json};

use crate::node::{self, Node};

/// The VM's name.
pub(super) const VM: &str = "vm";

/// Memory that the bundled admission policy is set to deny, MiB.
const DENIED_MIB: u32 = 4096;
/// Its settings.
pub(super) const ADMISSION: &str = r#"{"node":{"memory_mib":4095}}"#;

/// The label of a VM for which a policy decides what becomes of it when it is lost; its values are
/// the policies' names.
pub(super) const LOST: &str = "lost";
/// It is deleted.
pub(super) const DESTROY: &str = "destroy";
/// It stays failed.
pub(super) const MARK_FAILED: &str = "mark-failed";

/// How a VM is left when nothing disturbs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// There is none.
    Absent,
    /// It is in this state.
    In(&'static str),
}

/// One way in which a host comes to its effects.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// Arguments of `roost serve`.
    pub(super) serve: &'static [&'static str],
    /// What an earlier host process did; it is killed afterwards.
    pub(super) before: Option<fn(&Node) -> Result<()>>,
    /// Whether that one was ended in order rather than killed.
    pub(super) before_ends: bool,
    /// Of what the earlier host process dies, if not by a signal from here.
    pub(super) before_fault: Option<&'static str>,
    /// What happens to the data folder while there is no host process.
    pub(super) between: Option<fn(&Path) -> Result<()>>,
    /// What is done before; it must succeed.
    pub(super) prepare: fn(&Node) -> Result<()>,
    /// How the VM is after that.
    pub(super) origin: End,
    /// What the host dies of. It fails when the host does, and else must not.
    pub(super) act: fn(&Node) -> Result<()>,
    /// How the VM is after that.
    pub(super) target: End,
    /// Other states in which it may be left when a worker died on the way.
    pub(super) also: &'static [&'static str],
    /// How it may be left when the host died after it was asked for a part only.
    pub(super) midway: &'static [&'static str],
    /// Verbs whose operation may fail without a worker's death.
    pub(super) may_fail: &'static [&'static str],
    /// Takes away what hindered the host, so that it can come to an end.
    pub(super) release: Option<fn(&Path) -> Result<()>>,
    /// Takes away what was in the way of a boot that was to fail, so that the VM can be deleted.
    pub(super) clear: Option<fn(&Path) -> Result<()>>,
    /// Whether its guest ends by itself soon, whatever incarnation it is.
    pub(super) guest_ends: bool,
    /// Effects before this one are another scenario's.
    pub(super) from: Option<Effect>,
    /// Effects other than these are another scenario's; none named: all are this one's.
    pub(super) only: &'static [Effect],
    /// How often a point is taken at most: what repeats with the time is taken once.
    pub(super) most: u32,
}

const PLAIN: Scenario = Scenario {
    name: "",
    // Nothing that comes with the time comes between.
    serve: &["--counter-interval", "3600000", "--usage-window", "86400"],
    before: None,
    before_ends: false,
    before_fault: None,
    between: None,
    prepare: |_| Ok(()),
    origin: End::Absent,
    act: |_| Ok(()),
    target: End::Absent,
    also: &[],
    midway: &[],
    may_fail: &[],
    release: None,
    clear: None,
    guest_ends: false,
    from: None,
    only: &[],
    most: u32::MAX,
};

const STOPPED: End = End::In("stopped");
const RUNNING: End = End::In("running");
const PAUSED: End = End::In("paused");
const FAILED: End = End::In("failed");

/// A folder that no record names.
const STRANGER: &str = "vm-01890000000070008000000000000001";

/// Every scenario. That they reach every effect together is checked.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "start",
        ..PLAIN
    },
    Scenario {
        name: "create",
        act: |node| create(node, &json!({})),
        target: STOPPED,
        ..PLAIN
    },
    Scenario {
        name: "denial",
        act: |node| {
            let denied = create(node, &json!({ "memory_mib": DENIED_MIB }));
            match denied {
                Err(error) if format!("{error:#}").contains("status 403") => Ok(()),
                Err(error) => Err(error),
                Ok(()) => anyhow::bail!("the VM was admitted"),
            }
        },
        ..PLAIN
    },
    Scenario {
        name: "boot",
        prepare: |node| create(node, &json!({})),
        origin: STOPPED,
        act: |node| verb(node, "boot"),
        target: RUNNING,
        also: &["failed"],
        ..PLAIN
    },
    Scenario {
        name: "boot-failing",
        prepare: |node| {
            create(node, &json!({}))?;
            let vm = node.vm()?.context("there is no VM")?;
            let id = vm["id"].as_str().context("it has no id")?;
            // No folder: nothing can be made in it.
            Ok(fs::write(node.data().join("run").join(id), "in the way")?)
        },
        origin: STOPPED,
        act: |node| {
            let operation = node.post("/v1/vms/vm/boot")?;
            anyhow::ensure!(operation["status"] == "failed", "it did not fail");
            Ok(())
        },
        target: FAILED,
        clear: Some(|data| {
            for entry in fs::read_dir(data.join("run"))? {
                let path = entry?.path();
                if path.is_file() {
                    fs::remove_file(path)?;
                }
            }
            Ok(())
        }),
        ..PLAIN
    },
    Scenario {
        name: "shutdown",
        prepare: running,
        origin: RUNNING,
        act: |node| verb(node, "shutdown"),
        target: STOPPED,
        ..PLAIN
    },
    Scenario {
        name: "shutdown-in-time",
        prepare: |node| run(node, &json!({ "cmdline": "ticks=4" })),
        origin: RUNNING,
        act: |node| verb(node, "shutdown?deadline_ms=30000"),
        target: STOPPED,
        // It ends by itself meanwhile.
        also: &["stopped"],
        from: Some(Effect::PressButton),
        ..PLAIN
    },
    Scenario {
        name: "pause",
        prepare: running,
        origin: RUNNING,
        act: |node| verb(node, "pause"),
        target: PAUSED,
        also: &["running"],
        ..PLAIN
    },
    Scenario {
        name: "resume",
        prepare: |node| {
            running(node)?;
            verb(node, "pause")
        },
        origin: PAUSED,
        act: |node| verb(node, "resume"),
        target: RUNNING,
        also: &["failed"],
        ..PLAIN
    },
    Scenario {
        name: "reboot",
        prepare: running,
        origin: RUNNING,
        act: |node| verb(node, "reboot"),
        target: RUNNING,
        also: &["failed"],
        ..PLAIN
    },
    Scenario {
        name: "queued-boot",
        prepare: running,
        origin: RUNNING,
        act: |node| {
            // The guest hears no button, so the shutdown waits for all of its time.
            node.post("/v1/vms/vm/shutdown?deadline_ms=2000&wait=false")?;
            verb(node, "boot")
        },
        target: RUNNING,
        also: &["failed"],
        midway: &["stopped"],
        only: &[
            Effect::WriteQueued,
            Effect::WriteGraceOver,
            Effect::WriteRequested,
        ],
        ..PLAIN
    },
    Scenario {
        name: "calling-off",
        prepare: running,
        origin: RUNNING,
        act: |node| {
            let begin = |verb| {
                let path = format!("/v1/vms/vm/{verb}wait=false");
                let operation = node.post(&path)?;
                let id = operation["id"].as_str().map(str::to_owned);
                id.context("an operation has no id")
            };
            let shutdown = begin("shutdown?deadline_ms=5000&")?;
            let boot = begin("boot?")?;
            let pause = begin("pause?")?;
            node.wait("the guest to be waited for", |node| {
                let operation = node.get(&format!("/v1/operations/{shutdown}"))?;
                let doing = operation["doing"].as_str().unwrap_or_default();
                Ok(doing.starts_with("waiting for the guest").then_some(()))
            })?;
            for operation in [pause, shutdown] {
                let cancelled = node.post(&format!("/v1/operations/{operation}/cancel"))?;
                anyhow::ensure!(cancelled["status"] == "cancelled", "{cancelled}");
            }
            // The VM runs, so it can't be booted.
            let boot = node.get(&format!("/v1/operations/{boot}?wait=true"))?;
            anyhow::ensure!(boot["status"] == "failed", "{boot}");
            Ok(())
        },
        target: RUNNING,
        also: &["failed"],
        midway: &["stopped", "paused"],
        may_fail: &["boot", "pause"],
        only: &[
            Effect::WriteCancelled,
            Effect::WriteStopCancelled,
            Effect::WriteRefused,
        ],
        ..PLAIN
    },
    Scenario {
        name: "delete",
        prepare: running,
        origin: RUNNING,
        act: |node| {
            let operation = node.send("DELETE", "/v1/vms/vm", &[])?;
            anyhow::ensure!(operation["status"] == "succeeded", "{operation}");
            Ok(())
        },
        target: End::Absent,
        ..PLAIN
    },
    Scenario {
        name: "guest-exit",
        prepare: |node| create(node, &json!({ "cmdline": "ticks=2" })),
        origin: STOPPED,
        act: |node| {
            node.post("/v1/vms/vm/boot")?;
            node.wait("the guest's end", |node| {
                let vm = node.vm()?.context("there is no VM")?;
                Ok((vm["state"] == "stopped" && vm["incarnation"] == 1).then_some(()))
            })
        },
        target: STOPPED,
        also: &["failed"],
        guest_ends: true,
        from: Some(Effect::WriteGuestExit),
        ..PLAIN
    },
    // Its guest has ended before the host can write down that it runs.
    Scenario {
        name: "boot-brief",
        prepare: |node| create(node, &json!({ "cmdline": "ticks=1" })),
        origin: STOPPED,
        act: |node| {
            node.post("/v1/vms/vm/boot")?;
            node.wait("the guest's end", |node| {
                let vm = node.vm()?.context("there is no VM")?;
                Ok((vm["state"] == "stopped" && vm["incarnation"] == 1).then_some(()))
            })
        },
        target: STOPPED,
        also: &["failed"],
        guest_ends: true,
        only: &[Effect::ResumeGuest, Effect::WriteRunning],
        ..PLAIN
    },
    Scenario {
        name: "stalled",
        prepare: |node| {
            let more = json!({ "kernel": super::SILENT_KERNEL, "boot_deadline_ms": 100 });
            create(node, &more)
        },
        origin: STOPPED,
        act: |node| {
            node.post("/v1/vms/vm/boot")?;
            node.wait("an incident", |node| {
                Ok(node.items("/v1/incidents")?.into_iter().next())
            })
            .map(drop)
        },
        // It never prints, so recovery gives it up.
        target: FAILED,
        also: &["stopped"],
        guest_ends: true,
        only: &[Effect::WriteStalled],
        most: 1,
        ..PLAIN
    },
    Scenario {
        name: "recovery",
        prepare: running,
        origin: RUNNING,
        act: |node| {
            node.kill_worker()?;
            node.wait("incarnation 2", |node| {
                let vm = node.vm()?.context("there is no VM")?;
                Ok((vm["state"] == "running" && vm["incarnation"] == 2).then_some(()))
            })
        },
        target: RUNNING,
        ..PLAIN
    },
    Scenario {
        name: "guest-failure",
        prepare: |node| {
            let more = json!({ "kernel": super::FAULTING_KERNEL, "labels": { LOST: MARK_FAILED } });
            create(node, &more)
        },
        origin: STOPPED,
        act: boot_until_given_up,
        target: FAILED,
        guest_ends: true,
        from: Some(Effect::WriteGuestExit),
        ..PLAIN
    },
    Scenario {
        name: "guest-ended",
        prepare: |node| {
            let more = json!({
                "cmdline": "ticks=2", "on_end": "recover", "labels": { LOST: MARK_FAILED },
            });
            create(node, &more)
        },
        origin: STOPPED,
        act: boot_until_given_up,
        // Without the decision it would be stopped.
        target: FAILED,
        guest_ends: true,
        from: Some(Effect::WriteGuestExit),
        ..PLAIN
    },
    Scenario {
        name: "destruction",
        prepare: |node| run(node, &json!({ "labels": { LOST: DESTROY } })),
        origin: RUNNING,
        act: |node| {
            node.kill_worker()?;
            node.wait("the VM's end", |node| {
                Ok(node.vm()?.is_none().then_some(()))
            })
        },
        target: End::Absent,
        only: &[
            Effect::WriteWorkerLost,
            Effect::WriteRecovery,
            Effect::WriteStopping,
        ],
        ..PLAIN
    },
    Scenario {
        name: "adoption",
        before: Some(running),
        origin: RUNNING,
        act: |node| node.wait_for_state("running").map(drop),
        target: RUNNING,
        ..PLAIN
    },
    Scenario {
        name: "missing-worker",
        before: Some(running),
        before_fault: Some("pause-guest:before=both"),
        origin: RUNNING,
        act: |node| node.wait_for_state("running").map(drop),
        target: RUNNING,
        ..PLAIN
    },
    Scenario {
        name: "drain",
        prepare: running,
        origin: RUNNING,
        act: |node| {
            let report = node.post("/v1/drain?deadline_ms=0")?;
            anyhow::ensure!(report["state"] == "drained", "it is not drained: {report}");
            let report = node.send("DELETE", "/v1/drain", &[])?;
            anyhow::ensure!(report["state"] == "off", "it still drains: {report}");
            Ok(())
        },
        target: STOPPED,
        ..PLAIN
    },
    Scenario {
        name: "start-after-end",
        serve: &[
            "--counter-interval",
            "3600000",
            "--usage-window",
            "86400",
            "--stop-vms",
            "--stop-vms-deadline",
            "0",
        ],
        before: Some(running),
        before_ends: true,
        origin: STOPPED,
        act: |node| node.wait_for_state("running").map(drop),
        target: RUNNING,
        ..PLAIN
    },
    Scenario {
        name: "leftovers",
        between: Some(|data| {
            for dir in ["run", "disks"] {
                let dir = data.join(dir).join(STRANGER);
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&dir)?;
                fs::write(dir.join("file"), "left over")?;
            }
            Ok(())
        }),
        ..PLAIN
    },
    Scenario {
        name: "stubborn-leftover",
        between: Some(|data| {
            fs::create_dir_all(data.join("run"))?;
            // No folder: removing it as one fails.
            Ok(fs::write(data.join("run").join(STRANGER), "in the way")?)
        }),
        act: |node| {
            node.wait("a failed attempt", |node| {
                let tasks = node.items("/v1/cleanup-tasks")?;
                let tried = tasks.iter().any(|task| task["attempts"] != 0);
                Ok(tried.then_some(()))
            })
        },
        release: Some(
            |data| match fs::remove_file(data.join("run").join(STRANGER)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok(()),
            },
        ),
        // How often it is tried depends on the time.
        from: Some(Effect::WriteCleanupVerdict),
        most: 1,
        ..PLAIN
    },
    Scenario {
        name: "cleanup-retried",
        between: Some(|data| {
            fs::create_dir_all(data.join("run"))?;
            Ok(fs::write(data.join("run").join(STRANGER), "in the way")?)
        }),
        act: |node| {
            let task = node.wait("a failed attempt", |node| {
                let tasks = node.items("/v1/cleanup-tasks")?;
                Ok(tasks.into_iter().find(|task| task["attempts"] != 0))
            })?;
            let task = task["id"].as_str().context("a task has no id")?;
            node.post(&format!("/v1/cleanup-tasks/{task}/retry"))
                .map(drop)
        },
        release: Some(
            |data| match fs::remove_file(data.join("run").join(STRANGER)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok(()),
            },
        ),
        only: &[Effect::WriteRepair],
        ..PLAIN
    },
    Scenario {
        name: "usage",
        serve: &["--counter-interval", "50", "--usage-window", "1"],
        prepare: running,
        origin: RUNNING,
        act: |node| {
            // On a machine that is busy there may be some before this begins.
            let before = closed_by_the_grid(&node.get("/v1/usage")?);
            node.wait("a window that the grid closed", |node| {
                let usage = node.get("/v1/usage")?;
                let charged = usage["charges"]
                    .as_array()
                    .is_some_and(|all| !all.is_empty());
                let closed = closed_by_the_grid(&usage) > before;
                Ok((closed && charged).then_some(()))
            })
        },
        target: RUNNING,
        most: 1,
        ..PLAIN
    },
];

/// Of a VM whose guest ends and that a policy marks failed then.
fn boot_until_given_up(node: &Node) -> Result<()> {
    node.post("/v1/vms/vm/boot")?;
    node.wait("the decision about the guest's end", |node| {
        let vm = node.vm()?.context("there is no VM")?;
        Ok((vm["state"] == "failed" && vm["worker"].is_null()).then_some(()))
    })
}

fn closed_by_the_grid(usage: &Value) -> usize {
    let windows = usage["windows"].as_array().into_iter().flatten();
    windows.filter(|window| window["close"] == "grid").count()
}

/// Effects that no scenario reaches, and why.
pub(super) const OUT_OF_REACH: &[(Effect, &str)] = &[
    (
        Effect::WriteWorkerCleanup,
        "a worker that SIGKILL does not end can't be made; the engine's tests have one",
    ),
    (
        Effect::WriteBootCancelled,
        "a boot is too quick to be cancelled from here; the engine's tests hold one up",
    ),
    (
        Effect::RemoveTap,
        "the TAPs of a host go with its workers; the engine's tests leave one",
    ),
];

/// Creates the VM with a disk, a network and vsock, and `more` in its spec.
fn create(node: &Node, more: &Value) -> Result<()> {
    let mut spec = json!({
        "name": VM,
        "kernel": super::KERNEL,
        "memory_mib": 32,
        "disks": [{ "name": "data", "size_mib": 1 }],
        "vsock": true,
    });
    if node::may_make_taps() {
        spec["networks"] = json!([{ "name": "net" }]);
    }
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    node.send("POST", "/v1/vms", spec.to_string().as_bytes())?;
    Ok(())
}

/// Takes a verb to its end, which must be a success.
pub(super) fn verb(node: &Node, verb: &str) -> Result<()> {
    let operation = node.post(&format!("/v1/vms/{VM}/{verb}"))?;
    anyhow::ensure!(operation["status"] == "succeeded", "{verb}: {operation}");
    Ok(())
}

fn run(node: &Node, more: &Value) -> Result<()> {
    create(node, more)?;
    verb(node, "boot")
}

fn running(node: &Node) -> Result<()> {
    run(node, &json!({}))
}
