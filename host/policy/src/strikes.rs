//! When a revision that keeps failing is left alone, and when it is tried again.
//!
//! ```text
//!            too many failures in a row             its time is over
//!  trusted ────────────────────────────▶ quarantined ───────────────▶ on trial
//!     ▲                                       ▲                          │  │
//!     │                                       └── the trial fails: twice ┘  │
//!     └──────────────── the trial succeeds ────── as long as before ────────┘
//! ```
//!
//! A plain value with the time passed in: no clock, no lock.

use serde::{Deserialize, Serialize};

/// When a revision is quarantined, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StrikeLimits {
    /// Failures in a row that are one too many.
    pub failures: u32,
    /// How long the first quarantine lasts, ms; each one after a failed trial lasts twice as long.
    pub cool_down_ms: u64,
    /// The longest that one lasts, ms.
    pub longest_ms: u64,
}

impl Default for StrikeLimits {
    /// 5 failures; a minute, doubled up to 6 hours.
    fn default() -> Self {
        Self {
            failures: 5,
            cool_down_ms: 60_000,
            longest_ms: 6 * 60 * 60_000,
        }
    }
}

/// A revision that is not asked for now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// When it may be tried again, ms since the Unix epoch.
    pub until_ms: u64,
    /// Quarantines in a row, from 1.
    pub round: u32,
    /// What it failed with last, for a person.
    pub reason: String,
}

/// Whether a revision is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is.
    Ask,
    /// It is, and much depends on it: the outcome must be told to [`Strikes::tried`].
    Try,
    /// It is not.
    Skip,
}

/// How a revision has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Strikes {
    failures: u32,
    quarantine: Option<Quarantine>,
    /// Whether a trial is under way.
    on_trial: bool,
}

impl Strikes {
    /// What was known of it when the host stopped.
    pub(crate) fn restored(quarantine: Quarantine) -> Self {
        Self {
            quarantine: Some(quarantine),
            ..Self::default()
        }
    }

    pub(crate) const fn quarantine(&self) -> Option<&Quarantine> {
        self.quarantine.as_ref()
    }

    /// Whether it is asked at `now_ms`. A [`Turn::Try`] must be followed by [`Strikes::tried`].
    pub(crate) const fn turn(&mut self, now_ms: u64) -> Turn {
        match &self.quarantine {
            None => Turn::Ask,
            Some(quarantine) if self.on_trial || now_ms < quarantine.until_ms => Turn::Skip,
            Some(_) => {
                self.on_trial = true;
                Turn::Try
            }
        }
    }

    /// How a call that was no trial ended: None is a success, else why it failed. True: that is
    /// its quarantine.
    pub(crate) fn asked(
        &mut self,
        failure: Option<&str>,
        now_ms: u64,
        limits: StrikeLimits,
    ) -> bool {
        // It was asked before the quarantine began: too late to count.
        if self.quarantine.is_some() {
            return false;
        }
        let Some(reason) = failure else {
            self.failures = 0;
            return false;
        };
        self.failures = self.failures.saturating_add(1);
        if self.failures < limits.failures.max(1) {
            return false;
        }
        self.confine(1, reason, now_ms, limits);
        true
    }

    /// How the trial ended. A failure doubles the quarantine; success ends it.
    pub(crate) fn tried(&mut self, failure: Option<&str>, now_ms: u64, limits: StrikeLimits) {
        // An operator may have readmitted it meanwhile.
        if !std::mem::take(&mut self.on_trial) {
            return;
        }
        let round = self
            .quarantine
            .take()
            .map_or(0, |quarantine| quarantine.round);
        match failure {
            None => self.failures = 0,
            Some(reason) => self.confine(round.saturating_add(1), reason, now_ms, limits),
        }
    }

    /// The trial came to nothing through no fault of the plugin: another one may be made.
    pub(crate) const fn trial_void(&mut self) {
        self.on_trial = false;
    }

    fn confine(&mut self, round: u32, reason: &str, now_ms: u64, limits: StrikeLimits) {
        let doublings = round.saturating_sub(1).min(63);
        let length_ms = limits
            .cool_down_ms
            .saturating_mul(1 << doublings)
            .min(limits.longest_ms);
        *self = Self::restored(Quarantine {
            until_ms: now_ms.saturating_add(length_ms),
            round,
            reason: reason.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: StrikeLimits = StrikeLimits {
        failures: 3,
        cool_down_ms: 100,
        longest_ms: 1000,
    };

    #[test]
    fn failures_in_a_row_are_counted_and_a_success_begins_anew() {
        let mut strikes = Strikes::default();
        for _ in 0..10 {
            assert!(!strikes.asked(Some("x"), 0, LIMITS));
            assert!(!strikes.asked(Some("x"), 0, LIMITS));
            assert!(!strikes.asked(None, 0, LIMITS));
        }
        assert_eq!(strikes.turn(0), Turn::Ask);
        assert!(!strikes.asked(Some("a"), 7, LIMITS));
        assert!(!strikes.asked(Some("b"), 7, LIMITS));
        assert!(strikes.asked(Some("c"), 7, LIMITS));
        let expected = Quarantine {
            until_ms: 107,
            round: 1,
            reason: "c".to_owned(),
        };
        assert_eq!(strikes.quarantine(), Some(&expected));
        assert_eq!(strikes.turn(106), Turn::Skip);
    }

    #[test]
    fn each_failed_trial_doubles_the_time_up_to_the_longest() {
        let mut strikes = Strikes::default();
        for _ in 0..3 {
            strikes.asked(Some("x"), 0, LIMITS);
        }
        let mut now = 100;
        for length in [200, 400, 800, 1000, 1000] {
            assert_eq!(strikes.turn(now - 1), Turn::Skip);
            assert_eq!(strikes.turn(now), Turn::Try);
            assert_eq!(strikes.turn(now), Turn::Skip, "one trial at a time");
            strikes.tried(Some("x"), now, LIMITS);
            now += length;
        }
        assert_eq!(strikes.turn(now), Turn::Try);
        strikes.tried(None, now, LIMITS);
        assert_eq!(strikes, Strikes::default());
    }

    #[test]
    fn a_trial_that_says_nothing_about_the_plugin_is_made_again() {
        let mut strikes = Strikes::restored(Quarantine {
            until_ms: 5,
            round: 2,
            reason: String::new(),
        });
        assert_eq!(strikes.turn(5), Turn::Try);
        strikes.trial_void();
        assert_eq!(strikes.turn(5), Turn::Try);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Begin,
        End { failed: bool, which: usize },
        Wait(u64),
        Readmit,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Begin),
            4 => (any::<bool>(), any::<usize>())
                .prop_map(|(failed, which)| Step::End { failed, which }),
            2 => (0u64..400).prop_map(Step::Wait),
            1 => Just(Step::Readmit),
        ]
    }

    proptest! {
        /// Whatever calls begin and end in whatever order: there is at most one trial at a time,
        /// nobody is asked before the time, a quarantine comes only after so many failures, and it
        /// always ends.
        #[test]
        fn calls_in_any_order_keep_the_promises(steps in prop::collection::vec(step(), 0..200)) {
            let mut strikes = Strikes::default();
            let (mut now, mut running, mut failures) = (0u64, Vec::new(), 0u32);
            for step in steps {
                match step {
                    Step::Begin => {
                        let until = strikes.quarantine().map(|q| q.until_ms);
                        let turn = strikes.turn(now);
                        match turn {
                            Turn::Ask => prop_assert_eq!(until, None),
                            Turn::Try => prop_assert!(until.is_some_and(|until| until <= now)),
                            Turn::Skip => prop_assert!(until.is_some()),
                        }
                        if turn != Turn::Skip {
                            running.push(turn);
                        }
                    }
                    Step::End { failed, which } if !running.is_empty() => {
                        let turn = running.remove(which % running.len());
                        let reason = failed.then_some("x");
                        let was = strikes.quarantine().is_some();
                        if turn == Turn::Try {
                            strikes.tried(reason, now, LIMITS);
                        } else {
                            if !was {
                                failures = if failed { failures + 1 } else { 0 };
                            }
                            let begun = strikes.asked(reason, now, LIMITS);
                            prop_assert_eq!(begun, !was && failures >= LIMITS.failures);
                        }
                        if strikes.quarantine().is_some() || turn == Turn::Try {
                            failures = 0;
                        }
                    }
                    Step::End { .. } => {}
                    Step::Wait(ms) => now += ms,
                    Step::Readmit => {
                        strikes = Strikes::default();
                        failures = 0;
                        // What is under way was begun under another rule.
                        running.retain(|turn| *turn == Turn::Ask);
                    }
                }
                prop_assert!(running.iter().filter(|turn| **turn == Turn::Try).count() <= 1);
                if let Some(quarantine) = strikes.quarantine() {
                    prop_assert!(quarantine.until_ms <= now + LIMITS.longest_ms);
                    prop_assert!(quarantine.round >= 1);
                }
            }
        }

        #[test]
        fn no_number_overflows(round in any::<u32>(), now in any::<u64>(), cool in any::<u64>()) {
            let limits = StrikeLimits { failures: 0, cool_down_ms: cool, longest_ms: u64::MAX };
            let quarantine = Quarantine { until_ms: 0, round, reason: String::new() };
            let mut strikes = Strikes::restored(quarantine);
            prop_assert_eq!(strikes.turn(now), Turn::Try);
            strikes.tried(Some("x"), now, limits);
            prop_assert!(strikes.quarantine().is_some_and(|q| q.until_ms >= now));
        }
    }
}
