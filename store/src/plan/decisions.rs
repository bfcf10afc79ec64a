//! Decisions in a plan.

use roost_model::{DecisionRecord, NewDecision};

use super::{Plan, Refused, next};
use crate::schema::{self as tables, encode};

impl Plan<'_> {
    pub(super) fn append_decision(&mut self, decision: NewDecision) -> Result<(), Refused> {
        self.numbers.decision = next(tables::DECISIONS, self.numbers.decision)?;
        let number = self.numbers.decision;
        let value = encode(tables::DECISIONS, &DecisionRecord { number, decision })?;
        self.decision_bytes = self.decision_bytes.saturating_add(value.len() as u64);
        self.put_raw(tables::DECISIONS, &number.to_be_bytes(), value);
        Ok(())
    }
}
