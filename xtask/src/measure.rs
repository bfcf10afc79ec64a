//! What is measured, as one JSON object a line.

use serde_json::json;

/// One measured value.
pub(crate) struct Measure<'a> {
    /// What, such as `rig.machine-up`.
    pub(crate) name: &'a str,
    /// How much, in `unit`.
    pub(crate) value: f64,
    /// The unit of `value`.
    pub(crate) unit: &'static str,
    /// Number of runs that `value` is the median of.
    pub(crate) n: usize,
}

impl Measure<'_> {
    /// Prints it: a JSON object on a line of its own, or a line for people.
    pub(crate) fn print(&self, json: bool) {
        let Self {
            name,
            value,
            unit,
            n,
        } = self;
        if json {
            println!(
                "{}",
                json!({ "name": name, "value": value, "unit": unit, "n": n })
            );
        } else {
            println!("{name:<40} {value:>10.3} {unit:<4} (n={n})");
        }
    }
}

/// The middle of `values`, or the mean of the two in the middle; 0 of none.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    match (values.get(upper), values.len() % 2) {
        (Some(value), 1) => *value,
        (Some(value), _) => f64::midpoint(*value, values[upper - 1]),
        (None, _) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(median(&mut []), 0.0);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
