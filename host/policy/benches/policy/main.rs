//! What a decision costs: in a fresh and in a warm instance, for each hook, on one and two threads,
//! with few facts and with those of 64 VMs; beside the same decision in native Rust and a bare call
//! of the same component by wasmtime. `cargo xtask bench policy` runs it.

mod bare;
mod cases;
#[path = "../../tests/policies/component.rs"]
mod component;
mod facts;
mod measure;
mod native;
mod roost;

use std::path::PathBuf;

use clap::Parser;
use roost_model::InstanceMode;

use bare::Bare;
use cases::{Case, Size};
use measure::{Measure, Series};
use roost::Roost;

#[derive(Parser)]
struct Arguments {
    /// Runs; each value is the median of theirs
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Calls of each thread in a run
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    calls: u32,
    /// The example `night-watch` made from JavaScript
    #[arg(long, value_name = "FILE")]
    javascript: Option<PathBuf>,
    /// One JSON object a line: name, value, unit, n
    #[arg(long)]
    json: bool,
    /// What `cargo bench` passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// Budgets of a decision in the median, µs: of a small component with few facts.
const BUDGET_FRESH_US: f64 = 20.0;
const BUDGET_WARM_US: f64 = 3.0;

fn main() {
    let arguments = Arguments::parse();
    let javascript = arguments
        .javascript
        .as_ref()
        .map(|file| std::fs::read(file).expect("the component of JavaScript can be read"));
    let mut report = Report {
        json: arguments.json,
        missed: Vec::new(),
    };
    report.head();
    for case in cases::all(javascript) {
        for size in Size::ALL {
            measure_case(&case, size, &arguments, &mut report);
        }
    }
    report.end();
}

fn measure_case(case: &Case, size: Size, arguments: &Arguments, report: &mut Report) {
    let facts = (case.facts)(size);
    let name = format!("policy.{}.{}", case.name, size.name());
    let series = Series {
        runs: arguments.runs,
        calls: arguments.calls,
    };
    if let Some(native) = case.native {
        let decided = Roost::new(case, size, InstanceMode::Fresh).decide(facts.clone());
        assert_eq!(decided, native(&facts), "{name}: not the same decision");
        let measured = series.run(1, || (), || (), |(), ()| native(&facts));
        report.add(format!("{name}.native"), &measured, None);
    }
    if let Some(bare) = Bare::new(&case.component, &facts) {
        let fresh = series.run(1, || (), || (), |(), ()| bare.fresh(&facts));
        report.add(format!("{name}.bare-fresh"), &fresh, None);
        let warm = series.run(1, || bare.instance(), || (), |live, ()| live.call(&facts));
        report.add(format!("{name}.bare-warm"), &warm, None);
    }
    for (instance, kind, budget) in [
        (InstanceMode::Fresh, "fresh", BUDGET_FRESH_US),
        (InstanceMode::Warm, "warm", BUDGET_WARM_US),
    ] {
        let roost = Roost::new(case, size, instance);
        for threads in [1, 2] {
            let prepare = || facts.clone();
            let measured = series.run(threads, || (), prepare, |(), facts| roost.ask(facts));
            let has_budget = case.has_budget && size == Size::Small && threads == 1;
            let name = format!("{name}.{kind}.{threads}-thread");
            report.add(name, &measured, has_budget.then_some(budget));
        }
    }
}

/// What is printed.
struct Report {
    json: bool,
    missed: Vec<String>,
}

impl Report {
    fn head(&self) {
        if !self.json {
            println!("{:<56}{:>10}{:>10}{:>10}", "µs", "p50", "p99", "budget");
        }
    }

    fn add(&mut self, name: String, measured: &Measure, budget: Option<f64>) {
        let Measure { p50_us, p99_us, n } = measured;
        if self.json {
            for (quantile, value) in [("p50", p50_us), ("p99", p99_us)] {
                let line = serde_json::json!({
                    "name": format!("{name}.{quantile}"), "value": value, "unit": "us", "n": n,
                });
                println!("{line}");
            }
        } else {
            let of = budget.map_or(String::new(), |budget| format!("{budget:.1}"));
            println!("{name:<56}{p50_us:>10.2}{p99_us:>10.2}{of:>10}");
        }
        if budget.is_some_and(|budget| *p50_us > budget) {
            self.missed.push(name);
        }
    }

    fn end(&self) {
        if !self.missed.is_empty() {
            eprintln!("over the budget: {}", self.missed.join(", "));
        }
    }
}
