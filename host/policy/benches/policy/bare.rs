//! The same component called by wasmtime and nothing else: no limits, no checks, no record.

use roost_policy::{
    AdmissionDecision, AdmissionFacts, BillingFacts, Charge, CleanupDecision, CleanupFacts,
    Context, Facts, RecoveryDecision, RecoveryFacts,
};
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, Instance, InstancePre, Lift, Linker,
    Lower, TypedFunc,
};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Result, Store,
};

/// A component that needs no imports.
pub(crate) struct Bare {
    engine: Engine,
    component: InstancePre<()>,
    function: ComponentExportIndex,
}

/// An instance of it.
pub(crate) struct Live {
    store: Store<()>,
    instance: Instance,
    function: ComponentExportIndex,
}

impl Bare {
    /// None: it has imports.
    pub(crate) fn new(component: &[u8], facts: &Facts) -> Option<Self> {
        let mut config = Config::new();
        config
            .concurrency_support(false)
            .allocation_strategy(InstanceAllocationStrategy::Pooling(
                PoolingAllocationConfig::default(),
            ));
        let engine = Engine::new(&config).expect("an engine");
        let component = Component::new(&engine, component).expect("a component");
        let interface = format!("roost:policy/{}@0.1.0", facts.hook());
        let interface = component.get_export_index(None, &interface);
        let name = match facts {
            Facts::Observer(_) => "observe",
            _ => "decide",
        };
        let function = component
            .get_export_index(interface.as_ref(), name)
            .expect("its hook");
        let component = Linker::new(&engine).instantiate_pre(&component).ok()?;
        Some(Self {
            engine,
            component,
            function,
        })
    }

    pub(crate) fn instance(&self) -> Live {
        let mut store = Store::new(&self.engine, ());
        let instance = self.component.instantiate(&mut store).expect("an instance");
        Live {
            store,
            instance,
            function: self.function,
        }
    }

    /// Calls a new instance.
    pub(crate) fn fresh(&self, facts: &Facts) {
        self.instance().call(facts);
    }
}

impl Live {
    pub(crate) fn call(&mut self, facts: &Facts) {
        let called = match facts {
            Facts::Admission(facts) => self
                .typed::<(&AdmissionFacts,), (AdmissionDecision,)>((facts,))
                .map(drop),
            Facts::Cleanup(facts) => self
                .typed::<(&CleanupFacts,), (CleanupDecision,)>((facts,))
                .map(drop),
            Facts::Recovery(facts) => self
                .typed::<(&RecoveryFacts,), (RecoveryDecision,)>((facts,))
                .map(drop),
            Facts::Billing(facts) => self
                .typed::<(&BillingFacts,), (Vec<Charge>,)>((facts,))
                .map(drop),
            Facts::Observer(facts) => {
                self.typed::<(&Context, &str), ()>((&facts.context, &facts.event))
            }
        };
        called.expect("an answer");
    }

    fn typed<P, R>(&mut self, parameters: P) -> Result<R>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift + 'static,
    {
        let Self {
            store,
            instance,
            function,
        } = self;
        let function: TypedFunc<P, R> = instance.get_typed_func(&mut *store, *function)?;
        function.call(&mut *store, parameters)
    }
}
