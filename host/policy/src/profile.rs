//! How components are compiled: the part of the engine's configuration that an artifact depends
//! on, the same in the host and in the child that compiles.

use std::num::NonZeroUsize;

use wasmtime::Config;

/// Stack of a call, bytes: deep recursion is a trap.
const STACK_BYTES: usize = 512 << 10;
/// Functions of the plugin that a trap's text names.
const FRAMES: usize = 8;

/// The configuration, but for how instances are allocated.
pub(crate) fn config() -> Config {
    let mut config = Config::new();
    config
        // Nothing here is asynchronous, and it makes each call several times dearer.
        .concurrency_support(false)
        // Multi-memory stays on: the adapters between the parts of a component made from
        // JavaScript or Python use it, and nobody is hurt by it.
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        .wasm_backtrace_max_frames(NonZeroUsize::new(FRAMES))
        // How the message of a panic is found in a component without imports.
        .coredump_on_trap(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false);
    config
}
