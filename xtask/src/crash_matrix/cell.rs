//! One scenario, with a fault at one point of it or without.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use roost_model::{Effect, Fault, FaultPoint, Victim};

use super::check;
use super::scenario::Scenario;
use crate::node::Node;

/// A point that a scenario reaches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reached {
    pub(super) point: FaultPoint,
    /// The how manieth time.
    pub(super) time: u32,
    /// Workers that a fault there would kill.
    workers: u32,
}

impl Reached {
    fn parse(line: &str) -> Result<Self> {
        let parts = line.rsplit_once(' ').and_then(|(at, workers)| {
            let (point, time) = at.rsplit_once(':')?;
            Some(Self {
                point: point.parse().ok()?,
                time: time.parse().ok()?,
                workers: workers.parse().ok()?,
            })
        });
        parts.with_context(|| format!("{line:?} is no line of a trace"))
    }

    /// Who can die there.
    pub(super) fn victims(&self) -> impl Iterator<Item = Victim> + use<> {
        let workers = self.workers;
        let can_die = move |victim: &Victim| workers > 0 || *victim == Victim::Host;
        Victim::ALL.into_iter().filter(can_die)
    }
}

/// What all cells share.
pub(super) struct Prepared<'a> {
    pub(super) roost: &'a Path,
    /// A data folder whose policies are compiled and whose image is there.
    pub(super) template: &'a Path,
}

impl Prepared<'_> {
    /// A folder for one cell, and a node on it that has come to where the armed host starts.
    fn node(&self, scenario: &Scenario) -> Result<(tempfile::TempDir, Node)> {
        let dir = tempfile::tempdir()?;
        copy(self.template, &dir.path().join("data"))?;
        let mut node = Node::new(self.roost, dir.path(), scenario.serve);
        if let Some(before) = scenario.before {
            match scenario.before_fault {
                None => {
                    node.start_well()?;
                    before(&node)?;
                    if scenario.before_ends {
                        node.stop()?;
                    } else {
                        node.kill()?;
                    }
                }
                Some(fault) => {
                    ensure!(node.start(Some(fault))?, "the host did not start");
                    before(&node)?;
                    // It dies of this.
                    let _ = node.post("/v1/vms/vm/pause");
                    node.wait_for_death()?;
                }
            }
        }
        if let Some(between) = scenario.between {
            between(&node.data())?;
        }
        Ok((dir, node))
    }

    /// Runs `scenario` without a fault; returns the points that it reaches.
    pub(super) fn trace(&self, scenario: &Scenario) -> Result<Vec<Reached>> {
        let (_dir, mut node) = self.node(scenario)?;
        let trace = format!("trace={}", node.trace().display());
        ensure!(node.start(Some(&trace))?, "the host did not start");
        (scenario.prepare)(&node)?;
        // A host that is armed from its start reaches what it does at its start, too.
        let starts = scenario.before.is_some() || scenario.between.is_some();
        let is_start = starts || scenario.name == "start";
        check::settle_unless(&node, starts)?;
        let prepared = if is_start { 0 } else { node.traced()?.len() };
        (scenario.act)(&node)?;
        release(&node, scenario)?;
        check::settle(&node, scenario.guest_ends)?;
        let lines = node.traced()?;
        check::state(&node, scenario, None)?;
        if let Some(clear) = scenario.clear {
            clear(&node.data())?;
        }
        check::delete(&mut node)?;
        let mut reached = lines
            .iter()
            .skip(prepared)
            .map(|line| Reached::parse(line))
            .collect::<Result<Vec<_>>>()?;
        if let Some(from) = scenario.from {
            let first = reached.iter().position(|at| at.point.effect == from);
            reached.drain(..first.context("its first effect is not reached")?);
        }
        reached
            .retain(|at| at.point.effect != Effect::WriteHostStarted || scenario.name == "start");
        let only = scenario.only;
        reached.retain(|at| only.is_empty() || only.contains(&at.point.effect));
        let mut taken = std::collections::BTreeMap::<FaultPoint, u32>::new();
        reached.retain(|at| {
            let count = taken.entry(at.point).or_default();
            *count += 1;
            *count <= scenario.most
        });
        Ok(reached)
    }

    /// Runs `scenario` with a fault, and looks what comes of it.
    pub(super) fn run(&self, scenario: &Scenario, at: &Reached, victim: Victim) -> Result<()> {
        let (_dir, mut node) = self.node(scenario)?;
        let fault = Fault {
            point: at.point,
            time: at.time,
            victim,
        };
        let result = strike(&mut node, scenario, fault);
        result.with_context(|| {
            let log = node.logged();
            let lines: Vec<_> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(12)..].join("\n");
            format!("the host's log:\n{tail}")
        })
    }
}

fn strike(node: &mut Node, scenario: &Scenario, fault: Fault) -> Result<()> {
    let victim = fault.victim;
    if node.start(Some(&fault.to_string()))? {
        (scenario.prepare)(node).context("before the fault")?;
        check::settle_unless(node, true)?;
        // It fails with its host, and may fail with its worker: what it leaves is looked at.
        if (scenario.act)(node).is_ok() {
            // What comes only now that nothing is in the way may be what the host dies of.
            release(node, scenario)?;
        }
    }
    if victim == Victim::Worker {
        node.wait_for_strike()?;
    } else {
        node.wait_for_death().context("the fault did not strike")?;
    }
    release(node, scenario)?;
    if victim != Victim::Worker {
        node.start_well()?;
    }
    check::settle(node, scenario.guest_ends)?;
    check::state(node, scenario, Some(victim))?;
    if let Some(clear) = scenario.clear {
        clear(&node.data())?;
    }
    check::delete(node)
}

/// Takes away what hinders the host; it may be gone already.
fn release(node: &Node, scenario: &Scenario) -> Result<()> {
    scenario
        .release
        .map_or(Ok(()), |release| release(&node.data()))
}

/// Copies a folder; sockets in it are not copied.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let to = to.join(entry.file_name());
        if kind.is_dir() {
            copy(&entry.path(), &to)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}
