//! Page numbers, as requests have them, and ranges, as the kernel takes them.

use std::ops::Range;

use super::PAGE_BYTES;
use crate::devices::virtio::Chain;

/// Bytes of a page number.
const NUMBER_BYTES: usize = size_of::<u32>();

/// The page numbers of a request.
pub(super) struct Pages {
    /// In order, each once.
    numbers: Vec<u32>,
    /// How many came more than once.
    pub(super) repeated: u64,
    /// Whether there is a part of a number at the end, which is ignored.
    pub(super) is_malformed: bool,
}

impl Pages {
    /// Reads the request, whose length the queue limits.
    pub(super) fn read(chain: &Chain) -> Self {
        let mut reader = chain.reader();
        let mut bytes = vec![0; reader.remaining()];
        reader.read(&mut bytes);
        let (numbers, rest) = bytes.as_chunks::<NUMBER_BYTES>();
        let is_malformed = !rest.is_empty();
        let numbers = numbers.iter().copied().map(u32::from_le_bytes).collect();
        Self {
            is_malformed,
            ..Self::new(numbers)
        }
    }

    fn new(mut numbers: Vec<u32>) -> Self {
        let all = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        Self {
            repeated: (all - numbers.len()) as u64,
            numbers,
            is_malformed: false,
        }
    }

    /// Page numbers that came with the request.
    pub(super) fn count(&self) -> u64 {
        self.numbers.len() as u64 + self.repeated
    }

    /// The pages as guest-physical ranges, neighbours together.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        let runs = self
            .numbers
            .chunk_by(|page, next| page.checked_add(1) == Some(*next));
        runs.filter_map(|run| {
            let start = u64::from(*run.first()?) * PAGE_BYTES;
            Some(start..start + run.len() as u64 * PAGE_BYTES)
        })
    }
}

/// Page numbers in a request, without reading them.
pub(super) fn count(chain: &Chain) -> u64 {
    u64::from(chain.readable_bytes()) / NUMBER_BYTES as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges(numbers: &[u32]) -> Vec<Range<u64>> {
        Pages::new(numbers.to_vec()).ranges().collect()
    }

    #[test]
    fn neighbours_become_one_range_in_whatever_order_they_come() {
        assert_eq!(ranges(&[]), []);
        assert_eq!(ranges(&[7, 5, 6]), std::slice::from_ref(&(0x5000..0x8000)));
        assert_eq!(ranges(&[1, 3]), [0x1000..0x2000, 0x3000..0x4000]);
        let last = u64::from(u32::MAX) * 4096;
        assert_eq!(ranges(&[u32::MAX, 0]), [0..4096, last..last + 4096]);
    }

    proptest! {
        #[test]
        fn ranges_hold_each_page_once_and_do_not_touch(numbers in prop::collection::vec(0_u32..200, 0..300)) {
            let pages = Pages::new(numbers.clone());
            let ranges: Vec<_> = pages.ranges().collect();
            for pair in ranges.windows(2) {
                prop_assert!(pair[0].end < pair[1].start);
            }
            let within: Vec<u32> = ranges
                .iter()
                .flat_map(|range| range.clone().step_by(4096).map(|at| (at / 4096) as u32))
                .collect();
            let mut expected = numbers.clone();
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(&within, &expected);
            prop_assert_eq!(pages.repeated, (numbers.len() - expected.len()) as u64);
            prop_assert_eq!(pages.count(), numbers.len() as u64);
        }
    }
}
