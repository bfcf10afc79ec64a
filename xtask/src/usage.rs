//! Whether usage windows and charges add up.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
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
}
