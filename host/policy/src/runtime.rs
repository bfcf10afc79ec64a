//! The engine: one for all plugins.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use roost_model::Grant;
use wasmtime::{Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::compile::{CacheStatistics, Compiler, Workshop};
use crate::error::{LoadError, RuntimeError};
use crate::gate::Gate;
use crate::plugin::LoadedPlugin;
use crate::profile;
use crate::services::HostServices;
use crate::warm::WarmPool;

/// Largest component, bytes: one made from Python has 20 MB.
pub(crate) const MAX_COMPONENT_BYTES: usize = 64 << 20;

/// Places in the pooling allocator. There are enough for as many calls as the gate lets in, each
/// and for as many warm instances as are kept, each with all that a component may have; so no
/// plugin can take them from another.
mod pool {
    use crate::gate::MAX_CALLS;
    use crate::warm::MAX_WARM;

    /// Components made from Python or JavaScript take more than 16 core instances each.
    pub(super) const CORE_INSTANCES_PER_COMPONENT: u32 = 64;
    /// One, and those of adapters.
    pub(super) const MEMORIES_PER_COMPONENT: u32 = 8;
    pub(super) const TABLES_PER_COMPONENT: u32 = 32;
    pub(super) const COMPONENTS: u32 = MAX_CALLS + MAX_WARM;
    pub(super) const CORE_INSTANCES: u32 = COMPONENTS * CORE_INSTANCES_PER_COMPONENT;
    pub(super) const MEMORIES: u32 = COMPONENTS * MEMORIES_PER_COMPONENT;
    pub(super) const TABLES: u32 = COMPONENTS * TABLES_PER_COMPONENT;
    /// Memory that stays mapped in a place between two calls, bytes.
    pub(super) const KEEP_RESIDENT: usize = 256 << 10;
}

/// Elements of a table: functions that a plugin calls by pointer.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 20_000;

/// What one call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// CPU time of a decision, from before instantiation to the answer.
    pub deadline: Duration,
    /// The same for `describe` and `validate-settings`: an operator waits for them, no VM does,
    /// and the first call of a component is its slowest.
    pub load_deadline: Duration,
    /// How much longer than its deadline a call may take by the wall clock, on a machine that is
    /// too busy to give it its CPU time.
    pub slack: Duration,
    /// Linear memory, bytes, all memories of the component together.
    pub memory_bytes: usize,
    /// What an answer may hold, in wasmtime's measure of bytes copied to the host.
    pub answer_bytes: usize,
}

impl Default for CallLimits {
    /// 50 ms, 5 s for loading, 16 MiB, 1 MiB: many times what the bundled policies and interpreters
    /// need. A slack of 1 s: a share of a twentieth of a core is enough.
    fn default() -> Self {
        Self {
            deadline: Duration::from_millis(50),
            load_deadline: Duration::from_secs(5),
            slack: Duration::from_secs(1),
            memory_bytes: 16 << 20,
            answer_bytes: 1 << 20,
        }
    }
}

/// How plugins are compiled and called.
#[derive(Default)]
pub struct RuntimeConfig {
    /// What one call may take.
    pub limits: CallLimits,
    /// Where components are compiled.
    pub compiler: Compiler,
    /// Where native code is kept; none: nowhere. A folder of its own.
    pub cache: Option<PathBuf>,
    /// What plugins may ask of the host; none: such calls fail.
    pub services: Option<Arc<dyn HostServices>>,
}

/// Compiles plugins and calls them. Clones share one engine.
#[derive(Clone)]
pub struct PolicyRuntime {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    /// Dropped before the engine that its instances are of.
    pub(crate) warm: WarmPool,
    pub(crate) engine: Engine,
    pub(crate) gate: Gate,
    pub(crate) limits: CallLimits,
    pub(crate) services: Option<Arc<dyn HostServices>>,
    pub(crate) workshop: Workshop,
}

/// What a plugin is granted if nobody says otherwise: a log harms nobody, and it is where the
/// message of a panic goes.
fn default_grants() -> BTreeSet<Grant> {
    BTreeSet::from([Grant::Log])
}

impl PolicyRuntime {
    /// A runtime that compiles in this process and keeps nothing.
    ///
    /// # Errors
    /// As [`with`](Self::with).
    pub fn new(limits: CallLimits) -> Result<Self, RuntimeError> {
        Self::with(RuntimeConfig {
            limits,
            ..RuntimeConfig::default()
        })
    }

    /// Makes the engine.
    ///
    /// # Errors
    /// [`RuntimeError`]: address space, a thread or the cache's folder could not be had.
    pub fn with(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        let limits = config.limits;
        let mut pooling = PoolingAllocationConfig::new();
        pooling
            .total_component_instances(pool::COMPONENTS)
            .total_core_instances(pool::CORE_INSTANCES)
            .total_memories(pool::MEMORIES)
            .total_tables(pool::TABLES)
            .max_core_instances_per_component(pool::CORE_INSTANCES_PER_COMPONENT)
            .max_memories_per_component(pool::MEMORIES_PER_COMPONENT)
            .max_tables_per_component(pool::TABLES_PER_COMPONENT)
            .table_elements(MAX_TABLE_ELEMENTS)
            .max_memory_size(limits.memory_bytes)
            .linear_memory_keep_resident(pool::KEEP_RESIDENT)
            .table_keep_resident(pool::KEEP_RESIDENT)
            // Where the kernel can tell which pages were written (Linux 6.7), only those are
            // cleared.
            .pagemap_scan(Enabled::Auto);
        let mut profile = profile::config();
        profile.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling));
        let engine =
            Engine::new(&profile).map_err(|error| RuntimeError::Engine(format!("{error:#}")))?;
        let gate = Gate::new(engine.clone())?;
        let workshop = Workshop::new(&engine, config.compiler, config.cache)?;
        Ok(Self {
            shared: Arc::new(Shared {
                warm: WarmPool::default(),
                engine,
                gate,
                limits,
                services: config.services,
                workshop,
            }),
        })
    }

    /// Compiles a component, checks what it imports and exports, and has it describe itself. It
    /// may write to the log and is granted nothing else.
    ///
    /// # Errors
    /// [`LoadError`] says what was read and what was expected.
    pub fn load(&self, component: &[u8]) -> Result<LoadedPlugin, LoadError> {
        LoadedPlugin::new(self.clone(), component, &default_grants(), false)
    }

    /// The same, granting what is given and nothing else.
    ///
    /// # Errors
    /// [`LoadError`]: also that an import needs a grant.
    pub fn load_with(
        &self,
        component: &[u8],
        grants: &BTreeSet<Grant>,
    ) -> Result<LoadedPlugin, LoadError> {
        LoadedPlugin::new(self.clone(), component, grants, false)
    }

    /// Loads a component that comes with the host: it is compiled in this process.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_trusted(&self, component: &[u8]) -> Result<LoadedPlugin, LoadError> {
        LoadedPlugin::new(self.clone(), component, &default_grants(), true)
    }

    /// What the cache of compiled components did.
    #[must_use]
    pub fn cache_statistics(&self) -> CacheStatistics {
        self.shared.workshop.statistics()
    }
}
