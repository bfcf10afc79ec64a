//! The protocol of one connection: what packets of the guest mean, and which packet is due to it.
//! No socket, no queue and no clock.
//!
//! ```text
//!   host connects                                   guest connects
//!        │                                                │ REQUEST
//!        ▼                                                ▼
//!   Requesting ──────RESPONSE──────▶ Established ◀──our RESPONSE── Accepting
//!        │                             │      │
//!        │ anything illegal, or no answer in time    │ both ends are done, or the guest's RST
//!        ▼                             │      ▼
//!     Resetting ◀──────────────────────┘   Draining: the host end still takes what came before
//!        │ our RST                            │ it has taken all
//!        └───────────────▶ Over ◀─────────────┘
//! ```

use super::credit::{Credit, CreditError};
use super::packet::{Done, Header, Op};

/// A packet that the guest may not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    /// There is no such operation.
    #[error("operation {0}, which there is not")]
    Unknown(u16),
    /// Not now.
    #[error("{0:?} at the wrong time")]
    Unexpected(Op),
    /// Payload after it said that there would be none.
    #[error("payload after the end")]
    AfterEnd,
    /// See there.
    #[error(transparent)]
    Credit(#[from] CreditError),
}

/// What a packet of the guest asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// Nothing beyond what the connection now knows.
    Noted,
    /// The guest is connected: tell the host end.
    Connected,
    /// Bytes for the host end; tell of each when it is [`Connection::passed_on`].
    Payload(u32),
    /// Bytes that nobody takes any more.
    Ignored,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The host wants to connect; the guest was told, or will be.
    Requesting {
        told: bool,
    },
    /// The guest wants to connect, and will be told that it is.
    Accepting,
    Established,
    /// The guest will be told that it is over.
    Resetting,
    /// It is over for the guest; the host end still takes what came before.
    Draining,
    Over,
}

/// For what, other than bytes, a connection waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// The guest's answer to a request.
    Answer,
    /// The guest's last word, after both directions ended at the host.
    Close,
    /// The host end, to take what a guest sent that is no longer there.
    Drain,
}

/// One connection.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    phase: Phase,
    credit: Credit,
    /// What the guest is done with.
    guest: Done,
    /// What the host end is done with, as far as we found out.
    host: Done,
    /// What of it the guest was told.
    told: Done,
    /// The guest asked for credit.
    credit_asked: bool,
    /// We asked for credit, and got none since.
    asking: bool,
}

impl Connection {
    /// The host wants to connect to the guest. `room`: bytes that we buffer for the host end.
    pub(super) fn requested_by_host(room: u32) -> Self {
        Self {
            phase: Phase::Requesting { told: false },
            credit: Credit::new(room),
            guest: Done::default(),
            host: Done::default(),
            told: Done::default(),
            credit_asked: false,
            asking: false,
        }
    }

    /// The guest asked to connect by `request`, and the host end is connected.
    pub(super) fn requested_by_guest(room: u32, request: &Header) -> Result<Self, Violation> {
        let mut connection = Self {
            phase: Phase::Accepting,
            ..Self::requested_by_host(room)
        };
        connection
            .credit
            .update(request.buf_alloc, request.fwd_cnt)?;
        Ok(connection)
    }

    /// A packet came from the guest.
    ///
    /// # Errors
    /// It is illegal; the connection is reset.
    pub(super) fn receive(&mut self, header: &Header) -> Result<Received, Violation> {
        let received = self.judge(header);
        if received.is_err() {
            self.reset();
        }
        received
    }

    fn judge(&mut self, header: &Header) -> Result<Received, Violation> {
        let op = Op::from_number(header.op);
        if op == Some(Op::Reset) {
            self.phase = match self.phase {
                Phase::Established if self.is_orderly() => Phase::Draining,
                _ => Phase::Over,
            };
            return Ok(Received::Noted);
        }
        // It does not know yet that it is over.
        if self.phase == Phase::Resetting {
            return Ok(Received::Ignored);
        }
        let op = op.ok_or(Violation::Unknown(header.op))?;
        match (self.phase, op) {
            (Phase::Requesting { told: true }, Op::Response) | (Phase::Established, _) => {
                self.credit.update(header.buf_alloc, header.fwd_cnt)?;
                self.asking &= self.credit.available() == 0;
            }
            _ => return Err(Violation::Unexpected(op)),
        }
        match (self.phase, op) {
            (Phase::Requesting { .. }, _) => {
                self.phase = Phase::Established;
                Ok(Received::Connected)
            }
            (_, Op::Data) => self.payload(header.len),
            (_, Op::Shutdown) => {
                self.guest = self.guest.and(Done::from_flags(header.flags));
                self.give_up_sending();
                Ok(Received::Noted)
            }
            (_, Op::CreditRequest) => {
                self.credit_asked = true;
                Ok(Received::Noted)
            }
            (_, Op::CreditUpdate) => Ok(Received::Noted),
            (_, Op::Request | Op::Response | Op::Reset) => Err(Violation::Unexpected(op)),
        }
    }

    fn payload(&mut self, bytes: u32) -> Result<Received, Violation> {
        if self.guest.sending {
            return Err(Violation::AfterEnd);
        }
        self.credit.receive(bytes)?;
        if self.host.receiving {
            self.credit.pass_on(bytes);
            return Ok(Received::Ignored);
        }
        Ok(Received::Payload(bytes))
    }

    /// Whether the guest has ended what it sent, of which some is still here.
    fn is_orderly(&self) -> bool {
        self.guest.sending && self.credit.buffered() > 0 && !self.host.receiving
    }

    /// The host end took `bytes` of what was [`Received::Payload`], or never will.
    pub(super) fn passed_on(&mut self, bytes: u32) {
        self.credit.pass_on(bytes);
        if self.phase == Phase::Draining && self.credit.buffered() == 0 {
            self.phase = Phase::Over;
        }
    }

    /// The host end sends no more, and the guest was sent all that it had sent.
    pub(super) fn host_ended(&mut self) {
        self.host.sending = true;
    }

    /// The host end takes no more. What is buffered is passed on to nobody.
    pub(super) fn host_takes_no_more(&mut self) {
        self.host.receiving = true;
        self.give_up_sending();
        self.passed_on(self.credit.buffered());
        // There is nobody to connect.
        if matches!(self.phase, Phase::Requesting { .. } | Phase::Accepting) {
            self.reset();
        }
    }

    /// Where neither end receives, nothing is read, so the host end's end would not be found.
    fn give_up_sending(&mut self) {
        self.host.sending |= self.host.receiving && self.guest.receiving;
    }

    /// Ends the connection, whatever it is in.
    pub(super) fn reset(&mut self) {
        self.phase = match self.phase {
            Phase::Requesting { told: false } | Phase::Draining | Phase::Over => Phase::Over,
            _ => Phase::Resetting,
        };
    }

    /// Bytes that may be read from the host end and sent to the guest now.
    pub(super) fn may_send(&self) -> u32 {
        match self.phase {
            Phase::Established if !self.guest.receiving && !self.host.sending => {
                self.credit.available()
            }
            _ => 0,
        }
    }

    /// `bytes`, which [`Self::may_send`] allowed, go to the guest.
    pub(super) fn sent(&mut self, bytes: u32) {
        self.credit.send(bytes);
    }

    /// The packet without payload that is due to the guest, and its flags. `has_data`: the host end
    /// may have sent something.
    pub(super) fn due(&self, has_data: bool) -> Option<(Op, u32)> {
        match self.phase {
            Phase::Requesting { told: false } => Some((Op::Request, 0)),
            Phase::Accepting => Some((Op::Response, 0)),
            Phase::Resetting => Some((Op::Reset, 0)),
            // The guest closes, and all that it sent has been passed on.
            Phase::Established if self.guest.both() => {
                (self.credit.buffered() == 0).then_some((Op::Reset, 0))
            }
            Phase::Established if self.told != self.host => Some((Op::Shutdown, self.host.flags())),
            Phase::Established if self.credit_asked || self.is_update_due() => {
                Some((Op::CreditUpdate, 0))
            }
            Phase::Established if has_data && self.is_out_of_credit() => {
                Some((Op::CreditRequest, 0))
            }
            _ => None,
        }
    }

    fn is_update_due(&self) -> bool {
        self.credit.is_update_due() && !self.guest.sending && !self.host.receiving
    }

    fn is_out_of_credit(&self) -> bool {
        let ends = self.guest.receiving || self.host.sending;
        !ends && !self.asking && self.credit.available() == 0
    }

    /// The guest is sent the packet that was [`Self::due`].
    pub(super) fn did(&mut self, op: Op) {
        match op {
            Op::Request => self.phase = Phase::Requesting { told: true },
            Op::Response => self.phase = Phase::Established,
            Op::Reset => self.phase = Phase::Over,
            Op::Shutdown => self.told = self.host,
            Op::CreditRequest => self.asking = true,
            Op::CreditUpdate | Op::Data => {}
        }
    }

    /// What any packet tells the guest: the size of our buffer, and what was passed on.
    pub(super) fn tell_credit(&mut self) -> (u32, u32) {
        self.credit_asked = false;
        self.credit.tell()
    }

    /// What the guest is done with.
    pub(super) fn guest_is_done_with(&self) -> Done {
        self.guest
    }

    /// For what it waits, and not for ever.
    pub(super) fn waits_for(&self) -> Option<Wait> {
        match self.phase {
            Phase::Requesting { .. } => Some(Wait::Answer),
            Phase::Established if self.told.both() => Some(Wait::Close),
            Phase::Draining => Some(Wait::Drain),
            _ => None,
        }
    }

    /// Whether the host end is of no more use.
    pub(super) fn needs_no_host(&self) -> bool {
        matches!(self.phase, Phase::Resetting | Phase::Over)
    }

    /// Whether the guest does not know it any more, or is free to use its ports again.
    pub(super) fn is_unknown_to_guest(&self) -> bool {
        matches!(self.phase, Phase::Draining | Phase::Over)
    }

    /// Whether nothing is left to do.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }
}
