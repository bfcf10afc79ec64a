//! The journal of decisions.

use std::ops::Bound;

use redb::ReadableDatabase as _;
use roost_model::{DecisionRecord, Hook, Name, Tenant, VmId};
use serde::Deserialize;

use super::{Range, Read, open};
use crate::schema::{self as tables, decode, number};
use crate::store::Store;

/// Decisions that one page looks at: bounds the time of a filter that nothing passes.
const MAX_SCANNED: usize = 2_500;
/// Decisions of one page together, bytes; it has at least one.
const MAX_PAGE_BYTES: usize = 8 << 20;

/// Which decisions. Nothing set: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DecisionFilter {
    /// Of this hook.
    pub hook: Option<Hook>,
    /// For which this plugin was asked.
    pub plugin: Option<Name>,
    /// About this VM.
    pub vm: Option<VmId>,
    /// About VMs of this tenant.
    pub tenant: Option<Tenant>,
    /// With, or without, a call that was of another mind.
    pub differs: Option<bool>,
}

/// Where a page of decisions begins, and which way it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    Oldest {
        /// Only numbers above this one.
        after: u64,
    },
    /// Newest first.
    Newest {
        /// Only numbers below this one.
        before: Option<u64>,
    },
}

/// A page of decisions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DecisionPage {
    /// Those that passed the filter.
    pub items: Vec<DecisionRecord>,
    /// Where to go on, if there may be more.
    pub next: Option<u64>,
}

/// What a filter looks at.
#[derive(Deserialize)]
struct Head {
    hook: Hook,
    #[serde(default)]
    vm: Option<VmId>,
    #[serde(default)]
    tenant: Option<Tenant>,
    #[serde(default)]
    differs: bool,
    #[serde(default)]
    calls: Vec<Asked>,
}

#[derive(Deserialize)]
struct Asked {
    plugin: String,
}

impl DecisionFilter {
    fn passes(&self, head: &Head) -> bool {
        let asked = |name: &Name| head.calls.iter().any(|call| call.plugin == name.as_str());
        self.hook.is_none_or(|hook| head.hook == hook)
            && self.vm.is_none_or(|vm| head.vm == Some(vm))
            && (self.tenant.as_ref()).is_none_or(|tenant| head.tenant.as_ref() == Some(tenant))
            && self.differs.is_none_or(|differs| head.differs == differs)
            && self.plugin.as_ref().is_none_or(asked)
    }
}

impl Store {
    /// A decision of the journal.
    pub fn decision(&self, number: u64) -> Read<Option<DecisionRecord>> {
        self.get(tables::DECISIONS, &number.to_be_bytes())
    }

    /// At most `limit` decisions that pass `filter`. A page may have fewer, even none, and still
    /// have a next one.
    pub fn decisions(
        &self,
        filter: &DecisionFilter,
        order: Order,
        limit: usize,
    ) -> Read<DecisionPage> {
        let key = |number: u64| number.to_be_bytes().to_vec();
        let range: Range = match order {
            Order::Oldest { after } => (Bound::Excluded(key(after)), Bound::Unbounded),
            Order::Newest { before: None } => (Bound::Unbounded, Bound::Unbounded),
            Order::Newest {
                before: Some(before),
            } => (Bound::Unbounded, Bound::Excluded(key(before))),
        };
        let table = open(&self.database().begin_read()?, tables::DECISIONS)?;
        let mut rows = table.range::<&[u8]>((
            range.0.as_ref().map(Vec::as_slice),
            range.1.as_ref().map(Vec::as_slice),
        ))?;
        let mut page = DecisionPage::default();
        let mut bytes: usize = 0;
        let mut scanned = 0;
        loop {
            let row = match order {
                Order::Oldest { .. } => rows.next(),
                Order::Newest { .. } => rows.next_back(),
            };
            let Some(row) = row else {
                page.next = None;
                return Ok(page);
            };
            let (key, value) = row?;
            let value = value.value();
            bytes = bytes.saturating_add(value.len());
            let is_full = page.items.len() >= limit
                || scanned >= MAX_SCANNED
                || (!page.items.is_empty() && bytes > MAX_PAGE_BYTES);
            if is_full {
                return Ok(page);
            }
            scanned += 1;
            page.next = Some(number(tables::DECISIONS, key.value())?);
            if filter.passes(&decode(tables::DECISIONS, value)?) {
                page.items.push(decode(tables::DECISIONS, value)?);
            }
        }
    }
}
