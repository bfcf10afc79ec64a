//! What a component imports, what it needs granted for it, and how it is linked.

use std::collections::BTreeSet;

use roost_model::Grant;
use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, HasSelf, Linker};

use crate::bindings::host;
use crate::call::CallState;
use crate::error::LoadError;
use crate::exports::interface;
use crate::text::clean;
use crate::wasi;

/// What a component imports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Imports {
    /// Each function, or whatever else it is, as `interface#name`.
    pub(crate) names: Vec<String>,
    /// What has to be granted for them.
    pub(crate) needs: BTreeSet<Grant>,
}

impl Imports {
    /// Looks at what `component` imports.
    pub(crate) fn of(
        component: &Component,
        engine: &Engine,
        granted: &BTreeSet<Grant>,
    ) -> Result<Self, LoadError> {
        let mut imports = Self::default();
        for (name, import) in component.component_type().imports(engine) {
            let ComponentItem::ComponentInstance(instance) = &import.ty else {
                return Err(LoadError::Import(clean(name)));
            };
            for (item, export) in instance.exports(engine) {
                if matches!(export.ty, ComponentItem::Type(_)) && !name.starts_with(wasi::PACKAGE) {
                    continue;
                }
                let import = clean(&format!("{name}#{item}"));
                let grant = needed(name, item).ok_or_else(|| LoadError::Import(import.clone()))?;
                if !granted.contains(&grant) {
                    return Err(LoadError::NotGranted { import, grant });
                }
                imports.needs.insert(grant);
                imports.names.push(import);
            }
            if !is_known(name) {
                return Err(LoadError::Import(clean(name)));
            }
        }
        Ok(imports)
    }

    /// A linker with what was granted and nothing else.
    pub(crate) fn linker(
        &self,
        component: &Component,
        engine: &Engine,
    ) -> wasmtime::Result<Linker<CallState>> {
        let mut linker = Linker::new(engine);
        let ours = [Grant::Log, Grant::Query, Grant::Kv];
        if ours.iter().any(|grant| self.needs.contains(grant)) {
            host::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut CallState| {
                &mut state.access
            })?;
        }
        if self.needs.contains(&Grant::Wasi) {
            wasi::add_to_linker(&mut linker, component, engine)?;
        }
        Ok(linker)
    }
}

/// Whether `name` is an interface that any grant is for, or one of types.
fn is_known(name: &str) -> bool {
    name == interface("types") || name == interface("host") || wasi::offers(name)
}

/// The grant that a function needs; none where there is no such function.
fn needed(import: &str, item: &str) -> Option<Grant> {
    if wasi::offers(import) {
        return Some(Grant::Wasi);
    }
    if import != interface("host") {
        return None;
    }
    match item {
        "log" => Some(Grant::Log),
        "get-vm" | "list-vms" | "history" => Some(Grant::Query),
        "kv-get" | "kv-set" | "kv-compare-and-swap" | "kv-delete" | "kv-list" => Some(Grant::Kv),
        _ => None,
    }
}
