//! Asking a candidate about recorded facts: where would it have decided otherwise?
//!
//! Nothing is stored and nothing is done. It runs off the paths that decide, one at a time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roost_model::{DecidedBy, DecisionRecord, Digest, Grant, Hook, Name, VmId};
use roost_policy::{Decision, Facts, LoadedPlugin};
use roost_store::{DecisionFilter, Order, ReadError, Store};
use serde::Serialize;
use serde_json::Value;

use crate::context::Context;
use crate::error::EngineError;
use crate::images::blocking;
use crate::plugins::activate::usable;
use crate::plugins::settle::same;

/// Decisions that are asked about if no number is given.
const DEFAULT_LIMIT: usize = 100;
/// Most decisions that are asked about: each may take a call's whole deadline.
const MAX_LIMIT: usize = 1000;
/// Most that are shown; the others are only counted.
const MAX_ITEMS: usize = 100;
/// Longest that it may take.
const MAX_TIME: Duration = Duration::from_secs(30);
/// Decisions that are read at a time.
const PAGE: usize = 100;

/// What is asked.
#[derive(Debug, Clone)]
pub enum Candidate {
    /// A revision of the plugin; the newest usable one if no number is given.
    Revision(Option<u64>),
    /// A component that is not stored.
    Component {
        /// The component.
        bytes: Vec<u8>,
        /// Its settings as JSON; empty: `{}`.
        settings: String,
        /// What it may import; none given: the log.
        grants: Option<BTreeSet<Grant>>,
    },
}

/// A replay to be made.
#[derive(Debug, Clone)]
pub struct Replay {
    /// The plugin.
    pub plugin: Name,
    /// What is asked.
    pub candidate: Candidate,
    /// Only about decisions of this hook; each that the candidate exports if none is given.
    pub hook: Option<Hook>,
    /// Only about so many, the newest.
    pub limit: Option<usize>,
}

/// What came of a replay.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplayReport {
    /// What was asked.
    pub candidate: ReplayedComponent,
    /// Decisions that it was asked about.
    pub replayed: usize,
    /// Those that came out the same.
    pub same: usize,
    /// Those that came out differently.
    pub differing: usize,
    /// Those that it made no decision about.
    pub failed: usize,
    /// Those that this host can't ask about, because another version of it recorded them.
    pub skipped: usize,
    /// Whether it was asked about all that were wanted: time did not run out.
    pub complete: bool,
    /// Those that came out differently or not at all, the newest first.
    pub items: Vec<ReplayItem>,
}

/// Which component was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplayedComponent {
    /// The revision, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// SHA-256.
    pub digest: Digest,
}

/// A decision that came out differently, or not at all.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplayItem {
    /// Its number in the journal.
    pub number: u64,
    /// What was to be decided.
    pub hook: Hook,
    /// About which VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmId>,
    /// What was decided.
    pub recorded: Value,
    /// Who decided.
    pub recorded_by: DecidedBy,
    /// What the candidate decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Value>,
    /// Why it makes no decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Context {
    /// Asks a candidate about recorded facts.
    pub(crate) async fn replay(&self, replay: Replay) -> Result<ReplayReport, EngineError> {
        let permit = Arc::clone(&self.replays).try_acquire_owned();
        let permit = permit.map_err(|_| EngineError::ReplayBusy)?;
        let plugin = self.plugin(&replay.plugin)?;
        let (revision, loaded, settings) = match replay.candidate {
            Candidate::Revision(number) => {
                let revision = usable(&plugin, number)?;
                let loaded = self.load(revision).await?;
                (Some(revision.revision), loaded, revision.settings.clone())
            }
            Candidate::Component {
                bytes,
                settings,
                grants,
            } => {
                let settings = match settings.as_str() {
                    "" => "{}".to_owned(),
                    _ => settings,
                };
                let grants = grants.unwrap_or_else(|| BTreeSet::from([Grant::Log]));
                let loaded = self.compile(bytes.into(), grants).await?;
                let (asked, checked) = (loaded.clone(), settings.clone());
                blocking(move || asked.validate_settings(&checked)).await??;
                (None, loaded, settings)
            }
        };
        let mut hooks = loaded.hooks().clone();
        hooks.remove(&Hook::Observer);
        if let Some(hook) = replay.hook {
            if !hooks.contains(&hook) {
                let plugin = replay.plugin;
                return Err(EngineError::NotExported { plugin, hook });
            }
            hooks = BTreeSet::from([hook]);
        }
        let run = Run {
            store: self.store.clone(),
            loaded,
            settings,
            hooks,
            limit: replay.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT),
            deadline: Instant::now() + MAX_TIME,
        };
        self.metrics.replayed();
        // A caller that goes away does not end it: the place stays taken until it has ended.
        Ok(blocking(move || {
            let report = run.run(revision);
            drop(permit);
            report
        })
        .await??)
    }
}

struct Run {
    store: Store,
    loaded: LoadedPlugin,
    settings: String,
    hooks: BTreeSet<Hook>,
    limit: usize,
    deadline: Instant,
}

impl Run {
    fn run(&self, revision: Option<u64>) -> Result<ReplayReport, ReadError> {
        let mut report = ReplayReport {
            candidate: ReplayedComponent {
                revision,
                digest: Digest::new(self.loaded.digest()),
            },
            replayed: 0,
            same: 0,
            differing: 0,
            failed: 0,
            skipped: 0,
            complete: true,
            items: Vec::new(),
        };
        let mut filter = DecisionFilter::default();
        if let [hook] = self.hooks.iter().collect::<Vec<_>>().as_slice() {
            filter.hook = Some(**hook);
        }
        let mut before = None;
        loop {
            let order = Order::Newest { before };
            let page = self.store.decisions(&filter, order, PAGE)?;
            for record in page.items {
                if report.replayed >= self.limit {
                    return Ok(report);
                }
                if Instant::now() >= self.deadline {
                    report.complete = false;
                    return Ok(report);
                }
                if self.hooks.contains(&record.decision.hook) {
                    self.ask(record, &mut report);
                }
            }
            match page.next {
                Some(next) if Instant::now() < self.deadline => before = Some(next),
                next => {
                    report.complete &= next.is_none();
                    return Ok(report);
                }
            }
        }
    }

    fn ask(&self, record: DecisionRecord, report: &mut ReplayReport) {
        let hook = record.decision.hook;
        let (Ok(mut facts), Ok(recorded)) = (
            Facts::from_json(hook, &record.decision.facts),
            Decision::from_json(hook, &record.decision.decision),
        ) else {
            report.skipped += 1;
            return;
        };
        facts.context_mut().settings.clone_from(&self.settings);
        report.replayed += 1;
        let (candidate, error) = match self.loaded.decide(&facts) {
            Ok(decision) if same(&recorded, &decision) => {
                report.same += 1;
                return;
            }
            Ok(decision) => {
                report.differing += 1;
                (Some(decision.to_json()), None)
            }
            Err(error) => {
                report.failed += 1;
                (None, Some(error.to_string()))
            }
        };
        if report.items.len() < MAX_ITEMS {
            report.items.push(ReplayItem {
                number: record.number,
                hook,
                vm: record.decision.vm,
                recorded: record.decision.decision,
                recorded_by: record.decision.decided_by,
                candidate,
                error,
            });
        }
    }
}
