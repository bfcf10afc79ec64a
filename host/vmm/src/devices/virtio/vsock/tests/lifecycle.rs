use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use super::guest::{GUEST_CID, Guest, NEWS, Socket, device, is_readable, read, read_all};
use crate::devices::virtio::test_driver::{Buffer, Driver};
use crate::devices::virtio::vsock::packet::{HOST_CID, Op};
use crate::devices::virtio::vsock::{
    Vsock, VsockConfig, VsockConfigError, VsockLimits, VsockState,
};
use crate::devices::virtio::{DeviceState, RestoreError, VirtioDevice as _};

fn connected(guest: &mut Guest) -> (UnixStream, Socket) {
    let listener = guest.listen(5);
    let mut socket = Socket::new(5, 6);
    let program = guest.connect(&listener, &mut socket);
    (program, socket)
}

#[test]
fn the_guest_reads_its_context_id() {
    let guest = Guest::new();
    assert_eq!(
        guest.driver.config(0, 8),
        u64::from(GUEST_CID).to_le_bytes()
    );
    assert_eq!(guest.driver.config(4, 4), [0; 4]);
    assert_eq!(guest.driver.config(6, 9), [0; 9]);
    guest.driver.write_config(0, &[9; 8]);
    assert_eq!(guest.driver.config(0, 4), GUEST_CID.to_le_bytes());
}

#[test]
fn connections_go_on_after_a_pause() {
    let mut guest = Guest::new();
    let (mut program, mut socket) = connected(&mut guest);
    let mut waiting = guest.client();
    waiting.write_all(b"CONNECT 7\n").unwrap();
    let request = guest.next();
    let mut greeting = guest.client();
    guest.driver.run();

    guest.driver.device.quiesce();
    program.write_all(b"while you slept").unwrap();
    greeting.write_all(b"CONNECT 8\n").unwrap();
    let mut late = guest.client();
    late.write_all(b"CONNECT 9\n").unwrap();
    guest.driver.device.resume();

    guest.receive();
    let packets = std::mem::take(&mut guest.inbox);
    let payload = packets.iter().find(|packet| socket.is_of(packet)).unwrap();
    assert_eq!(payload.payload, b"while you slept");
    let asked = packets.iter().filter(|packet| packet.op() == Op::Request);
    let mut asked: Vec<_> = asked.map(|packet| packet.header.dst_port).collect();
    asked.sort_unstable();
    assert_eq!(asked, [8, 9]);
    guest.write(&mut socket, b"good morning");
    assert_eq!(read(&mut program, 12), b"good morning");
    guest.send_op(&Socket::new(request.header.src_port, 7), Op::Response);
    assert_eq!(read(&mut waiting, 3), b"OK ");
}

#[test]
fn what_happened_to_sockets_is_found_after_a_pause_even_if_its_events_were_lost() {
    let mut guest = Guest::new();
    let (program, socket) = connected(&mut guest);
    guest.driver.device.quiesce();
    drop(program);
    // The device thread took the event, and was then told to hold still.
    guest.driver.lose_events();
    guest.expect_nothing();
    guest.driver.device.resume();
    guest.receive();
    let last = guest.inbox.pop_back().unwrap();
    assert!(socket.is_of(&last));
    assert_eq!((last.op(), last.header.flags), (Op::Shutdown, 3));
}

#[test]
fn a_restored_guest_is_told_that_its_connections_are_gone_and_gets_new_ones() {
    let mut guest = Guest::new();
    let (mut program, mut socket) = connected(&mut guest);
    let mut client = guest.client();
    client.write_all(b"CONNECT 7\n").unwrap();
    let old = guest.accept();
    let news = guest.driver.add(NEWS, &[Buffer::Write(8)]);
    let new = device(&guest.directory, GUEST_CID, |_| {});
    let mut guest = guest.migrate(new);
    guest.driver.run();
    assert_eq!(guest.driver.used(NEWS), [(news.head, 4)]);
    assert_eq!(guest.driver.received(&news)[..4], [0; 4]);
    assert!(guest.driver.take_interrupt());
    assert_eq!(read_all(&mut program), b"");
    assert!(read_all(&mut client).starts_with(b"OK "));

    // What is still under way on the old ones is refused.
    guest.write(&mut socket, b"are you there?");
    guest.expect(&socket, Op::Reset);
    let mut client = guest.client();
    client.write_all(b"CONNECT 7\n").unwrap();
    let new = guest.accept();
    assert_ne!(new.host_port, old.host_port);
    assert_eq!(read(&mut client, 3), b"OK ");
    // Told once.
    let more = guest.driver.send(NEWS, &[Buffer::Write(8)]);
    assert!(!guest.driver.used(NEWS).contains(&(more.head, 4)));
}

#[test]
fn a_restored_guest_without_a_buffer_for_news_is_told_when_it_has_one() {
    let guest = Guest::new();
    let new = device(&guest.directory, GUEST_CID, |_| {});
    let mut driver = guest.migrate(new).driver;
    driver.run();
    let news = driver.send(NEWS, &[Buffer::Write(4)]);
    assert_eq!(driver.used(NEWS), [(news.head, 4)]);
}

#[test]
fn a_restored_vm_may_have_another_context_id() {
    let directory = tempfile::tempdir().unwrap();
    let saved = device(&directory, GUEST_CID, |_| {}).save();
    let mut device = device(&directory, GUEST_CID + 1, |_| {});
    device.restore(saved, None).unwrap();
    let mut config = [0; 8];
    device.read_config(0, &mut config);
    assert_eq!(config, u64::from(GUEST_CID + 1).to_le_bytes());
}

#[test]
fn a_state_that_makes_no_sense_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let good = VsockState {
        guest_cid: 3,
        next_port: 1 << 30,
    };
    let mut device = device(&directory, GUEST_CID, |_| {});
    device.restore(DeviceState::Vsock(good), None).unwrap();
    for bad in [
        VsockState {
            guest_cid: 2,
            ..good
        },
        VsockState {
            guest_cid: u32::MAX,
            ..good
        },
        VsockState {
            next_port: 7,
            ..good
        },
        VsockState {
            next_port: 1 << 31,
            ..good
        },
    ] {
        let error = device.restore(DeviceState::Vsock(bad), None).unwrap_err();
        assert!(matches!(error, RestoreError::Invalid(_)), "{error}");
    }
    let other = DeviceState::Rng(crate::devices::virtio::rng::RngState {});
    let error = device.restore(other, None).unwrap_err();
    assert_eq!(error, RestoreError::Kind("vsock"));
}

#[test]
fn a_driver_that_resets_closes_everything_and_can_begin_again() {
    let mut guest = Guest::new();
    let (mut program, _) = connected(&mut guest);
    let mut silent = guest.client();
    guest.driver.run();
    guest.driver.reset();
    assert_eq!(read_all(&mut program), b"");
    assert_eq!(read_all(&mut silent), b"");
    // Meanwhile programs wait.
    let mut client = guest.client();
    client.write_all(b"CONNECT 4\n").unwrap();
    guest.driver.run();
    assert!(!is_readable(&client));
    guest.driver.reset();
    guest.boot(4);
    guest.accept();
    assert_eq!(read(&mut client, 3), b"OK ");
}

#[test]
fn a_driver_without_a_receive_queue_makes_nothing_grow() {
    let mut guest = Guest::new();
    let listener = guest.listen(5);
    guest.driver.begin(0);
    guest.driver.driver_ok();
    let mut clients: Vec<_> = (0..3).map(|_| guest.client()).collect();
    for client in &mut clients {
        client.write_all(b"CONNECT 4\n").unwrap();
    }
    guest.driver.run();
    assert!(!guest.driver.is_broken());
    assert_eq!(guest.driver.counter("received_packets"), 0);
    drop(listener);
}

#[test]
fn a_listener_that_can_not_accept_is_left_alone_for_a_while() {
    let directory = tempfile::tempdir().unwrap();
    let (no_listener, _) = UnixStream::pair().unwrap();
    let config = VsockConfig {
        guest_cid: 3,
        listener: OwnedFd::from(no_listener).into(),
        directory: File::open(directory.path()).unwrap().into(),
        prefix: "v".to_owned(),
        limits: VsockLimits::default(),
    };
    let mut driver = Driver::new(Vsock::new(config).unwrap());
    // It comes to rest, although the descriptor always has something to tell.
    driver.negotiate(0);
    driver.run();
    assert!(!driver.is_broken());
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let make = |change: &dyn Fn(&mut VsockConfig)| {
        let path = directory.path();
        let _ = std::fs::remove_file(path.join("l"));
        let mut config = VsockConfig {
            guest_cid: 3,
            listener: UnixListener::bind(path.join("l")).unwrap(),
            directory: File::open(path).unwrap().into(),
            prefix: "v".to_owned(),
            limits: VsockLimits::default(),
        };
        change(&mut config);
        Vsock::new(config).map(drop)
    };
    make(&|_| {}).unwrap();
    for cid in [0, 1, HOST_CID as u32, u32::MAX] {
        let error = make(&|config| config.guest_cid = cid).unwrap_err();
        assert!(matches!(error, VsockConfigError::Cid(_)), "{error}");
    }
    let error = make(&|config| config.prefix = "a/b".to_owned()).unwrap_err();
    assert!(matches!(error, VsockConfigError::Prefix), "{error}");
    for connections in [0, 16 << 10 | 1] {
        let error = make(&|config| config.limits.connections = connections).unwrap_err();
        assert!(matches!(error, VsockConfigError::Limit { .. }), "{error}");
    }
    for buffer_bytes in [0, 4095, 256 << 10 | 1, u32::MAX] {
        let error = make(&|config| config.limits.buffer_bytes = buffer_bytes).unwrap_err();
        assert!(matches!(error, VsockConfigError::Limit { .. }), "{error}");
    }
}
