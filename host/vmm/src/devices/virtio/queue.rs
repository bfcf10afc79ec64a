//! A virtqueue as a device uses it: take chains, give them back, in turns of bounded length.

use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT as _, QueueT as _};
use vm_memory::{Bytes as _, GuestAddress};

use super::chain::{self, Chain, ChainError, Rules, Table};
use super::{GuestMemory, QueueLimits, QueueState};

/// Most chains that are taken from a queue in one turn; then others have theirs.
const TURN_CHAINS: u16 = 256;

/// What is wrong with a queue.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueueError {
    /// Its size or its addresses.
    #[error("queue {queue}: {reason}")]
    Geometry {
        /// Which queue.
        queue: u16,
        /// What about it.
        reason: &'static str,
    },
    /// Its rings.
    #[error("queue {queue}: {source}")]
    Ring {
        /// Which queue.
        queue: u16,
        /// What about them.
        source: virtio_queue::Error,
    },
    /// The driver made more chains available than the ring has descriptors.
    #[error("queue {0}: more chains than descriptors")]
    Flood(u16),
    /// A chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// A queue that the driver enabled.
pub(crate) struct Virtqueue {
    index: u16,
    queue: Queue,
    memory: GuestMemory,
    rules: Rules,
    /// Chains that may still be taken in this turn.
    turn: u16,
    unfinished: bool,
    in_flight: u16,
    /// Whether something was completed that the driver was not told of.
    completed: bool,
    /// The used ring's index up to which it was told.
    told: u16,
}

/// How a queue is used, as negotiated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Negotiated {
    pub(super) indirect: bool,
    pub(super) event_idx: bool,
}

impl Virtqueue {
    /// A queue whose size, alignment and place in memory have been checked.
    pub(super) fn new(
        index: u16,
        limits: QueueLimits,
        state: &QueueState,
        negotiated: Negotiated,
        memory: GuestMemory,
    ) -> Result<Self, QueueError> {
        let wrong = |reason| QueueError::Geometry {
            queue: index,
            reason,
        };
        let ring = |source| QueueError::Ring {
            queue: index,
            source,
        };
        let mut queue = Queue::new(limits.max_size).map_err(ring)?;
        queue.try_set_size(state.size).map_err(ring)?;
        queue
            .try_set_desc_table_address(GuestAddress(state.descriptors))
            .map_err(ring)?;
        queue
            .try_set_avail_ring_address(GuestAddress(state.available))
            .map_err(ring)?;
        queue
            .try_set_used_ring_address(GuestAddress(state.used))
            .map_err(ring)?;
        queue.set_event_idx(negotiated.event_idx);
        queue.set_next_avail(state.next_available);
        queue.set_next_used(state.next_used);
        queue.set_ready(true);
        if state.available == 0 {
            return Err(wrong("the available ring is at address 0"));
        }
        if !queue.is_valid(&*memory) {
            return Err(wrong("it is not all in memory"));
        }
        Ok(Self {
            index,
            queue,
            memory,
            rules: Rules {
                indirect: negotiated.indirect,
                max_bytes: limits.max_chain_bytes,
            },
            turn: TURN_CHAINS,
            unfinished: false,
            in_flight: 0,
            completed: false,
            told: state.next_used,
        })
    }

    /// Its number in the device.
    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    /// Takes the next chain, checked whole. `None`: there is none, and the driver was asked to
    /// notify of the next; or the turn is over, and another comes by itself.
    ///
    /// # Errors
    /// The rings or the chain make no sense: hand it on, it breaks the device.
    pub(crate) fn pop(&mut self) -> Result<Option<Chain>, QueueError> {
        loop {
            let Some(turn) = self.turn.checked_sub(1) else {
                self.unfinished = true;
                return Ok(None);
            };
            self.turn = turn;
            if let Some(head) = self.next_head()? {
                if self.in_flight >= self.queue.size() {
                    return Err(QueueError::Flood(self.index));
                }
                let table = Table {
                    address: GuestAddress(self.queue.desc_table()),
                    size: self.queue.size(),
                };
                let chain = chain::read(&self.memory, table, head, self.rules)?;
                self.in_flight += 1;
                return Ok(Some(chain));
            }
            let more = self.queue.enable_notification(&*self.memory);
            if !more.map_err(|source| self.ring(source))? {
                return Ok(None);
            }
        }
    }

    fn next_head(&mut self) -> Result<Option<u16>, QueueError> {
        let index = self.index;
        match self.queue.iter(&*self.memory) {
            Ok(mut available) => Ok(available.next().map(|chain| chain.head_index())),
            Err(source) => Err(QueueError::Ring {
                queue: index,
                source,
            }),
        }
    }

    /// Gives a chain back to the driver with `written` bytes written into it.
    pub(crate) fn complete(&mut self, chain: Chain, written: u32) -> Result<(), QueueError> {
        let (head, written) = (chain.head(), written.min(chain.writable_bytes()));
        drop(chain);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.completed = true;
        let added = self.queue.add_used(&*self.memory, head, written);
        added.map_err(|source| self.ring(source))
    }

    /// Gives several chains back that belong together: the driver sees all of them or none.
    pub(crate) fn complete_together(
        &mut self,
        chains: impl Iterator<Item = (Chain, u32)>,
    ) -> Result<(), QueueError> {
        let mut chains = chains.peekable();
        while let Some((chain, written)) = chains.next() {
            if chains.peek().is_none() {
                // The last one's entry comes with the new index, which is what the driver looks at.
                return self.complete(chain, written);
            }
            let at = self.queue.next_used();
            let written = written.min(chain.writable_bytes());
            let entry = u64::from(written) << 32 | u64::from(chain.head());
            let offset = 4 + 8 * u64::from(at % self.queue.size());
            // The ring was checked to be all in memory, so this does not overflow.
            let address = GuestAddress(self.queue.used_ring().wrapping_add(offset));
            let put = self.memory.write_obj(entry.to_le(), address);
            put.map_err(|source| self.ring(virtio_queue::Error::GuestMemory(source)))?;
            self.queue.set_next_used(at.wrapping_add(1));
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        Ok(())
    }

    /// Undoes the last [`Self::pop`] that was not undone: the chain is available again. Several are
    /// undone last first.
    pub(crate) fn unpop(&mut self, chain: Chain) {
        drop(chain);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.queue.go_to_previous_position();
    }

    /// Chains that were taken and not given back.
    pub(crate) fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// Whether the driver wants an interrupt for what was completed; then it counts as told.
    pub(super) fn wants_interrupt(&mut self) -> Result<bool, QueueError> {
        if !std::mem::take(&mut self.completed) {
            return Ok(false);
        }
        let used = self.queue.next_used();
        let told = std::mem::replace(&mut self.told, used);
        // What was completed is seen before what the driver wants is read.
        fence(Ordering::SeqCst);
        let available = self.queue.avail_ring();
        if self.queue.event_idx_enabled() {
            let entries = 2 * u64::from(self.queue.size());
            let event = self.load(available.wrapping_add(4).wrapping_add(entries))?;
            // Whether the entry that it waits for is among those that are new (section 2.7.7).
            let since = used.wrapping_sub(event).wrapping_sub(1);
            return Ok(since < used.wrapping_sub(told));
        }
        let flags = self.load(available)?;
        Ok(u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    /// A field of the rings, which were checked to be all in memory.
    fn load(&self, address: u64) -> Result<u16, QueueError> {
        let value = self.memory.load(GuestAddress(address), Ordering::Relaxed);
        value
            .map(u16::from_le)
            .map_err(|source| self.ring(virtio_queue::Error::GuestMemory(source)))
    }

    pub(super) fn begin_turn(&mut self) {
        self.turn = TURN_CHAINS;
        self.unfinished = false;
    }

    pub(super) fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    pub(super) fn state(&self) -> QueueState {
        QueueState {
            ready: true,
            size: self.queue.size(),
            descriptors: self.queue.desc_table(),
            available: self.queue.avail_ring(),
            used: self.queue.used_ring(),
            next_available: self.queue.next_avail(),
            next_used: self.queue.next_used(),
        }
    }

    fn ring(&self, source: virtio_queue::Error) -> QueueError {
        QueueError::Ring {
            queue: self.index,
            source,
        }
    }
}
