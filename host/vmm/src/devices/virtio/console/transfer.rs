//! The bytes themselves.

use super::device::{Console, Port, receive_queue, transmit_queue};
use crate::devices::virtio::{Active, DeviceError, Virtqueue};

/// Most bytes of output that are taken in one turn.
const TURN_BYTES: u64 = 1 << 20;

impl Console {
    /// Gives the guest input of a port, as far as it has buffers.
    pub(super) fn give(&mut self, number: usize, active: &mut Active) -> Result<(), DeviceError> {
        let (Some(port), Some(queue)) =
            (self.ports.get(number), active.queue(receive_queue(number)))
        else {
            return Ok(());
        };
        while port.host.has_input()
            && let Some(chain) = queue.pop()?
        {
            let given = port.host.give_input(&chain);
            self.counters.input.add(given.into());
            self.counters.bad_buffers.add((given == 0).into());
            queue.complete(chain, given)?;
        }
        Ok(())
    }

    /// Takes the guest's output of a port, as far as the limit allows it and a turn goes.
    pub(super) fn take(&mut self, number: usize, active: &mut Active) -> Result<(), DeviceError> {
        let (Some(port), Some(queue)) = (
            self.ports.get_mut(number),
            active.queue(transmit_queue(number)),
        ) else {
            return Ok(());
        };
        let before = port.host.end();
        let taken = port.take(queue);
        let bytes = port.host.end() - before;
        self.counters.output.add(bytes);
        if bytes > 0 {
            // Once for all of it.
            port.host.notify();
        }
        self.counters.requests.add(taken?);
        if bytes >= TURN_BYTES {
            self.wake.raise();
        }
        Ok(())
    }
}

impl Port {
    /// Returns how many requests there were.
    fn take(&mut self, queue: &mut Virtqueue) -> Result<u64, DeviceError> {
        let (mut bytes, mut requests) = (0, 0);
        while bytes < TURN_BYTES
            && let Some(chain) = queue.pop()?
        {
            if !self.limiter.admits() {
                // The limiter's timer goes on from here.
                queue.unpop(chain);
                break;
            }
            let taken = self.host.take_output(&chain);
            self.limiter.charge(taken, 1);
            queue.complete(chain, 0)?;
            bytes += taken;
            requests += 1;
        }
        Ok(requests)
    }
}
