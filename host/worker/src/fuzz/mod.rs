//! What the fuzz targets of the control protocol run, and what the tests run of the same, so that
//! no target rots. Compiled for tests and by `cargo xtask fuzz` and `cargo fuzz` only.
//!
//! Both ends are as they are in production, each against a peer that says what a script has:
//! messages for the most part, and whatever else fits a stream now and then.

mod frames;
#[cfg(test)]
mod tests;

use arbitrary::Arbitrary;

pub(crate) use self::frames::{Cut, Frame};
use crate::child::Peers;
use crate::remote::Worker;

macro_rules! targets {
    ($($name:literal, $target:ident, $input:ty, $about:literal;)*) => {
        $(
            #[doc = $about]
            #[derive(Debug, Arbitrary)]
            pub struct $target($input);

            impl $target {
                /// Runs the input.
                ///
                /// # Panics
                /// Something does not hold that must.
                pub fn run(self) {
                    self.0.run();
                }
            }
        )*

        /// The name of each target, and what it does with an input. Bytes that are no input are
        /// skipped.
        #[cfg(test)]
        const TARGETS: &[(&str, fn(&[u8]))] = &[$(($name, |bytes| {
            let input = arbitrary::Unstructured::new(bytes);
            if let Ok(input) = $target::arbitrary_take_rest(input) {
                input.run();
            }
        })),*];
    };
}

targets! {
    "from_host", FromHost, Peers, "What a worker's peers say to it.";
    "from_worker", FromWorker, Worker, "What a worker says to its host.";
}
