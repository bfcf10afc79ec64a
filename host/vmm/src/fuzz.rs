//! What the fuzz targets in `fuzz/` run, and what the tests run of the same with inputs of their
//! own, so that no target rots. Compiled for tests and by `cargo xtask fuzz` and `cargo fuzz` only.

use arbitrary::Arbitrary;

use crate::boot::Boot;
use crate::devices::PortAccesses;
use crate::devices::virtio::balloon::BalloonBench;
use crate::devices::virtio::block::BlockBench;
use crate::devices::virtio::console::ConsoleBench;
use crate::devices::virtio::fuzz::{Script, Transport as TransportBench};
use crate::devices::virtio::net::NetBench;
use crate::devices::virtio::rng::RngBench;
use crate::devices::virtio::vsock::VsockBench;

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
    "balloon", Balloon, Script<BalloonBench>, "A driver of a balloon.";
    "block", Block, Script<BlockBench>, "A driver of a disk.";
    "console", Console, Script<ConsoleBench>, "A driver of a console.";
    "kernel", Kernel, Boot, "Kernel images, and loading them.";
    "net", Net, Script<NetBench>, "A driver of a network device.";
    "ports", Ports, PortAccesses, "I/O ports.";
    "rng", Rng, Script<RngBench>, "A driver of an entropy device.";
    "transport", Transport, Script<TransportBench>, "A driver of the MMIO transport and of queues.";
    "vsock", Vsock, Script<VsockBench>, "A driver of a socket device.";
}

#[cfg(test)]
mod tests;
