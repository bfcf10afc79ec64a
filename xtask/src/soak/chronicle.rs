//! What the event log must tell: one story for each VM, in which nothing is twice and nothing comes
//! from nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::plan::{Guest, PLUGINS};
use super::shared::Facts;
use crate::node::Node;
use crate::usage::Told;

/// Most events that are asked for at once.
const PAGE: usize = 1000;

/// How long a window that the grid has closed may take to be charged for.
const PATIENCE: Duration = Duration::from_secs(10);

/// From which state a VM goes to which.
const WAYS: [(&str, &[&str]); 10] = [
    ("creating", &["stopped"]),
    ("stopped", &["starting", "deleting"]),
    ("starting", &["running", "failed"]),
    ("running", &["pausing", "stopping", "failed", "deleting"]),
    ("pausing", &["paused", "running", "failed"]),
    ("paused", &["resuming", "stopping", "failed", "deleting"]),
    ("resuming", &["running", "failed"]),
    ("stopping", &["stopped", "starting"]),
    ("failed", &["starting", "stopping", "stopped", "deleting"]),
    ("deleting", &["deleted"]),
];

/// Everything that was read of the event log.
#[derive(Default)]
pub(super) struct Chronicle {
    last: u64,
    lives: BTreeMap<String, Life>,
    /// Operations that ended: whether it was a success.
    ended: BTreeMap<String, bool>,
    pub(super) told: Told,
    pub(super) incidents: u64,
    pub(super) policy_failures: u64,
    pub(super) quarantines: u64,
}

/// What is known of a VM.
struct Life {
    state: String,
    incarnation: u64,
    /// Incidents, and whether one was decided about.
    incidents: BTreeMap<String, bool>,
    /// Incarnations whose worker's end, or whose guest's, was an incident.
    lost: BTreeSet<u64>,
    /// What a decision says must be the next state.
    next: Option<&'static str>,
}

impl Chronicle {
    /// Reads on to the end of the log.
    pub(super) fn read_on(&mut self, node: &Node, facts: &Facts) -> Result<()> {
        loop {
            let path = format!("/v1/events?after={}&limit={PAGE}", self.last);
            let events = node.items(&path)?;
            for event in &events {
                self.hear(event, facts)
                    .with_context(|| format!("event {event}"))?;
            }
            if events.len() < PAGE {
                return Ok(());
            }
        }
    }

    fn hear(&mut self, event: &Value, facts: &Facts) -> Result<()> {
        let number = event["number"].as_u64().context("it has no number")?;
        ensure!(number == self.last + 1, "after number {}", self.last);
        self.last = number;
        self.told.hear(event)?;
        let vm = event["vm"].as_str().unwrap_or_default();
        let kind = event["kind"].as_str().context("it has no kind")?;
        match kind {
            "state-changed" => self.goes(vm, event),
            "operation-ended" => {
                let id = event["operation"].as_str().context("which operation?")?;
                let succeeded = event["error"].is_null() && event["cancelled"].is_null();
                let before = self.ended.insert(id.to_owned(), succeeded);
                ensure!(before.is_none(), "it had ended already");
                Ok(())
            }
            "incident-opened" => {
                self.incidents += 1;
                self.incident(vm, event, facts)
            }
            "recovery-decided" => self.decided(vm, event),
            "diverged" => Self::diverged(vm, event, facts),
            "action-required" | "action-resolved" => bail!("nobody has to act"),
            "policy-failed" => {
                self.policy_failures += 1;
                Self::by_soak(event)
            }
            "plugin-quarantined" => {
                self.quarantines += 1;
                Self::by_soak(event)
            }
            _ => Ok(()),
        }
    }

    fn goes(&mut self, vm: &str, event: &Value) -> Result<()> {
        let (from, to) = (&event["from"], &event["to"]);
        let (from, to) = (from.as_str().context("from?")?, to.as_str().context("to?")?);
        if from == "creating" {
            let life = Life {
                state: from.to_owned(),
                incarnation: 0,
                incidents: BTreeMap::new(),
                lost: BTreeSet::new(),
                next: None,
            };
            let before = self.lives.insert(vm.to_owned(), life);
            ensure!(before.is_none(), "it was created before");
        }
        let life = self.lives.get_mut(vm).context("it was never created")?;
        ensure!(life.state == from, "it was {}", life.state);
        let ways = WAYS.iter().find(|(state, _)| *state == from);
        ensure!(
            ways.is_some_and(|(_, ways)| ways.contains(&to)),
            "there is no way from there to there"
        );
        if let Some(next) = life.next.take() {
            ensure!(next == to, "it was decided that it is to be {next}");
        }
        if to == "starting" {
            life.incarnation += 1;
        }
        let incarnation = event["incarnation"].as_u64().unwrap_or_default();
        ensure!(
            incarnation == life.incarnation,
            "it is incarnation {}",
            life.incarnation
        );
        to.clone_into(&mut life.state);
        Ok(())
    }

    fn incident(&mut self, vm: &str, event: &Value, facts: &Facts) -> Result<()> {
        let life = self.lives.get_mut(vm).context("of which VM?")?;
        let id = event["incident"].as_str().context("which incident?")?;
        let incarnation = event["incarnation"].as_u64().context("of which one?")?;
        let before = life.incidents.insert(id.to_owned(), false);
        ensure!(before.is_none(), "it was opened before");
        let killed = facts.killed.contains(&(vm.to_owned(), incarnation));
        match event["incident_kind"].as_str() {
            Some("worker-exit" | "worker-missing") => {
                ensure!(killed, "nobody killed the worker");
            }
            Some("guest-failure") => ensure!(
                facts
                    .guests
                    .get(vm)
                    .is_none_or(|guest| *guest == Guest::Crashes),
                "its guest does not fail"
            ),
            // Recovery's boots, and those of guests that reset themselves.
            Some("start-failed") => ensure!(killed, "nothing was in the way of the boot"),
            _ => bail!("there is no reason for it"),
        }
        ensure!(
            life.lost.insert(incarnation),
            "incarnation {incarnation} was lost already"
        );
        Ok(())
    }

    fn decided(&mut self, vm: &str, event: &Value) -> Result<()> {
        let life = self.lives.get_mut(vm).context("about which VM?")?;
        let id = event["incident"]
            .as_str()
            .context("about which incident?")?;
        let decided = life.incidents.get_mut(id).context("it was not opened")?;
        ensure!(!*decided, "it was decided already");
        *decided = true;
        life.next = match event["action"].as_str() {
            Some("leave-stopped") => Some("stopped"),
            Some("destroy") => Some("deleting"),
            Some("restart" | "mark-failed") => None,
            _ => bail!("nobody decides so"),
        };
        Ok(())
    }

    /// What an audit may find: what was done to the node.
    fn diverged(vm: &str, event: &Value, facts: &Facts) -> Result<()> {
        let done = match event["divergence"].as_str() {
            Some("worker-missing") => facts.killed.iter().any(|(killed, _)| killed == vm),
            Some("run-directory-unrecorded") => facts.strangers.contains(vm),
            _ => false,
        };
        ensure!(done, "nobody did that");
        Ok(())
    }

    fn by_soak(event: &Value) -> Result<()> {
        let ours = PLUGINS.iter().any(|plugin| event["plugin"] == plugin.name);
        ensure!(ours, "a policy that works failed");
        Ok(())
    }

    /// That the log and the usage of a VM tell the same. The window of one that runs may just have
    /// been closed by the grid, so that the log is to be read on.
    fn usage(
        &mut self,
        node: &Node,
        facts: &Facts,
        id: &str,
        record: Option<&Value>,
    ) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let usage = node.get(&format!("/v1/usage?vm={id}&limit=10000"))?;
            match self.told.agrees_with(id, &usage, record) {
                Err(_) if record.is_some() && Instant::now() < deadline => {
                    self.read_on(node, facts)?;
                }
                agrees => return agrees,
            }
        }
    }

    /// That the log, the records and the answers tell the same, now that nothing is under way.
    pub(super) fn agrees_with(
        &mut self,
        node: &Node,
        records: &[Value],
        facts: &mut Facts,
    ) -> Result<()> {
        for (operation, succeeded) in std::mem::take(&mut facts.ended) {
            ensure!(
                self.ended.get(&operation) == Some(&succeeded),
                "{operation} was answered with success: {succeeded}, in the log: {:?}",
                self.ended.get(&operation)
            );
        }
        let of_id = |id: &str| records.iter().find(|record| record["id"] == id);
        for (id, life) in &self.lives {
            let record = of_id(id);
            let state = record.map_or("deleted", |record| {
                record["state"].as_str().unwrap_or_default()
            });
            ensure!(
                state == life.state,
                "{id} is {state}, in the log {}",
                life.state
            );
            if let Some(record) = record {
                ensure!(
                    record["incarnation"] == life.incarnation,
                    "{id}: incarnation {} in the log: {record}",
                    life.incarnation
                );
            }
            ensure!(life.next.is_none(), "{id}: a decision was not carried out");
            let undecided = life.incidents.iter().find(|(_, decided)| !**decided);
            ensure!(
                undecided.is_none() || record.is_none(),
                "{id}: nobody decided about {undecided:?}"
            );
        }
        let ids: Vec<String> = self.lives.keys().cloned().collect();
        for id in &ids {
            self.usage(node, facts, id, of_id(id))
                .with_context(|| format!("the usage of {id}"))?;
        }
        let unknown = records.iter().find(|record| {
            !self
                .lives
                .contains_key(record["id"].as_str().unwrap_or_default())
        });
        ensure!(unknown.is_none(), "not in the log: {unknown:?}");
        // What is deleted was looked at.
        let gone: Vec<String> = self
            .lives
            .keys()
            .filter(|id| of_id(id).is_none())
            .cloned()
            .collect();
        for id in gone {
            self.lives.remove(&id);
            self.told.forget(&id);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn changed(from: &str, to: &str, incarnation: u64) -> Value {
        json!({ "kind": "state-changed", "vm": "vm-1", "from": from, "to": to,
                "incarnation": incarnation })
    }

    fn story(events: &[Value], facts: &Facts) -> Result<Chronicle> {
        let mut chronicle = Chronicle::default();
        for (number, event) in (1_u64..).zip(events) {
            let mut event = event.clone();
            event["number"] = number.into();
            chronicle.hear(&event, facts)?;
        }
        Ok(chronicle)
    }

    /// A VM that runs and whose worker is lost; then the recovery policy's decision.
    fn incident(action: &str) -> Vec<Value> {
        vec![
            changed("creating", "stopped", 0),
            changed("stopped", "starting", 1),
            changed("starting", "running", 1),
            changed("running", "failed", 1),
            json!({ "kind": "incident-opened", "vm": "vm-1", "incident": "inc-1",
                    "incident_kind": "worker-exit", "incarnation": 1 }),
            json!({ "kind": "recovery-decided", "vm": "vm-1", "incident": "inc-1",
                    "action": action }),
        ]
    }

    fn killed() -> Facts {
        Facts {
            killed: BTreeSet::from([("vm-1".to_owned(), 1)]),
            ..Facts::default()
        }
    }

    #[test]
    fn an_incident_has_one_reason_and_one_decision() {
        let good = incident("restart");
        story(&good, &killed()).unwrap();
        assert!(story(&good, &Facts::default()).is_err(), "nobody did it");
        for again in [&good[4], &good[5]] {
            let twice = [good.as_slice(), std::slice::from_ref(again)].concat();
            assert!(story(&twice, &killed()).is_err(), "{again}");
        }
    }

    #[test]
    fn a_decision_is_carried_out() {
        let stopped = changed("failed", "stopped", 1);
        let starting = changed("failed", "starting", 2);
        let after = |action, event: &Value| {
            let events = [incident(action).as_slice(), std::slice::from_ref(event)].concat();
            story(&events, &killed())
        };
        after("leave-stopped", &stopped).unwrap();
        after("restart", &starting).unwrap();
        assert!(after("leave-stopped", &starting).is_err());
        assert!(after("destroy", &starting).is_err());
    }

    #[test]
    fn states_and_incarnations_follow_one_another() {
        let good = [
            changed("creating", "stopped", 0),
            changed("stopped", "starting", 1),
            changed("starting", "running", 1),
        ];
        story(&good, &Facts::default()).unwrap();
        for (at, wrong) in [
            (1, changed("running", "paused", 1)),
            (1, changed("stopped", "running", 1)),
            (1, changed("stopped", "starting", 2)),
            (2, changed("stopped", "starting", 1)),
            (0, changed("stopped", "starting", 1)),
        ] {
            let mut events = good.to_vec();
            events[at] = wrong.clone();
            assert!(story(&events, &Facts::default()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_audit_finds_only_what_was_done() {
        let found = |kind: &str| {
            let event = json!({ "kind": "diverged", "vm": "vm-1", "divergence": kind });
            story(&[event], &killed())
        };
        found("worker-missing").unwrap();
        assert!(found("run-directory-unrecorded").is_err());
        assert!(found("window-missing").is_err());
    }
}
