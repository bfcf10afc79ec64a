//! From a component to native code.
//!
//! Compiling is the one thing that a component makes the host do before any limit of a call
//! holds, and a component can be made to take very long at it. So uploads are compiled in a child
//! process, which may take so much time and address space and no more; what comes of it is kept
//! in a cache, and only what is proven to be from there or from the child is ever mapped.

mod artifact;
mod cache;
mod child;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use wasmtime::Engine;
use wasmtime::component::Component;

pub use cache::{CacheError, CacheStatistics};
pub use child::{ChildCompiler, CompileError, CompileLimits, compile_component_main};

use crate::bundled;
use crate::error::LoadError;
use crate::text::clean;
use artifact::Artifact;
use cache::Cache;

/// Where components are compiled.
#[derive(Debug, Clone, Default)]
pub enum Compiler {
    /// In this process: for tests, and for components that are trusted.
    #[default]
    InProcess,
    /// In a child process with limits.
    Child(ChildCompiler),
}

/// Compiles, or finds what was compiled before.
pub(crate) struct Workshop {
    compiler: Compiler,
    cache: Option<Cache>,
    /// One child at a time: they are as large as their limit allows.
    child: Mutex<()>,
}

impl Workshop {
    pub(crate) fn new(
        engine: &Engine,
        compiler: Compiler,
        cache: Option<PathBuf>,
    ) -> Result<Self, CacheError> {
        let cache = cache
            .map(|folder| Cache::open(folder, engine))
            .transpose()?;
        Ok(Self {
            compiler,
            cache,
            child: Mutex::default(),
        })
    }

    pub(crate) fn statistics(&self) -> CacheStatistics {
        self.cache
            .as_ref()
            .map(Cache::statistics)
            .unwrap_or_default()
    }

    /// The component in native code. One that is `trusted`, or comes with this program, is compiled
    /// in this process.
    pub(crate) fn component(
        &self,
        engine: &Engine,
        bytes: &[u8],
        digest: &[u8; 32],
        trusted: bool,
    ) -> Result<Component, LoadError> {
        if let Some(artifact) = self.cache.as_ref().and_then(|cache| cache.get(digest)) {
            // An artifact that this engine does not take is compiled again.
            if let Ok(component) = artifact.map(engine) {
                return Ok(component);
            }
        }
        let trusted = trusted || bundled().iter().any(|policy| policy.bytes == bytes);
        let artifact = match &self.compiler {
            Compiler::Child(child) if !trusted => {
                let _one = self.child.lock().unwrap_or_else(PoisonError::into_inner);
                Artifact::from_child(child.compile(bytes)?)
            }
            _ => Artifact::compile(engine, bytes).map_err(LoadError::Compile)?,
        };
        if let Some(cache) = &self.cache {
            cache.put(digest, &artifact);
        }
        artifact
            .map(engine)
            .map_err(|error| LoadError::Compile(clean(&format!("{error:#}"))))
    }
}
