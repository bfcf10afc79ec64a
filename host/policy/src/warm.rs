//! Instances that are kept between calls.
//!
//! An instance serves one revision of one plugin and one tenant. It is thrown away after an error,
//! after so many uses, when it has grown, and when others are needed more.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::call::Live;

/// Instances that are kept at most, of all plugins together. A small one takes about 25 KiB.
pub(crate) const MAX_WARM: u32 = 64;
/// Calls that an instance serves.
const MAX_USES: u32 = 1000;

/// Whose instance it is.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    /// The plugin's revision, as long as it has a say.
    pub(crate) seat: Arc<Occupied>,
    /// The tenant that it has seen.
    pub(crate) tenant: Arc<str>,
}

/// Whether a revision still has its seat; its address is its identity.
#[derive(Debug, Default)]
pub(crate) struct Occupied {
    left: AtomicBool,
}

impl Key {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.seat, &other.seat) && self.tenant == other.tenant
    }
}

#[derive(Default)]
pub(crate) struct WarmPool {
    /// Those used last are at the end.
    idle: Mutex<VecDeque<(Key, Live)>>,
}

impl WarmPool {
    fn idle(&self) -> MutexGuard<'_, VecDeque<(Key, Live)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle instance, the one used last.
    pub(crate) fn take(&self, key: &Key) -> Option<Live> {
        let mut idle = self.idle();
        let index = idle.iter().rposition(|(found, _)| found.is(key))?;
        idle.remove(index).map(|(_, live)| live)
    }

    /// Keeps an instance that has answered, unless it is used up or its revision is gone.
    pub(crate) fn put(&self, key: &Key, live: Live) {
        if live.uses >= MAX_USES || !live.is_roomy() {
            return;
        }
        let mut idle = self.idle();
        // Seen under the lock: `leave` comes either before, and is seen, or after, and cleans up.
        if key.seat.left.load(Ordering::Relaxed) {
            return;
        }
        idle.push_back((key.clone(), live));
        let oldest = if idle.len() > MAX_WARM as usize {
            idle.pop_front()
        } else {
            None
        };
        // Dropping one takes longer than all of the above.
        drop(idle);
        drop(oldest);
    }

    /// Throws away what a revision has that has lost its seat.
    pub(crate) fn leave(&self, seat: &Arc<Occupied>) {
        let mut idle = self.idle();
        seat.left.store(true, Ordering::Relaxed);
        let (gone, stay): (VecDeque<_>, _) = std::mem::take(&mut *idle)
            .into_iter()
            .partition(|(key, _)| Arc::ptr_eq(&key.seat, seat));
        *idle = stay;
        drop(idle);
        drop(gone);
    }

    /// How many are kept.
    pub(crate) fn len(&self) -> usize {
        self.idle().len()
    }
}
