//! Flow control of one connection (virtio 1.2, section 5.10.6.3): how much each end may send.
//!
//! An end tells in every packet how large its buffer is and how much it has passed on out of it;
//! the other end keeps what is in between below the size. Counts are modulo 2^32.

/// The guest's arithmetic is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum CreditError {
    /// It sent more than there is room for.
    #[error("{sent} bytes where there is room for {room}")]
    Overrun {
        /// What it sent.
        sent: u32,
        /// What it might have sent.
        room: u32,
    },
    /// It says that it has passed on what it was not sent.
    #[error("bytes were passed on that were not sent")]
    NotSent,
}

/// Both directions of one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credit {
    /// Bytes that the guest buffers.
    guest_room: u32,
    /// Bytes that the guest has passed on.
    guest_passed: u32,
    /// Bytes that the guest was sent.
    sent: u32,
    /// Bytes that we buffer.
    room: u32,
    /// Bytes that came from the guest.
    received: u32,
    /// Bytes of them that we passed on.
    passed: u32,
    /// The value of `passed` that the guest knows.
    told: u32,
}

impl Credit {
    /// For a new connection, with a buffer of `room` bytes at our end.
    pub(super) fn new(room: u32) -> Self {
        Self {
            guest_room: 0,
            guest_passed: 0,
            sent: 0,
            room,
            received: 0,
            passed: 0,
            told: 0,
        }
    }

    /// Takes in what the guest says of its buffer.
    pub(super) fn update(&mut self, guest_room: u32, passed: u32) -> Result<(), CreditError> {
        let progress = passed.wrapping_sub(self.guest_passed);
        if progress <= self.unpassed() {
            self.guest_passed = passed;
        } else if progress <= i32::MAX as u32 {
            return Err(CreditError::NotSent);
        }
        // Otherwise it is older than what we know: Linux stamps packets, then queues them, and two
        // threads of its may do so in different orders.
        self.guest_room = guest_room;
        Ok(())
    }

    /// Bytes that the guest has in its buffer, or that are on the way.
    fn unpassed(&self) -> u32 {
        self.sent.wrapping_sub(self.guest_passed)
    }

    /// Bytes that the guest may be sent. A buffer may be made smaller than what is in it.
    pub(super) fn available(&self) -> u32 {
        self.guest_room.saturating_sub(self.unpassed())
    }

    /// `bytes`, which must be available, go to the guest.
    pub(super) fn send(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }

    /// `bytes` came from the guest.
    pub(super) fn receive(&mut self, bytes: u32) -> Result<(), CreditError> {
        let room = self.room.saturating_sub(self.buffered());
        if bytes > room {
            return Err(CreditError::Overrun { sent: bytes, room });
        }
        self.received = self.received.wrapping_add(bytes);
        Ok(())
    }

    /// Bytes that came and were not passed on yet.
    pub(super) fn buffered(&self) -> u32 {
        self.received.wrapping_sub(self.passed)
    }

    /// `bytes` of what is buffered were passed on.
    pub(super) fn pass_on(&mut self, bytes: u32) {
        self.passed = self.passed.wrapping_add(bytes.min(self.buffered()));
    }

    /// Whether the guest is to be told of room. A quarter of the buffer at a time: a guest that
    /// has to wait for room gets it, since all that is buffered will be passed on.
    pub(super) fn is_update_due(&self) -> bool {
        self.passed.wrapping_sub(self.told) >= (self.room / 4).max(1)
    }

    /// What a packet tells the guest: the size of our buffer, and what was passed on.
    pub(super) fn tell(&mut self) -> (u32, u32) {
        self.told = self.passed;
        (self.room, self.passed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A connection that has been in use for a long time: all counts are about to wrap.
    fn old(room: u32) -> Credit {
        let near = u32::MAX - 10;
        Credit {
            guest_passed: near,
            sent: near,
            received: near,
            passed: near,
            told: near,
            ..Credit::new(room)
        }
    }

    #[test]
    fn what_is_in_the_guests_buffer_is_no_longer_available() {
        for mut credit in [Credit::new(0), old(0)] {
            let start = credit.guest_passed;
            assert_eq!(credit.available(), 0);
            credit.update(100, start).unwrap();
            credit.send(70);
            assert_eq!(credit.available(), 30);
            credit.update(100, start.wrapping_add(20)).unwrap();
            assert_eq!(credit.available(), 50);
            credit.update(10, start.wrapping_add(20)).unwrap();
            assert_eq!(credit.available(), 0, "it made its buffer smaller");
        }
    }

    #[test]
    fn an_old_count_changes_nothing_and_one_of_the_future_is_refused() {
        for mut credit in [Credit::new(0), old(0)] {
            let start = credit.guest_passed;
            credit.update(100, start).unwrap();
            credit.send(50);
            credit.update(100, start.wrapping_add(40)).unwrap();
            credit.update(100, start.wrapping_add(30)).unwrap();
            assert_eq!(credit.available(), 90);
            let future = start.wrapping_add(51);
            assert_eq!(credit.update(100, future), Err(CreditError::NotSent));
        }
    }

    #[test]
    fn more_than_there_is_room_for_is_refused() {
        for mut credit in [Credit::new(64), old(64)] {
            credit.receive(60).unwrap();
            let overrun = CreditError::Overrun { sent: 5, room: 4 };
            assert_eq!(credit.receive(5), Err(overrun));
            credit.receive(4).unwrap();
            credit.pass_on(1);
            credit.receive(1).unwrap();
            assert!(credit.receive(1).is_err());
            assert!(credit.receive(u32::MAX).is_err());
        }
    }

    proptest! {
        /// Two ends that follow the rules: no packet is refused, no buffer is overrun, and all
        /// arrives although updates are held back.
        #[test]
        fn two_ends_that_keep_the_rules_pass_everything_on(
            room in 1u32..300,
            pieces in prop::collection::vec((1u32..200, 1u32..200), 1..200),
        ) {
            let mut ours = old(room);
            // What the guest knows of us.
            let (mut known_room, mut known_passed) = ours.tell();
            let mut sent = known_passed;
            for (wants, passes) in pieces {
                let free = known_room.saturating_sub(sent.wrapping_sub(known_passed));
                let piece = wants.min(free);
                ours.receive(piece).unwrap();
                sent = sent.wrapping_add(piece);
                prop_assert!(ours.buffered() <= room);
                ours.pass_on(passes);
                if ours.is_update_due() {
                    (known_room, known_passed) = ours.tell();
                }
                let free = known_room.saturating_sub(sent.wrapping_sub(known_passed));
                prop_assert!(free > 0 || ours.buffered() > 0, "stuck for ever");
            }
        }
    }
}
