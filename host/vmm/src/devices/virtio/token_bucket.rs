//! A token bucket: so many tokens a second, and so many at once after a pause.
//!
//! A request passes while the bucket holds anything, and is charged in full, so the level may
//! become negative: a debt, which is paid before the next request passes. So a request that is
//! larger than the bucket passes, the size of a request may become known only afterwards, and the
//! average is exact whatever the sizes are. Nothing is rounded: the level is kept in billionths of
//! a token, which is what one nanosecond adds at one token a second.

use std::num::NonZeroU64;

/// How much may pass: bytes or operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// On average, per second.
    pub per_second: NonZeroU64,
    /// At once, after a pause that was long enough. What 10 ms bring is the least that counts: with
    /// less, the time that the host takes to wake up would be lost.
    pub burst: u64,
}

impl RateLimit {
    /// So much per second, with what 50 ms bring as burst.
    #[must_use]
    pub fn per_second(per_second: NonZeroU64) -> Self {
        Self {
            per_second,
            burst: per_second.get() / 20,
        }
    }
}

/// Billionths of a token in a token, and nanoseconds in a second.
const SCALE: i128 = 1_000_000_000;
/// A bucket holds at least what this time brings.
const LEAST_CAPACITY_NS: i128 = 10_000_000;
/// An empty bucket opens when it holds what this time brings (or is full), so that a fast device
/// wakes at most 500 times a second for it.
const REOPEN_NS: i128 = 2_000_000;

/// A bucket. Times are in ns of a clock of the caller's, which should not go back.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    /// Tokens per second.
    rate: u64,
    /// Most that it holds, billionths. At most 2^94.
    capacity: i128,
    /// What it holds, billionths. Negative: a debt.
    level: i128,
    /// When `level` was right.
    settled_ns: u64,
}

impl TokenBucket {
    /// A full bucket.
    pub(crate) fn full(limit: RateLimit, now_ns: u64) -> Self {
        let capacity = capacity(limit);
        Self {
            rate: limit.per_second.get(),
            capacity,
            level: capacity,
            settled_ns: now_ns,
        }
    }

    /// Goes on under another limit: with what it holds, as far as there is room. A debt is
    /// forgiven, because it may be huge by the measure of the new limit.
    pub(crate) fn set_limit(&mut self, limit: RateLimit, now_ns: u64) {
        self.settle(now_ns);
        self.rate = limit.per_second.get();
        self.capacity = capacity(limit);
        self.level = self.level.clamp(0, self.capacity);
    }

    /// Whether a request may pass, of whatever size.
    pub(crate) fn is_open(&mut self, now_ns: u64) -> bool {
        self.settle(now_ns);
        self.level > 0
    }

    /// Takes what a request needed.
    pub(crate) fn charge(&mut self, tokens: u64) {
        self.level = self.level.saturating_sub(i128::from(tokens) * SCALE);
    }

    /// When an empty bucket is worth looking at again. Now, for one that is not empty.
    pub(crate) fn opens_at_ns(&self) -> u64 {
        if self.level > 0 {
            return self.settled_ns;
        }
        let rate = i128::from(self.rate);
        // At least a token, of which a bucket always holds one.
        let enough = (rate * REOPEN_NS).max(SCALE).min(self.capacity);
        let missing = enough.saturating_sub(self.level);
        let wait = missing.saturating_add(rate - 1) / rate;
        let wait = u64::try_from(wait).unwrap_or(u64::MAX);
        self.settled_ns.saturating_add(wait)
    }

    /// Adds what time brought since the last time.
    fn settle(&mut self, now_ns: u64) {
        let Some(elapsed) = now_ns.checked_sub(self.settled_ns) else {
            return;
        };
        self.settled_ns = now_ns;
        // Both factors are below 2^64, so the product fits unless it is far beyond any capacity.
        let brought = u128::from(elapsed) * u128::from(self.rate);
        let brought = i128::try_from(brought).unwrap_or(i128::MAX);
        self.level = self.level.saturating_add(brought).min(self.capacity);
    }
}

fn capacity(limit: RateLimit) -> i128 {
    let least = i128::from(limit.per_second.get()) * LEAST_CAPACITY_NS;
    let burst = i128::from(limit.burst) * SCALE;
    burst.max(least).max(SCALE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn limit(per_second: u64, burst: u64) -> RateLimit {
        RateLimit {
            per_second: NonZeroU64::new(per_second).unwrap(),
            burst,
        }
    }

    /// Sends requests of the given sizes, over and over and as early as the bucket says, from
    /// `from` on until `until`; returns how many tokens passed.
    fn drain(bucket: &mut TokenBucket, sizes: &[u64], from: u64, until: u64) -> u128 {
        let (mut now, mut passed) = (from, 0);
        for size in sizes.iter().cycle() {
            while !bucket.is_open(now) {
                now = bucket.opens_at_ns();
                if now >= until {
                    return passed;
                }
            }
            bucket.charge(*size);
            passed += u128::from(*size);
        }
        unreachable!("sizes are not zero, so the bucket gets empty")
    }

    proptest! {
        #[test]
        fn at_any_rate_a_second_of_steady_load_passes_the_rate_within_a_tenth(
            exponent in 4_u32..63,
            mantissa in 0.0_f64..1.0,
            burst in any::<u64>(),
            parts in prop::collection::vec(1_u64..=16, 1..8),
            start in 0..u64::MAX / 2,
        ) {
            let rate = (2_f64.powi(exponent as i32) * (1.0 + mantissa)) as u64;
            // No more than a few thousand requests, and none larger than a fiftieth of a second.
            let sizes: Vec<u64> = parts.iter().map(|part| (rate / 800 * part).max(1)).collect();
            let mut bucket = TokenBucket::full(limit(rate, burst), start);
            // The burst is gone.
            bucket.level = 0;
            let passed = drain(&mut bucket, &sizes, start, start + SECOND);
            let error = passed.abs_diff(u128::from(rate)) as f64 / rate as f64;
            prop_assert!(error < 0.1, "{passed} of {rate}");
        }

        #[test]
        fn over_any_time_no_more_passes_than_burst_and_rate_and_one_request(
            rate in 1_u64..1 << 40,
            burst in 0_u64..1 << 40,
            size in 1_u64..1 << 40,
            waits in prop::collection::vec(0..10 * SECOND, 1..200),
        ) {
            let mut bucket = TokenBucket::full(limit(rate, burst), 0);
            let (mut now, mut passed) = (0_u64, 0_u128);
            for wait in waits {
                now += wait;
                if bucket.is_open(now) {
                    bucket.charge(size);
                    passed += u128::from(size);
                }
                let brought = u128::from(now) * u128::from(rate) / u128::from(SECOND);
                let most = bucket.capacity as u128 / u128::from(SECOND) + brought + 1;
                prop_assert!(passed <= most + u128::from(size), "{passed} of {most}");
            }
        }

        #[test]
        fn any_request_passes_some_day_and_no_numbers_overflow(
            rate in 1..=u64::MAX,
            burst in any::<u64>(),
            size in any::<u64>(),
            other in 1..=u64::MAX,
            now in any::<u64>(),
        ) {
            let mut bucket = TokenBucket::full(limit(rate, burst), 0);
            prop_assert!(bucket.is_open(0));
            bucket.charge(size);
            bucket.charge(size);
            let opens = bucket.opens_at_ns();
            prop_assert!(opens == u64::MAX || bucket.is_open(opens));
            bucket.set_limit(limit(other, burst), now);
            let opens = bucket.opens_at_ns();
            prop_assert!(bucket.is_open(opens.max(now)) || opens == u64::MAX);
        }
    }

    #[test]
    fn a_request_larger_than_the_bucket_passes_and_the_next_waits_until_it_is_paid() {
        let mut bucket = TokenBucket::full(limit(1000, 100), 0);
        assert!(bucket.is_open(0));
        bucket.charge(5100);
        // 5000 of debt and 2 more to open.
        assert_eq!(bucket.opens_at_ns(), 5 * SECOND + 2_000_000);
        assert!(!bucket.is_open(5 * SECOND));
        assert!(bucket.is_open(5 * SECOND + 2_000_000));
    }

    #[test]
    fn a_pause_brings_the_burst_and_no_more() {
        let mut bucket = TokenBucket::full(limit(1000, 100), 0);
        bucket.charge(100);
        let after = 3600 * SECOND;
        assert_eq!(drain(&mut bucket, &[1], after, after), 100);
    }

    #[test]
    fn a_new_limit_holds_at_once_and_forgives_the_debt_made_under_the_old_one() {
        let mut bucket = TokenBucket::full(limit(1 << 30, 1 << 30), 0);
        bucket.charge(1 << 40);
        bucket.set_limit(limit(1, 1), 0);
        assert_eq!(bucket.opens_at_ns(), SECOND);
        bucket.set_limit(limit(1 << 30, 1 << 30), SECOND);
        assert!(bucket.is_open(2 * SECOND));
        // What was saved up under the new limit is too much for the next.
        bucket.set_limit(limit(10, 10), 2 * SECOND);
        assert_eq!(drain(&mut bucket, &[1], 2 * SECOND, 2 * SECOND), 10);
    }

    #[test]
    fn a_clock_that_goes_back_brings_nothing() {
        let mut bucket = TokenBucket::full(limit(1000, 10), SECOND);
        bucket.charge(10);
        assert!(!bucket.is_open(0));
        assert!(!bucket.is_open(SECOND));
    }
}
