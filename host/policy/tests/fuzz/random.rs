//! Seeded randomness, a case at a time.

use std::env;

/// A cheap generator of bytes: `xorshift64*` (Vigna, 2016), of a case whose seed is told if the
/// case ends in a panic.
pub(crate) struct Random {
    state: u64,
    seed: u64,
}

impl Random {
    fn new(seed: u64) -> Self {
        // Neighbours must not begin alike, and the state must not be zero: Fibonacci hashing.
        let state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self { state, seed }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        (self.next() >> 56) as u8
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }
}

impl Drop for Random {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it failed with ROOST_FUZZ_SEED={:#x}", self.seed);
        }
    }
}

/// A number in the environment, decimal or, after `0x`, hexadecimal.
fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    Some(number.unwrap_or_else(|_| panic!("{name} is no number: {text:?}")))
}

/// So many cases of a test, or as many as the environment says.
pub(crate) fn cases(seed: u64, count: u64) -> impl Iterator<Item = Random> {
    let first = number("ROOST_FUZZ_SEED").unwrap_or(seed << 32);
    let count = count * number("ROOST_FUZZ_ROUNDS").unwrap_or(1);
    (first..first.saturating_add(count)).map(Random::new)
}
