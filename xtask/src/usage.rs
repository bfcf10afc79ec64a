//! Whether usage windows and charges add up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

fn list<'a>(usage: &'a Value, name: &str) -> Result<&'a [Value]> {
    usage[name]
        .as_array()
        .map(Vec::as_slice)
        .with_context(|| format!("usage has no {name}: {usage}"))
}

fn number(value: &Value, name: &str) -> Result<u64> {
    value[name]
        .as_u64()
        .with_context(|| format!("{name} is missing in {value}"))
}

/// (incarnation, sequence) of a window or a charge.
fn key(value: &Value) -> Result<(u64, u64)> {
    Ok((number(value, "incarnation")?, number(value, "sequence")?))
}

/// Whether every window in which the VM ran has been charged for.
pub(crate) fn all_charged(usage: &Value) -> Result<bool> {
    let charges = list(usage, "charges")?;
    for window in list(usage, "windows")? {
        let key = key(window)?;
        let used = number(window, "running_ns")? > 0;
        if used
            && !charges
                .iter()
                .any(|charge| self::key(charge).is_ok_and(|k| k == key))
        {
            return Ok(false);
        }
    }
    Ok(!charges.is_empty())
}

/// What the windows and charges of a VM add up to, after checking that they do.
pub(crate) struct Sums {
    /// How many there are.
    pub(crate) windows: usize,
    /// How many, by what closed them.
    pub(crate) closed_by: BTreeMap<String, u32>,
    /// CPU time of the vCPUs, ns, by incarnation.
    pub(crate) incarnations: BTreeMap<u64, u64>,
    /// How many there are.
    pub(crate) charges: usize,
    /// By currency.
    pub(crate) amounts: BTreeMap<String, u64>,
}

impl Sums {
    pub(crate) fn of(usage: &Value) -> Result<Self> {
        let mut windows = list(usage, "windows")?.iter().collect::<Vec<_>>();
        windows.sort_by_key(|window| key(window).unwrap_or_default());
        let mut sums = Self {
            windows: windows.len(),
            closed_by: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            charges: 0,
            amounts: BTreeMap::new(),
        };
        let mut last: Option<&Value> = None;
        for window in windows {
            let (incarnation, sequence) = key(window)?;
            let before = last.filter(|last| last["incarnation"] == incarnation);
            let expected = match before {
                Some(last) => number(last, "sequence")? + 1,
                None => 1,
            };
            ensure!(sequence == expected, "a gap before {window}");
            let sum = sums.incarnations.entry(incarnation).or_default();
            *sum += number(window, "vcpu_cpu_ns")?;
            ensure!(
                *sum == number(&window["counters"], "vcpu_cpu_ns")?,
                "the windows up to {window} add up to {sum} ns"
            );
            ensure!(
                number(window, "start_ms")? <= number(window, "end_ms")?,
                "a window ends before it starts: {window}"
            );
            let close = window["close"].as_str().unwrap_or_default().to_owned();
            *sums.closed_by.entry(close).or_default() += 1;
            last = Some(window);
        }
        sums.add_charges(list(usage, "charges")?)?;
        Ok(sums)
    }

    /// That each of `closes` has closed a window.
    pub(crate) fn were_closed_by(&self, closes: &[&str]) -> Result<()> {
        for close in closes {
            ensure!(
                self.closed_by.contains_key(*close),
                "no window was closed by {close}"
            );
        }
        Ok(())
    }

    fn add_charges(&mut self, charges: &[Value]) -> Result<()> {
        let mut seen = Vec::new();
        for charge in charges {
            let name = (key(charge)?, charge["item"].as_str().unwrap_or_default());
            ensure!(!seen.contains(&name), "charged twice: {charge}");
            seen.push(name);
            let amount = number(charge, "amount_nanos")?;
            ensure!(
                number(charge, "quantity")?.checked_mul(number(charge, "unit_price_nanos")?)
                    == Some(amount),
                "quantity times price is not the amount: {charge}"
            );
            let currency = charge["currency"].as_str().unwrap_or_default().to_owned();
            *self.amounts.entry(currency).or_default() += amount;
        }
        self.charges = charges.len();
        Ok(())
    }
}

/// The name of a usage window: VM, incarnation, sequence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Window {
    vm: String,
    incarnation: u64,
    sequence: u64,
}

impl Window {
    /// Of a window or a charge.
    fn of(item: &Value) -> Result<Self> {
        let (incarnation, sequence) = key(item)?;
        let vm = item["vm"].as_str().context("whose window?")?.to_owned();
        Ok(Self {
            vm,
            incarnation,
            sequence,
        })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.vm, self.incarnation, self.sequence)
    }
}

/// The item that every window is charged for.
const EVERY: &str = "vcpu-time";

/// What the event log tells about usage: which windows were closed and charged for, and which
/// incarnations ran. It is told once of each event.
#[derive(Default)]
pub(crate) struct Told {
    vms: BTreeMap<String, OfVm>,
    /// Windows that were closed and are not charged for yet.
    unbilled: BTreeSet<Window>,
}

#[derive(Default)]
struct OfVm {
    windows: BTreeSet<Window>,
    incarnations: BTreeSet<u64>,
}

impl Told {
    /// Takes in one event.
    ///
    /// # Errors
    /// A window is closed twice, or charged for twice or before it was closed.
    pub(crate) fn hear(&mut self, event: &Value) -> Result<()> {
        match event["kind"].as_str() {
            Some("window-closed") => {
                let window = Window::of(&event["window"])?;
                let of_vm = self.vms.entry(window.vm.clone()).or_default();
                ensure!(
                    of_vm.windows.insert(window.clone()),
                    "{window} is closed twice: {event}"
                );
                self.unbilled.insert(window);
            }
            Some("charged") => {
                let charges = event["charges"].as_array().into_iter().flatten();
                for charge in charges.filter(|charge| charge["item"] == EVERY) {
                    let window = Window::of(charge)?;
                    ensure!(
                        self.unbilled.remove(&window),
                        "{window} is charged for twice, or was never closed: {event}"
                    );
                }
            }
            Some("state-changed") if event["to"] == "running" => {
                let vm = event["vm"].as_str().context("which VM?")?.to_owned();
                let incarnation = number(event, "incarnation")?;
                let of_vm = self.vms.entry(vm).or_default();
                of_vm.incarnations.insert(incarnation);
            }
            _ => {}
        }
        Ok(())
    }

    /// A window that is not charged for yet.
    pub(crate) fn unbilled(&self) -> Option<&Window> {
        self.unbilled.first()
    }

    /// The VMs that ran.
    pub(crate) fn vms(&self) -> impl Iterator<Item = &str> {
        self.vms.keys().map(String::as_str)
    }

    /// Forgets a VM that is deleted and was looked at.
    pub(crate) fn forget(&mut self, vm: &str) {
        self.vms.remove(vm);
    }

    /// That the windows and charges of the VM with this id are those of the log, without gaps, and
    /// that each incarnation that ran has some. `record` is the VM's, if it is still there.
    pub(crate) fn agrees_with(
        &self,
        vm: &str,
        usage: &Value,
        record: Option<&Value>,
    ) -> Result<()> {
        let sums = Sums::of(usage)?;
        let nothing = OfVm::default();
        let told = self.vms.get(vm).unwrap_or(&nothing);
        let set = |name: &str, item: Option<&str>| -> Result<BTreeSet<Window>> {
            let items = list(usage, name)?.iter();
            let items = items.filter(|found| item.is_none_or(|item| found["item"] == item));
            items.map(Window::of).collect()
        };
        let (windows, charged) = (set("windows", None)?, set("charges", Some(EVERY))?);
        ensure!(
            windows == told.windows,
            "windows {windows:?}, by the event log {:?}",
            told.windows
        );
        ensure!(
            charged == told.windows,
            "charged for {charged:?} of the windows {windows:?}"
        );
        // The window of an incarnation that goes on is open.
        let going_on =
            record.filter(|vm| matches!(vm["state"].as_str(), Some("running" | "paused")));
        let going_on = going_on.and_then(|vm| vm["incarnation"].as_u64());
        let mut ran = told
            .incarnations
            .iter()
            .filter(|ran| Some(**ran) != going_on);
        match ran.find(|ran| !sums.incarnations.contains_key(ran)) {
            None => Ok(()),
            Some(ran) => bail!("incarnation {ran} ran and no window says so: {usage}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn window(incarnation: u64, sequence: u64, used: u64, sum: u64, close: &str) -> Value {
        json!({
            "incarnation": incarnation, "sequence": sequence, "start_ms": 1, "end_ms": 2,
            "vcpu_cpu_ns": used, "running_ns": 1, "counters": { "vcpu_cpu_ns": sum },
            "close": close,
        })
    }

    #[test]
    fn windows_with_a_gap_or_a_wrong_sum_do_not_add_up() {
        let good = [
            window(1, 1, 5, 5, "pause"),
            window(1, 2, 3, 8, "crash"),
            window(2, 1, 4, 4, "adoption"),
            window(2, 2, 1, 5, "stop"),
        ];
        let usage = |windows: &[Value]| json!({ "windows": windows, "charges": [] });
        let sums = Sums::of(&usage(&good)).unwrap();
        assert_eq!(sums.incarnations, BTreeMap::from([(1, 8), (2, 5)]));
        let mut gap = good.clone();
        gap[3]["sequence"] = 3.into();
        assert!(Sums::of(&usage(&gap)).is_err());
        let mut wrong = good;
        wrong[1]["vcpu_cpu_ns"] = 4.into();
        assert!(Sums::of(&usage(&wrong)).is_err());
    }

    #[test]
    fn a_window_charged_twice_or_at_a_wrong_price_is_noticed() {
        let charge = json!({
            "incarnation": 1, "sequence": 1, "item": "vcpu-time", "quantity": 3,
            "unit_price_nanos": 2, "amount_nanos": 6, "currency": "EUR",
        });
        let sums = || Sums {
            windows: 0,
            closed_by: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            charges: 0,
            amounts: BTreeMap::new(),
        };
        assert!(sums().add_charges(std::slice::from_ref(&charge)).is_ok());
        assert!(
            sums()
                .add_charges(&[charge.clone(), charge.clone()])
                .is_err()
        );
        let mut wrong = charge;
        wrong["amount_nanos"] = 7.into();
        assert!(sums().add_charges(&[wrong]).is_err());
    }

    fn closed(incarnation: u64, sequence: u64) -> Value {
        let mut window = window(incarnation, sequence, 0, 0, "grid");
        window["vm"] = "vm-1".into();
        json!({ "kind": "window-closed", "window": window })
    }

    fn charge(incarnation: u64, sequence: u64) -> Value {
        json!({
            "vm": "vm-1", "incarnation": incarnation, "sequence": sequence, "item": EVERY,
            "quantity": 0, "unit_price_nanos": 2, "amount_nanos": 0, "currency": "EUR",
        })
    }

    fn charged(incarnation: u64, sequence: u64) -> Value {
        json!({ "kind": "charged", "charges": [charge(incarnation, sequence)] })
    }

    #[test]
    fn a_window_that_is_closed_or_charged_for_twice_is_noticed_when_it_happens() {
        let mut told = Told::default();
        told.hear(&closed(1, 1)).unwrap();
        assert_eq!(told.unbilled().unwrap().to_string(), "vm-1/1/1");
        assert!(told.hear(&closed(1, 1)).is_err());
        told.hear(&charged(1, 1)).unwrap();
        assert_eq!(told.unbilled(), None);
        assert!(told.hear(&charged(1, 1)).is_err());
        assert!(told.hear(&charged(1, 2)).is_err());
    }

    #[test]
    fn usage_that_differs_from_the_log_is_noticed() {
        let mut told = Told::default();
        for event in [
            json!({ "kind": "state-changed", "to": "running", "vm": "vm-1", "incarnation": 1 }),
            closed(1, 1),
            charged(1, 1),
        ] {
            told.hear(&event).unwrap();
        }
        let usage = |windows: &[Value], charges: &[Value]| json!({ "windows": windows, "charges": charges });
        let window = closed(1, 1)["window"].clone();
        let good = usage(std::slice::from_ref(&window), &[charge(1, 1)]);
        told.agrees_with("vm-1", &good, None).unwrap();
        for wrong in [
            usage(&[], &[]),
            usage(&[window], &[]),
            usage(&[], &[charge(1, 1)]),
        ] {
            assert!(told.agrees_with("vm-1", &wrong, None).is_err(), "{wrong}");
        }
        // Incarnation 2 ran: its window is open while it runs, and closed afterwards.
        let ran =
            json!({ "kind": "state-changed", "to": "running", "vm": "vm-1", "incarnation": 2 });
        told.hear(&ran).unwrap();
        assert!(told.agrees_with("vm-1", &good, None).is_err());
        let running = json!({ "state": "running", "incarnation": 2 });
        told.agrees_with("vm-1", &good, Some(&running)).unwrap();
    }
}
