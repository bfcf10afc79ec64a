//! `cargo xtask crash-matrix`: the host, its worker, or both are killed at every point at which
//! that can make a difference, and what the next host makes of it is looked at.
//!
//! Which points there are is not written here. Each scenario runs once with a trace; every point
//! in it becomes up to three cells, and a point of `roost_model::FaultPoint` that no scenario
//! reaches is an error.

mod cell;
mod check;
mod node;
mod scenario;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use roost_model::{Effect, FaultPoint, Victim};

use crate::measure::Measure;
use crate::workspace;
use cell::{Prepared, Reached};
use node::Node;
use scenario::Scenario;

/// The tag of the guest's kernel.
const KERNEL: &str = "hello:1";
/// That of a guest that prints nothing.
const SILENT_KERNEL: &str = "silent:1";

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask crash-matrix                              every point: some minutes\n  \
    cargo xtask crash-matrix --only spawn-worker          the points of one effect\n  \
    cargo xtask crash-matrix --scenario boot --json       those of one verb")]
pub(crate) struct Arguments {
    /// Only points whose name contains this, such as `spawn-worker` or `pause-guest:after`
    #[arg(long, value_name = "POINT")]
    only: Option<String>,
    /// Only this scenario
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// Cells that run side by side
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// This `roost` rather than one that is built
    #[arg(long, value_name = "FILE", hide = true)]
    roost: Option<std::path::PathBuf>,
    /// One JSON object a line: name, value, unit, n
    #[arg(long)]
    json: bool,
}

struct Cell {
    scenario: &'static Scenario,
    at: Reached,
    victim: Victim,
}

impl Cell {
    fn name(&self) -> String {
        let Reached { point, time, .. } = self.at;
        format!("{}: {point}:{time}={}", self.scenario.name, self.victim)
    }
}

/// Runs all of it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let roost = match &arguments.roost {
        Some(roost) => roost.clone(),
        None => workspace::tested_roost()?,
    };
    run_with(arguments, &roost)
}

/// The whole matrix, for `cargo xtask test`.
pub(crate) fn run_all() -> Result<()> {
    run(&Arguments {
        only: None,
        scenario: None,
        jobs: 4,
        roost: None,
        json: false,
    })
}

fn run_with(arguments: &Arguments, roost: &Path) -> Result<()> {
    let begun = Instant::now();
    if !may_make_taps() {
        println!("this user may make no TAPs: the VM has no network, and make-tap is not reached");
    }
    let template = tempfile::tempdir()?;
    prepare(roost, template.path())?;
    let data = template.path().join("data");
    let prepared = Prepared {
        roost,
        template: &data,
    };
    let cells = cells(arguments, &prepared)?;
    let failed = run_cells(arguments, &prepared, &cells);
    report(arguments, &cells, begun.elapsed());
    if !failed.is_empty() {
        for failure in &failed {
            println!("FAILED {failure}\n");
        }
        bail!("{} of {} cells failed", failed.len(), cells.len());
    }
    Ok(())
}

/// A data folder whose policies are compiled and whose image is there: cells start in no time.
fn prepare(roost: &Path, dir: &Path) -> Result<()> {
    let mut node = Node::new(roost, dir, &[]);
    node.start_well().context("preparing")?;
    for (tag, kernel) in [
        (KERNEL, roost_guests::HELLO),
        (SILENT_KERNEL, roost_guests::SILENT),
    ] {
        node.send("POST", &format!("/v1/images?tag={tag}"), kernel)?;
    }
    let plugin = "/v1/plugins/admission-limits";
    let shown = node.get(plugin)?;
    let revision = shown["active"].as_u64().context("no active revision")?;
    let path = format!("{plugin}/revisions/{revision}/component");
    let component = crate::http::request(&node.data().join("roost.sock"), "GET", &path)?;
    let settings: String = scenario::ADMISSION
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect();
    let path = format!("{plugin}/revisions?settings={settings}");
    node.send("POST", &path, &component)?;
    node.post(&format!("{plugin}/activate"))?;
    node.stop()
}

/// Traces every scenario; returns the cells that are to be run.
fn cells(arguments: &Arguments, prepared: &Prepared<'_>) -> Result<Vec<Cell>> {
    let wanted: Vec<&'static Scenario> = scenario::ALL
        .iter()
        .filter(|scenario| {
            arguments
                .scenario
                .as_deref()
                .is_none_or(|name| name == scenario.name)
        })
        .collect();
    ensure!(!wanted.is_empty(), "there is no such scenario");
    let mut cells = Vec::new();
    let mut reached = BTreeSet::new();
    for scenario in wanted {
        let points = prepared.trace(scenario);
        for at in points.with_context(|| format!("{} without a fault", scenario.name))? {
            reached.insert(at.point);
            let name = at.point.to_string();
            if arguments
                .only
                .as_ref()
                .is_none_or(|only| name.contains(only))
            {
                cells.extend(at.victims().map(|victim| Cell {
                    scenario,
                    at,
                    victim,
                }));
            }
        }
    }
    if arguments.scenario.is_none() {
        every_point_is_reached(&reached)?;
    }
    ensure!(!cells.is_empty(), "no point has that in its name");
    Ok(cells)
}

/// That a new effect can't be forgotten.
fn every_point_is_reached(reached: &BTreeSet<FaultPoint>) -> Result<()> {
    let excused = |effect: Effect| {
        let listed = scenario::OUT_OF_REACH
            .iter()
            .any(|(known, _)| *known == effect);
        listed || effect == Effect::MakeTap && !may_make_taps()
    };
    let missing: Vec<String> = FaultPoint::all()
        .filter(|point| !reached.contains(point) && !excused(point.effect))
        .map(|point| point.to_string())
        .collect();
    ensure!(
        missing.is_empty(),
        "no scenario reaches {}",
        missing.join(", ")
    );
    Ok(())
}

/// Runs the cells side by side; returns what went wrong.
fn run_cells(arguments: &Arguments, prepared: &Prepared<'_>, cells: &[Cell]) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = prepared.run(cell.scenario, &cell.at, cell.victim) {
                        let failure = format!("{}: {error:#}", cell.name());
                        eprintln!("{failure}");
                        if let Ok(mut failed) = failed.lock() {
                            failed.push(failure);
                        }
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_default()
}

fn report(arguments: &Arguments, cells: &[Cell], elapsed: Duration) {
    let points: BTreeSet<FaultPoint> = cells.iter().map(|cell| cell.at.point).collect();
    let places: BTreeSet<_> = cells
        .iter()
        .map(|cell| (cell.scenario.name, cell.at.point, cell.at.time))
        .collect();
    let print = |name, value, unit| {
        Measure {
            name,
            value,
            unit,
            n: 1,
        }
        .print(arguments.json);
    };
    print("crash-matrix.points", points.len() as f64, "");
    print("crash-matrix.places", places.len() as f64, "");
    print("crash-matrix.cells", cells.len() as f64, "");
    print("crash-matrix.time", elapsed.as_secs_f64(), "s");
    if !arguments.json {
        for (effect, why) in scenario::OUT_OF_REACH {
            println!("not here: {effect}: {why}");
        }
    }
}

/// Whether this user may make a TAP: root, where there is `/dev/net/tun`.
fn may_make_taps() -> bool {
    rustix::process::geteuid().is_root() && fs::exists("/dev/net/tun").unwrap_or_default()
}
