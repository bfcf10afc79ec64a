//! Days of the week and times of a day.

use std::fmt;

use serde::Deserialize;

pub(crate) const DAY_MINUTES: i64 = 24 * 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    /// Beginning with the weekday of 1970-01-01.
    const FROM_EPOCH: [Self; 7] = [
        Self::Thu,
        Self::Fri,
        Self::Sat,
        Self::Sun,
        Self::Mon,
        Self::Tue,
        Self::Wed,
    ];

    fn of(days_since_epoch: i64) -> Self {
        Self::FROM_EPOCH[days_since_epoch.rem_euclid(7) as usize]
    }

    /// The day before.
    pub(crate) fn before(self) -> Self {
        let at = Self::FROM_EPOCH
            .iter()
            .position(|day| *day == self)
            .unwrap_or(0);
        Self::of(at as i64 - 1)
    }
}

/// A time of a day, `HH:MM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Time {
    minute: u16,
}

impl Time {
    /// Minutes since midnight.
    pub(crate) fn minute(self) -> i64 {
        self.minute.into()
    }
}

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = |part: &str, below: u16| {
            let whole = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse::<u16>()
                .ok()
                .filter(|number| whole && *number < below)
        };
        text.split_once(':')
            .and_then(|(hours, minutes)| Some((number(hours, 24)?, number(minutes, 60)?)))
            .map(|(hours, minutes)| Self {
                minute: hours * 60 + minutes,
            })
            .ok_or_else(|| format!("{text:?} is not a time of the form HH:MM"))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.minute / 60, self.minute % 60)
    }
}

/// The day, and the minutes since its midnight, `offset` minutes east of UTC.
pub(crate) fn local(now_ms: u64, offset: i64) -> (Day, i64) {
    let minutes = (now_ms / 60_000) as i64 + offset;
    (
        Day::of(minutes.div_euclid(DAY_MINUTES)),
        minutes.rem_euclid(DAY_MINUTES),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_follow_each_other_and_zones_move_them() {
        assert_eq!(local(0, 0), (Day::Thu, 0));
        assert_eq!(local(0, -1), (Day::Wed, DAY_MINUTES - 1));
        // 2026-01-04T23:30Z is a Sunday, and Monday an hour farther east.
        assert_eq!(local(1_767_569_400_000, 0).0, Day::Sun);
        assert_eq!(local(1_767_569_400_000, 60), (Day::Mon, 30));
        assert_eq!(Day::Mon.before(), Day::Sun);
        assert_eq!(Day::Thu.before(), Day::Wed);
    }
}
