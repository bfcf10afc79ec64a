//! What a host lets policies take and keep: options of `roost serve`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use roost_engine::{CompileLimits, Config, KvUsage, Retention};
use roost_policy::{CallLimits, StrikeLimits};

const MIB: u64 = 1 << 20;

/// A number from 1 to `$most`; larger ones are typing errors, or would not fit in what is made of
/// them.
macro_rules! up_to {
    ($most:expr) => {
        clap::value_parser!(u64).range(1..=$most)
    };
}

#[derive(Args)]
#[command(next_help_heading = "Limits of policies")]
pub(crate) struct Limits {
    /// CPU time of a decision, ms. A plugin that takes longer has not decided.
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = up_to!(60_000))]
    policy_deadline: u64,
    /// How much longer that may take by the wall clock on a busy machine, ms. A plugin that was not
    /// given its CPU time by then has not decided, and is not to blame.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = up_to!(60_000))]
    policy_slack: u64,
    /// Memory of a decision, MiB.
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = up_to!(1024))]
    policy_memory: u64,
    /// Time in which a pushed component must be compiled, s.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = up_to!(3600))]
    compile_time: u64,
    /// Address space of the process that compiles it, MiB.
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = up_to!(1 << 20))]
    compile_memory: u64,
    /// Failures in a row that put a revision into quarantine.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = up_to!(1_000_000))]
    quarantine_after: u64,
    /// How long the first quarantine lasts, s; each one after it twice as long, up to six hours.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = up_to!(21_600))]
    quarantine_time: u64,
    /// Revisions of a plugin that are kept of each state in which nobody needs them.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = up_to!(10_000))]
    kept_revisions: u64,
    /// Keys that each plugin may keep.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = up_to!(100_000_000))]
    plugin_keys: u64,
    /// Keys and values that each plugin may keep, MiB.
    #[arg(long, value_name = "MIB", default_value_t = 8, value_parser = up_to!(1 << 20))]
    plugin_storage: u64,
    /// Decisions that the journal keeps.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = up_to!(100_000_000))]
    journal_decisions: u64,
    /// Decisions that the journal keeps, all together, MiB.
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = up_to!(1 << 20))]
    journal_size: u64,
}

/// Numbers are bounded by their parsers, so nothing is cut here.
fn count<T: TryFrom<u64>>(number: u64, most: T) -> T {
    T::try_from(number).unwrap_or(most)
}

impl Limits {
    pub(crate) fn calls(&self) -> CallLimits {
        CallLimits {
            deadline: Duration::from_millis(self.policy_deadline),
            slack: Duration::from_millis(self.policy_slack),
            memory_bytes: count(self.policy_memory * MIB, usize::MAX),
            ..CallLimits::default()
        }
    }

    pub(crate) fn compiling(&self) -> CompileLimits {
        CompileLimits {
            deadline: Duration::from_secs(self.compile_time),
            memory_bytes: self.compile_memory * MIB,
            ..CompileLimits::default()
        }
    }

    pub(crate) fn strikes(&self) -> StrikeLimits {
        StrikeLimits {
            failures: count(self.quarantine_after, u32::MAX),
            cool_down_ms: self.quarantine_time * 1000,
            ..StrikeLimits::default()
        }
    }

    pub(crate) const fn journal(&self) -> Retention {
        Retention {
            decisions: self.journal_decisions,
            decision_bytes: self.journal_size * MIB,
        }
    }

    /// The engine's configuration, with what is said here.
    pub(crate) fn config(&self, run_dir: PathBuf) -> Config {
        Config {
            kept_revisions: count(self.kept_revisions, usize::MAX),
            kv_quota: KvUsage {
                keys: self.plugin_keys,
                bytes: self.plugin_storage * MIB,
            },
            ..Config::new(run_dir)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Host {
        #[command(flatten)]
        limits: Limits,
    }

    fn limits(arguments: &[&str]) -> Limits {
        let arguments = [&["host"], arguments].concat();
        Host::try_parse_from(arguments).unwrap().limits
    }

    #[test]
    fn without_options_the_limits_are_those_of_the_libraries() {
        let limits = limits(&[]);
        assert_eq!(limits.calls(), CallLimits::default());
        assert_eq!(limits.compiling(), CompileLimits::default());
        assert_eq!(limits.strikes(), StrikeLimits::default());
        assert_eq!(limits.journal(), Retention::default());
        let (config, default) = (limits.config("/run".into()), Config::new("/run".into()));
        assert_eq!(config.kept_revisions, default.kept_revisions);
        assert_eq!(config.kv_quota, default.kv_quota);
    }

    #[test]
    fn each_option_sets_its_limit_in_its_unit() {
        let limits = limits(&[
            "--policy-deadline=1",
            "--policy-slack=2",
            "--policy-memory=3",
            "--compile-time=4",
            "--compile-memory=5",
            "--quarantine-after=6",
            "--quarantine-time=7",
            "--kept-revisions=8",
            "--plugin-keys=9",
            "--plugin-storage=10",
            "--journal-decisions=11",
            "--journal-size=12",
        ]);
        let calls = limits.calls();
        assert_eq!(calls.deadline, Duration::from_millis(1));
        assert_eq!(calls.slack, Duration::from_millis(2));
        assert_eq!(calls.memory_bytes, 3 << 20);
        let compiling = limits.compiling();
        assert_eq!(compiling.deadline, Duration::from_secs(4));
        assert_eq!(compiling.memory_bytes, 5 << 20);
        let strikes = limits.strikes();
        assert_eq!((strikes.failures, strikes.cool_down_ms), (6, 7000));
        let config = limits.config("/run".into());
        assert_eq!(config.kept_revisions, 8);
        let (keys, bytes) = (9, 10 << 20);
        assert_eq!(config.kv_quota, KvUsage { keys, bytes });
        let (decisions, decision_bytes) = (11, 12 << 20);
        let journal = Retention {
            decisions,
            decision_bytes,
        };
        assert_eq!(limits.journal(), journal);
    }

    #[test]
    fn a_limit_of_nothing_or_beyond_reason_is_refused() {
        let command = <Host as clap::CommandFactory>::command();
        let mut options = 0;
        for option in command.get_arguments().filter_map(clap::Arg::get_long) {
            options += 1;
            for value in ["0", "-1", "18446744073709551615", "much"] {
                let option = format!("--{option}={value}");
                assert!(Host::try_parse_from(["host", &option]).is_err(), "{option}");
            }
        }
        assert_eq!(options, 12);
    }
}
