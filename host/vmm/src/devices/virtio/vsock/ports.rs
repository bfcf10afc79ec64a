//! Ports at the host's end of connections that the host makes.

use std::collections::HashSet;

/// The first one; a guest's connections to the host go to lower ones, by convention.
const FIRST: u32 = 1 << 30;
/// One past the last one.
const END: u32 = 1 << 31;

/// Allocates ports in rotation, so that a port that was used comes again as late as possible.
#[derive(Debug)]
pub(super) struct Ports {
    next: u32,
    live: HashSet<u32>,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            next: FIRST,
            live: HashSet::new(),
        }
    }
}

impl Ports {
    /// Starts at `next`, which is one of ours.
    pub(super) fn new(next: u32) -> Option<Self> {
        (FIRST..END).contains(&next).then(|| Self {
            next,
            live: HashSet::new(),
        })
    }

    /// The next port that is neither live nor `taken`. `None`: as many were tried as can be live.
    pub(super) fn allocate(&mut self, taken: impl Fn(u32) -> bool, tries: usize) -> Option<u32> {
        for _ in 0..tries {
            let port = self.next;
            self.next = if port + 1 < END { port + 1 } else { FIRST };
            if !taken(port) && self.live.insert(port) {
                return Some(port);
            }
        }
        None
    }

    /// `port`, which was allocated, is no longer used.
    pub(super) fn release(&mut self, port: u32) {
        self.live.remove(&port);
    }

    /// No port is used.
    pub(super) fn release_all(&mut self) {
        self.live = HashSet::new();
    }

    /// Where to go on.
    pub(super) fn next(&self) -> u32 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_port_is_not_given_out_again_and_a_released_one_comes_last() {
        let mut ports = Ports::new(END - 2).unwrap();
        let none = |_| false;
        assert_eq!(ports.allocate(none, 9), Some(END - 2));
        assert_eq!(ports.allocate(none, 9), Some(END - 1));
        assert_eq!(ports.allocate(none, 9), Some(FIRST));
        ports.release(END - 1);
        ports.next = END - 2;
        assert_eq!(ports.allocate(none, 9), Some(END - 1));
        assert_eq!(ports.allocate(|port| port == FIRST + 1, 9), Some(FIRST + 2));
        assert_eq!(ports.allocate(|_| true, 9), None);
    }

    #[test]
    fn only_ports_of_the_range_are_taken_over() {
        assert!(Ports::new(FIRST - 1).is_none());
        assert!(Ports::new(END).is_none());
        assert_eq!(Ports::new(END - 1).unwrap().next(), END - 1);
    }
}
