//! What the device does when its queue calls.

use super::device::{REQUESTS, Rng};
use crate::devices::virtio::{Active, DeviceError, Writer};

/// Random bytes are fetched and copied in pieces of this size.
const PIECE_BYTES: usize = 256;

impl Rng {
    /// Fills every buffer that the driver offers.
    pub(super) fn serve_requests(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        let Some(queue) = active.queue(REQUESTS) else {
            return Ok(());
        };
        while let Some(chain) = queue.pop()? {
            let mut writer = chain.writer();
            let filled = fill(&mut writer);
            let written = writer.written() as u32;
            self.counters.count(written, filled.is_ok());
            queue.complete(chain, written)?;
        }
        Ok(())
    }
}

/// Fills all that there is room for. What was not filled because the host has no entropy is told
/// to the driver by the number of bytes written.
fn fill(writer: &mut Writer<'_>) -> Result<(), getrandom::Error> {
    let mut piece = [0; PIECE_BYTES];
    while let Some(part) = piece.get_mut(..writer.remaining().min(PIECE_BYTES))
        && !part.is_empty()
    {
        getrandom::fill(part)?;
        writer.write(part);
    }
    Ok(())
}
