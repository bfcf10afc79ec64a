//! The connection's protocol, against a model of what both ends may see.

use proptest::prelude::*;

use crate::devices::virtio::vsock::connection::{Connection, Received};
use crate::devices::virtio::vsock::packet::{Header, Op};

const ROOM: u32 = 100;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A packet of the guest: operation, flags, bytes, its buffer, and what it claims to have
    /// passed on beyond what it has.
    Packet(u16, u32, u32, u32, u32),
    /// The guest reads some of what it was sent, and tells it with its next packet.
    GuestReads(u32),
    /// The guest takes a packet without payload, if one is due.
    Due(bool),
    /// Payload goes to the guest.
    Send(u32),
    /// The host end takes some of what the guest sent.
    HostTakes(u32),
    HostEnds,
    HostTakesNoMore,
    Deadline,
}

fn step() -> impl Strategy<Value = Step> {
    let op = prop_oneof![12 => 2u16..8, 1 => 0u16..10];
    let lie = prop_oneof![20 => Just(0u32), 1 => any::<u32>()];
    prop_oneof![
        8 => (op, 0u32..4, 0u32..60, 0u32..200, lie)
            .prop_map(|(op, flags, len, room, lie)| Step::Packet(op, flags, len, room, lie)),
        4 => (0u32..60).prop_map(Step::GuestReads),
        8 => any::<bool>().prop_map(Step::Due),
        6 => (1u32..60).prop_map(Step::Send),
        6 => (1u32..60).prop_map(Step::HostTakes),
        1 => Just(Step::HostEnds),
        1 => Just(Step::HostTakesNoMore),
        1 => Just(Step::Deadline),
    ]
}

/// What both ends have seen so far.
#[derive(Debug, Default)]
struct Model {
    is_of_host: bool,
    /// Packets to the guest.
    requests: u32,
    responses: u32,
    resets: u32,
    ended: bool,
    /// The guest's own.
    answered: bool,
    guest_reset: bool,
    /// Bytes to the guest, and how many of them it read.
    sent: u32,
    read: u32,
    /// Bytes for the host end that it did not take yet.
    buffered: u32,
}

fn run(is_of_host: bool, steps: &[Step]) -> Result<(), TestCaseError> {
    let request = Header {
        op: Op::Request as u16,
        buf_alloc: 50,
        ..Header::default()
    };
    let mut connection = match is_of_host {
        true => Connection::requested_by_host(ROOM),
        false => Connection::requested_by_guest(ROOM, &request).unwrap(),
    };
    let mut model = Model {
        is_of_host,
        ..Model::default()
    };
    for step in steps {
        apply(&mut connection, &mut model, *step)?;
        check(&connection, &model)?;
    }
    // Whatever it is in, it comes to its end, and the guest is told at most once.
    connection.reset();
    if let Some((op, _)) = connection.due(true) {
        prop_assert_eq!(op, Op::Reset);
        model.resets += 1;
        connection.did(op);
    }
    prop_assert!(connection.is_over());
    check(&connection, &model)
}

fn apply(connection: &mut Connection, model: &mut Model, step: Step) -> Result<(), TestCaseError> {
    match step {
        Step::Packet(op, flags, len, buf_alloc, lie) => {
            let header = Header {
                op,
                flags,
                len,
                buf_alloc,
                fwd_cnt: model.read.wrapping_add(lie),
                ..Header::default()
            };
            let was_over = connection.needs_no_host();
            let received = connection.receive(&header);
            model.guest_reset |= op == Op::Reset as u16;
            match received {
                Ok(Received::Payload(bytes)) => {
                    prop_assert_eq!((op, bytes), (Op::Data as u16, len));
                    prop_assert!(!was_over && model.is_open());
                    model.buffered += bytes;
                }
                Ok(Received::Connected) => {
                    prop_assert!(model.is_of_host && model.requests == 1 && !model.answered);
                    model.answered = true;
                }
                Ok(_) => {}
                Err(_) => prop_assert!(connection.needs_no_host()),
            }
        }
        Step::GuestReads(bytes) => model.read += bytes.min(model.sent - model.read),
        Step::Due(has_data) => {
            if let Some((op, flags)) = connection.due(has_data) {
                prop_assert_eq!(model.resets, 0, "a packet after the last one");
                match op {
                    Op::Request => model.requests += 1,
                    Op::Response => model.responses += 1,
                    Op::Reset => model.resets += 1,
                    Op::Shutdown => {
                        prop_assert!(flags != 0 && flags < 4);
                        model.ended |= flags & 2 != 0;
                    }
                    Op::CreditRequest => prop_assert!(has_data),
                    Op::CreditUpdate => {}
                    Op::Data => prop_assert!(false),
                }
                connection.did(op);
                connection.tell_credit();
            }
        }
        Step::Send(bytes) => {
            let bytes = bytes.min(connection.may_send());
            if bytes > 0 {
                prop_assert!(model.is_open(), "payload before or after the connection");
                prop_assert!(!model.ended, "payload after the end");
                connection.sent(bytes);
                connection.tell_credit();
                model.sent += bytes;
            }
        }
        Step::HostTakes(bytes) => {
            let bytes = bytes.min(model.buffered);
            connection.passed_on(bytes);
            model.buffered -= bytes;
        }
        Step::HostEnds => connection.host_ended(),
        Step::HostTakesNoMore => {
            connection.host_takes_no_more();
            model.buffered = 0;
        }
        Step::Deadline => {
            if connection.waits_for().is_some() {
                connection.reset();
                prop_assert!(connection.needs_no_host());
            }
        }
    }
    Ok(())
}

impl Model {
    /// Both ends know of each other, and neither was told that it is over.
    fn is_open(&self) -> bool {
        let known = if self.is_of_host {
            self.answered
        } else {
            self.responses == 1
        };
        known && self.resets == 0 && !self.guest_reset
    }
}

fn check(connection: &Connection, model: &Model) -> Result<(), TestCaseError> {
    prop_assert!(
        model.buffered <= ROOM,
        "more is kept than there is room for"
    );
    prop_assert!(model.requests <= u32::from(model.is_of_host));
    prop_assert!(model.responses <= u32::from(!model.is_of_host));
    prop_assert!(model.resets <= 1);
    if connection.is_over() {
        for has_data in [false, true] {
            prop_assert_eq!(connection.due(has_data), None);
        }
        prop_assert!(connection.may_send() == 0 && connection.waits_for().is_none());
        prop_assert!(connection.is_unknown_to_guest() && connection.needs_no_host());
        // It is over for a reason that the guest knows, or it never knew of the connection.
        let is_unknown = model.is_of_host && model.requests == 0;
        prop_assert!(model.resets == 1 || model.guest_reset || is_unknown);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_order_of_events_breaks_the_protocol(
        is_of_host in any::<bool>(),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        // Most orders begin as they should, or little would come of them.
        let opening = match is_of_host {
            true => vec![Step::Due(false), Step::Packet(2, 0, 0, 100, 0)],
            false => vec![Step::Due(false)],
        };
        run(is_of_host, &[opening, steps.clone()].concat())?;
        run(is_of_host, &steps)?;
    }

    /// What the guest was told of its buffer is kept: no more is under way than it said.
    #[test]
    fn the_guest_is_never_sent_more_than_it_has_room_for(
        moves in prop::collection::vec((0u32..80, 0u32..80), 1..100),
        room in 1u32..100,
    ) {
        let request = Header { buf_alloc: room, ..Header::default() };
        let mut connection = Connection::requested_by_guest(ROOM, &request).unwrap();
        connection.did(Op::Response);
        let (mut sent, mut read) = (0, 0);
        for (sends, reads) in moves {
            let bytes = connection.may_send().min(sends);
            connection.sent(bytes);
            sent += bytes;
            prop_assert!(sent - read <= room);
            prop_assert!(connection.may_send() == room - (sent - read));
            read += reads.min(sent - read);
            let update = Header {
                op: Op::CreditUpdate as u16,
                buf_alloc: room,
                fwd_cnt: read,
                ..Header::default()
            };
            connection.receive(&update).unwrap();
        }
    }
}
