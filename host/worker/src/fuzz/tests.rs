//! Every target runs what is kept of its findings and some inputs that are the same each time.
//! That the list is whole is tested beside the programs, in `roost-vmm`.

use std::fs;
use std::path::Path;

use super::TARGETS;

/// Inputs of a target beside those that are kept.
const INPUTS: u64 = 300;
/// Most bytes of one.
const INPUT_BYTES: u64 = 2048;

/// The same bytes each time (xorshift64).
fn bytes(state: &mut u64, count: u64) -> Vec<u8> {
    let mut next = || {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    };
    (0..count).map(|_| next() as u8).collect()
}

fn smoke(name: &str) {
    let (_, run) = TARGETS.iter().find(|target| target.0 == name).unwrap();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vmm/fuzz/corpus");
    let mut kept = 0;
    for entry in fs::read_dir(corpus.join(name)).unwrap() {
        run(&fs::read(entry.unwrap().path()).unwrap());
        kept += 1;
    }
    assert!(kept > 0, "no input of {name} is kept");
    let mut state = 0x2545_f491_4f6c_dd1d;
    for _ in 0..INPUTS {
        let count = bytes(&mut state, 8)
            .iter()
            .fold(0, |n, byte| n << 8 | u64::from(*byte));
        run(&bytes(&mut state, count % INPUT_BYTES));
    }
}

#[test]
fn from_host() {
    smoke("from_host");
}

#[test]
fn from_worker() {
    smoke("from_worker");
}
