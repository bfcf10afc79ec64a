//! Native code that we compiled ourselves, and the only place where such is mapped.
#![allow(
    unsafe_code,
    reason = "mapping native code is to trust it; see `Artifact::map`"
)]

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::text::clean;

/// Native code of a component. There are three ways to get one, and each proves where it is from:
/// compile here, read the pipe of our own child, or find it in the cache under our own seal.
pub(super) struct Artifact(Vec<u8>);

impl Artifact {
    /// Compiles in this process.
    pub(super) fn compile(engine: &Engine, component: &[u8]) -> Result<Self, String> {
        let compiled = engine.precompile_component(component);
        compiled
            .map(Self)
            .map_err(|error| clean(&format!("{error:#}")))
    }

    /// What the child that we started wrote to the pipe that only it has.
    pub(super) fn from_child(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// What the cache found under a seal that only this installation can make.
    pub(super) fn from_sealed(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Makes it executable.
    pub(super) fn map(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: the bytes must be unchanged output of `precompile_component`; a private field
        // holds them, and the three constructors take nothing else. wasmtime checks by itself
        // that they are of its version and of this engine's configuration.
        unsafe { Component::deserialize(engine, &self.0) }
    }
}
