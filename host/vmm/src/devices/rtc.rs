//! The real-time clock: Motorola's MC146818, as far as a guest reads the time from it.
//!
//! It exists because a PC kernel believes that it does: where the ports read as all ones, the
//! clock seems to be in the middle of an update for ever, which a kernel waits for. It can't be
//! set, and its alarm and periodic interrupts never ring.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Registers by the data sheet, table "Address map".
const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
/// Register A: no update in progress; the divider of a 32,768 Hz crystal.
const A: (u8, u8) = (0x0a, 0x26);
/// Register B: 24 hours, binary-coded decimal.
const B: (u8, u8) = (0x0b, 0x02);
/// Register D: time and memory are valid.
const D: (u8, u8) = (0x0d, 0x80);
/// The century, where IBM's PS/2 and every PC since keep it.
const CENTURY: u8 = 0x32;
/// Bit 7 of the index port masks the NMI and is no part of the index.
const INDEX: u8 = 0x7f;
/// Seconds of a day.
const DAY_SECONDS: u64 = 86_400;

#[derive(Default)]
pub(super) struct Rtc {
    index: AtomicU8,
}

impl Rtc {
    pub(super) fn select(&self, index: u8) {
        self.index.store(index & INDEX, Ordering::Relaxed);
    }

    /// The selected register, of the host's time in UTC.
    pub(super) fn data(&self) -> u8 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |time| time.as_secs());
        register(self.index.load(Ordering::Relaxed), now)
    }
}

/// Register `index` at `now`, seconds since 1970 in UTC.
fn register(index: u8, now: u64) -> u8 {
    let (days, second) = (now / DAY_SECONDS, now % DAY_SECONDS);
    let (year, month, day) = date(days);
    match index {
        SECONDS => bcd(second % 60),
        MINUTES => bcd(second / 60 % 60),
        HOURS => bcd(second / 3600),
        // Sunday is 1; 1970 began on a Thursday.
        WEEKDAY => bcd((days + 4) % 7 + 1),
        DAY => bcd(day),
        MONTH => bcd(month),
        YEAR => bcd(year % 100),
        CENTURY => bcd(year / 100 % 100),
        index if index == A.0 => A.1,
        index if index == B.0 => B.1,
        index if index == D.0 => D.1,
        _ => 0,
    }
}

fn bcd(number: u64) -> u8 {
    // Callers pass less than 100.
    (((number / 10 % 10) << 4) | (number % 10)) as u8
}

/// Year, month and day of the day `days` after the first of January 1970.
///
/// Counts from the first of March of a year that 400 divides: leap days then end a year, a
/// century and four centuries, and five months always have 153 days.
fn date(days: u64) -> (u64, u64, u64) {
    // From 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (year * 365 + year / 4 - year / 100);
    let from_march = (day * 5 + 2) / 153;
    let day = day - (from_march * 153 + 2) / 5 + 1;
    match from_march {
        0..10 => (era * 400 + year, from_march + 3, day),
        _ => (era * 400 + year + 1, from_march - 9, day),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_named_as_in_the_calendar_leap_years_included() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (11_322, (2000, 12, 31)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected, "day {days}");
        }
    }

    #[test]
    fn the_registers_say_the_time_in_binary_coded_decimal() {
        // Saturday, 2009-02-14 00:31:30 is one hour after the 1,234,567,890th second in UTC+1:
        // in UTC it is Friday the 13th, 23:31:30.
        let now = 1_234_567_890;
        let read = |index| register(index, now);
        assert_eq!(
            [read(HOURS), read(MINUTES), read(SECONDS)],
            [0x23, 0x31, 0x30]
        );
        assert_eq!([read(CENTURY), read(YEAR)], [0x20, 0x09]);
        assert_eq!([read(MONTH), read(DAY), read(WEEKDAY)], [0x02, 0x13, 0x06]);
    }

    #[test]
    fn no_update_is_ever_in_progress_and_the_time_is_valid() {
        let rtc = Rtc::default();
        rtc.select(0x80 | A.0);
        assert_eq!(rtc.data() & 0x80, 0, "the NMI bit is no part of the index");
        rtc.select(D.0);
        assert_eq!(rtc.data(), 0x80);
    }
}
