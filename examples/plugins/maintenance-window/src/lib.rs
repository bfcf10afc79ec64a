//! Lets no new VM in while the host is in maintenance. VMs that exist may boot, and a label lets a
//! new one in all the same.
//!
//! Settings: `{"windows": [{"days": ["sat", "sun"], "from": "22:00", "to": "06:00"}],
//! "utc_offset_minutes": 0}`. A window that ends before it begins goes on into the next day; no
//! window: nothing is denied.

mod clock;

use roost_plugin::Policy;
use roost_plugin::admission::{Admission, Decision, Facts, Request};
use serde::Deserialize;

use clock::{DAY_MINUTES, Day, Time, local};

/// The label that lets a VM in.
const EXEMPT: (&str, &str) = ("maintenance", "exempt");
/// Farthest time zones from UTC, minutes.
const MAX_OFFSET: i64 = 14 * 60;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    windows: Vec<Window>,
    utc_offset_minutes: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Window {
    /// Days on which it begins.
    days: Vec<Day>,
    from: Time,
    to: Time,
}

impl Window {
    /// Whether it is open `minute` minutes after the midnight before `today`.
    fn is_open(&self, today: Day, minute: i64) -> bool {
        let begins = |day| self.days.contains(&day);
        let (from, to) = (self.from.minute(), self.to.minute());
        if from < to {
            return begins(today) && (from..to).contains(&minute);
        }
        (begins(today) && (from..DAY_MINUTES).contains(&minute))
            || (begins(today.before()) && (0..to).contains(&minute))
    }
}

struct Maintenance;

impl Policy for Maintenance {
    type Settings = Settings;

    fn check(settings: &Settings) -> Result<(), String> {
        if settings.utc_offset_minutes.abs() > MAX_OFFSET {
            return Err(format!(
                "utc_offset_minutes is {} to {MAX_OFFSET}",
                -MAX_OFFSET
            ));
        }
        if settings.windows.iter().any(|window| window.days.is_empty()) {
            return Err("a window without days never opens".to_owned());
        }
        Ok(())
    }
}

impl Admission for Maintenance {
    fn decide(facts: &Facts, settings: &Settings) -> Decision {
        let exempt = facts
            .vm
            .labels
            .iter()
            .any(|(key, value)| (key.as_str(), value.as_str()) == EXEMPT);
        if facts.request != Request::Create || exempt {
            return Decision::Allow;
        }
        let (today, minute) = local(facts.context.now_ms, settings.utc_offset_minutes);
        let open = settings
            .windows
            .iter()
            .find(|window| window.is_open(today, minute));
        open.map_or(Decision::Allow, |window| {
            let (offset, (key, value)) = (settings.utc_offset_minutes, EXEMPT);
            let sign = if offset < 0 { '-' } else { '+' };
            let (hours, minutes) = (offset.abs() / 60, offset.abs() % 60);
            Decision::Deny(format!(
                "maintenance until {} (UTC{sign}{hours:02}:{minutes:02}); \
                 VMs labelled {key}={value} are let in",
                window.to
            ))
        })
    }
}

roost_plugin::export!(Maintenance: admission);

#[cfg(test)]
mod tests {
    use roost_plugin::testing;

    use super::*;

    #[test]
    fn it_decides_as_the_fixtures_expect() {
        testing::run_fixtures::<Maintenance>("fixtures");
    }

    #[test]
    fn a_window_is_open_from_its_first_minute_to_before_its_last() {
        let window = |from: &str, to: &str| Window {
            days: vec![Day::Sat],
            from: from.to_owned().try_into().unwrap(),
            to: to.to_owned().try_into().unwrap(),
        };
        let day = window("08:00", "09:00");
        assert!(!day.is_open(Day::Sat, 8 * 60 - 1));
        assert!(day.is_open(Day::Sat, 8 * 60));
        assert!(!day.is_open(Day::Sat, 9 * 60));
        let night = window("22:00", "06:00");
        assert!(night.is_open(Day::Sat, 23 * 60));
        assert!(night.is_open(Day::Sun, 5 * 60));
        assert!(!night.is_open(Day::Sat, 5 * 60));
        assert!(!night.is_open(Day::Sun, 6 * 60));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let window = |rest: &str| format!(r#"{{"windows":[{{{rest}}}]}}"#);
        for bad in [
            r#"{"utc_offset_minutes":1000}"#.to_owned(),
            window(r#""days":[],"from":"08:00","to":"09:00""#),
            window(r#""days":["sat"],"from":"8","to":"09:00""#),
            window(r#""days":["sat"],"from":"24:00","to":"09:00""#),
            window(r#""days":["sonntag"],"from":"08:00","to":"09:00""#),
        ] {
            assert!(
                testing::validate_settings::<Maintenance>(&bad).is_err(),
                "{bad}"
            );
        }
    }
}
