//! `roost plugin bench`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use roost_model::InstanceMode;
use roost_policy::Facts;
use serde_json::json;

use super::component::Component;
use super::fixture::Fixture;
use crate::cli::Format;
use crate::output;

/// Calls that are not measured.
const WARM_UP: u32 = 50;

/// Make a decision many times here, without a host, and say how long it takes.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    roost plugin bench fixtures/first-incident.json\n  \
    roost plugin bench facts.json --component limits.wasm --calls 10000 -o json")]
pub(crate) struct Bench {
    /// A JSON file with `hook` and `facts`.
    fixture: PathBuf,
    /// The component; that of the project in this folder if absent.
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
    /// How many times.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calls: u32,
}

impl Bench {
    pub(super) fn run(self, format: Format) -> Result<()> {
        let fixture = Fixture::read(&self.fixture)?;
        let component = Component::read(self.component)?;
        let begun = Instant::now();
        let loaded = component.load()?;
        let load = begun.elapsed();
        loaded.decide(&fixture)?;
        let facts = Facts::from_json(fixture.hook, &fixture.facts)?;
        let mut rows = vec![("compile and load", load.as_secs_f64() * 1e3, "ms", 1)];
        for (instance, p50, p99) in [
            (
                InstanceMode::Fresh,
                "decision, fresh instance, p50",
                "decision, fresh instance, p99",
            ),
            (
                InstanceMode::Warm,
                "decision, warm instance, p50",
                "decision, warm instance, p99",
            ),
        ] {
            loaded.bind(&fixture, instance);
            let mut times = Vec::new();
            // The first calls find nothing in any cache.
            for _ in 0..self.calls.saturating_add(WARM_UP) {
                let facts = facts.clone();
                let begun = Instant::now();
                loaded.ask(facts)?;
                times.push(begun.elapsed());
            }
            let mut times = times.split_off(usize::try_from(WARM_UP)?);
            times.sort_unstable();
            let at = |percent: usize| {
                let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
                times
                    .get(index)
                    .map_or(0.0, |time| time.as_secs_f64() * 1e6)
            };
            rows.push((p50, at(50), "us", times.len()));
            rows.push((p99, at(99), "us", times.len()));
        }
        for (name, value, unit, n) in rows {
            match format {
                Format::Json => {
                    let line = json!({ "name": name, "value": value, "unit": unit, "n": n });
                    output::line(&line.to_string())?;
                }
                Format::Table => output::line(&format!("{name:32}{value:>10.1} {unit}"))?,
            }
        }
        Ok(())
    }
}
