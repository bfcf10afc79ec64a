//! TAPs and bridges of the real kernel, and a guest behind one.
//!
//! Each test runs itself again in a network namespace of its own, by `unshare`: as root, or as
//! anybody where user namespaces are allowed. They need `ip` (iproute2 or busybox) and, the ones
//! with a guest, `/dev/kvm`.

use std::fs::File;
use std::io::{ErrorKind, Seek as _, Write as _};
use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use roost_vmm::{
    DeviceConfig, MachineOptions, NetConfig, NetLimits, RateLimit, RateLimits, Vm, VmConfig,
};
use roost_worker::tap::{self, TapError};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x4d];
const TAP: &str = "roost-test0";
/// Set in the process that is in a namespace of its own.
const INSIDE: &str = "ROOST_TEST_IN_OWN_NETWORK";
/// Longest that anything here may take: KVMs that interpret are slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `body`, which is the test `name`, in a network namespace of its own.
fn in_own_network(name: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let output = Command::new("unshare")
        .args(["-r", "-n"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare(1) of util-linux or busybox is needed");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(
        output.status.success() && text.contains("test result: ok. 1 passed"),
        "it failed in its own network namespace, or there can be none: {}\n{text}",
        output.status
    );
}

fn ip(arguments: &str) {
    let run = |program: &mut Command| program.args(arguments.split(' ')).status();
    let status = run(&mut Command::new("ip"))
        .or_else(|_| run(Command::new("busybox").arg("ip")))
        .expect("ip(8) of iproute2 or busybox is needed");
    assert!(status.success(), "ip {arguments}: {status}");
}

fn bridge() {
    ip("link add br-test type bridge");
    ip("addr add 10.77.0.1/24 dev br-test");
    ip("link set br-test up");
}

/// A VM whose guest answers on `tap`.
fn boot(tap: File, cmdline: &str) -> Vm {
    let mut kernel = tempfile::tempfile().unwrap();
    kernel.write_all(roost_guests::VIRTIO_NET).unwrap();
    kernel.rewind().unwrap();
    let kvm = File::options().read(true).write(true).open("/dev/kvm");
    let config = VmConfig {
        vcpus: 1,
        memory_bytes: 64 << 20,
        cmdline: cmdline.to_owned(),
        kernel,
        initrd: None,
        devices: DeviceConfig {
            net: vec![NetConfig::new(tap, MAC)],
            ..DeviceConfig::default()
        },
        machine: MachineOptions::default(),
    };
    let vm = Vm::build(kvm.expect("a guest needs /dev/kvm"), config).unwrap();
    vm.resume().unwrap();
    wait_until("the guest is ready", || said(&vm).contains("net ready\n"));
    vm
}

fn said(vm: &Vm) -> String {
    String::from_utf8_lossy(&vm.serial().read(0, usize::MAX).bytes).into_owned()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

fn counter(vm: &Vm, name: &str) -> u64 {
    let [net] = &vm.device_counters()[..] else {
        panic!("one device: {:?}", vm.device_counters());
    };
    assert_eq!(net.broken, None);
    let counter = net.counters.iter().find(|counter| counter.name == name);
    counter
        .unwrap_or_else(|| panic!("no {name}: {net:?}"))
        .value
}

fn udp(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind("10.77.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(("10.77.0.2", port)).unwrap();
    socket
}

/// Sends `payload`, which must come back.
fn echo(socket: &UdpSocket, payload: &[u8]) {
    socket.send(payload).unwrap();
    let mut answer = [0; 2048];
    let bytes = socket.recv(&mut answer).unwrap();
    assert!(answer[..bytes] == *payload, "{bytes} bytes came back");
}

/// Sends an echo request; its answer must be right.
fn ping() {
    let icmp = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(ipproto::ICMP),
    )
    .unwrap();
    rustix::net::connect(
        &icmp,
        &std::net::SocketAddrV4::new([10, 77, 0, 2].into(), 0),
    )
    .unwrap();
    // Type 8, its checksum, identifier and number, four bytes.
    let request = [8, 0, 0, 0, 0x12, 0x34, 0, 1, b'p', b'i', b'n', b'g'];
    let with_checksum = |mut packet: [u8; 12]| {
        let words = packet
            .chunks(2)
            .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
        let sum: u32 = words.sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
        packet
    };
    rustix::net::send(&icmp, &with_checksum(request), SendFlags::empty()).unwrap();
    let mut answer = [0; 100];
    let (bytes, _) = rustix::net::recv(&icmp, &mut answer, RecvFlags::empty()).unwrap();
    let mut expected = request;
    expected[0] = 0;
    assert_eq!(answer[20..bytes], with_checksum(expected));
}

#[test]
fn a_tap_is_made_connected_and_deleted_and_all_of_it_may_be_repeated() {
    in_own_network(
        "a_tap_is_made_connected_and_deleted_and_all_of_it_may_be_repeated",
        || {
            bridge();
            for _ in 0..3 {
                let tap = tap::create(TAP, true).unwrap();
                for _ in 0..2 {
                    tap::connect(TAP, Some("br-test"), Some(1400)).unwrap();
                }
                let again = tap::create(TAP, true);
                assert!(matches!(again, Err(TapError::InUse(_))), "{again:?}");
                drop(tap);
                assert!(tap::exists(TAP).unwrap(), "it is persistent");
                drop(tap::create(TAP, true).unwrap());
                tap::delete(TAP).unwrap();
                tap::delete(TAP).unwrap();
                assert!(!tap::exists(TAP).unwrap());
            }
            drop(tap::create(TAP, false).unwrap());
            assert!(!tap::exists(TAP).unwrap(), "it went with its descriptor");
        },
    );
}

#[test]
fn interfaces_that_are_no_taps_and_bridges_that_are_none_are_refused_and_left_alone() {
    in_own_network(
        "interfaces_that_are_no_taps_and_bridges_that_are_none_are_refused_and_left_alone",
        || {
            bridge();
            let is_no_tap = |result: Result<(), TapError>| {
                assert!(
                    matches!(&result, Err(TapError::NotATap { kind, .. }) if kind == "bridge"),
                    "{result:?}"
                );
            };
            is_no_tap(tap::create("br-test", true).map(drop));
            is_no_tap(tap::delete("br-test"));
            is_no_tap(tap::connect("br-test", None, None));
            let _tap = tap::create(TAP, false).unwrap();
            let refused = tap::connect(TAP, Some("lo"), None);
            assert!(
                matches!(refused, Err(TapError::NotABridge(_))),
                "{refused:?}"
            );
            let refused = tap::connect(TAP, Some("nowhere"), None);
            assert!(matches!(refused, Err(TapError::Missing(_))), "{refused:?}");
            ip("link show br-test");
        },
    );
}

#[test]
fn a_guest_behind_a_bridge_is_reached_is_paused_and_outlives_its_tap() {
    in_own_network(
        "a_guest_behind_a_bridge_is_reached_is_paused_and_outlives_its_tap",
        || {
            bridge();
            let tap = tap::create(TAP, true).unwrap();
            tap::connect(TAP, Some("br-test"), None).unwrap();
            let vm = boot(tap, "");

            ping();
            let socket = udp(7);
            for bytes in [1, 100, 1000, 1472] {
                let payload: Vec<u8> = (0..bytes).map(|n| n as u8).collect();
                echo(&socket, &payload);
            }
            // The last answer may be here before it is counted.
            wait_until("all is counted", || {
                counter(&vm, "tx_bytes") > 1 + 100 + 1000 + 1472
            });

            // What comes while it is paused is answered when it goes on.
            vm.pause().unwrap();
            let sent = counter(&vm, "tx_packets");
            for n in 0..4 {
                socket.send(&[n; 50]).unwrap();
            }
            assert_eq!(counter(&vm, "tx_packets"), sent);
            vm.resume().unwrap();
            for n in 0..4 {
                let mut answer = [0; 100];
                assert_eq!(socket.recv(&mut answer).unwrap(), 50);
                assert_eq!(answer[..50], [n; 50]);
            }

            // An interface that is down for a while is not one that is gone.
            ip("link set roost-test0 down");
            ip("link set roost-test0 up");
            echo(&socket, b"back");
            assert_eq!(counter(&vm, "link_lost"), 0);

            tap::delete(TAP).unwrap();
            wait_until("the device has noticed", || counter(&vm, "link_lost") == 1);
            assert_eq!(vm.exit(), None);
            vm.pause().unwrap();
            vm.resume().unwrap();
            vm.stop();
        },
    );
}

#[test]
fn checksums_are_left_to_a_guest_that_can_do_without_and_it_leaves_them_to_the_host() {
    in_own_network(
        "checksums_are_left_to_a_guest_that_can_do_without_and_it_leaves_them_to_the_host",
        || {
            bridge();
            let tap = tap::create(TAP, false).unwrap();
            tap::connect(TAP, Some("br-test"), None).unwrap();
            let vm = boot(tap, "offloads=1");
            let socket = udp(7);
            for bytes in [1, 333, 1472] {
                echo(&socket, &vec![bytes as u8; bytes]);
            }
            assert_eq!(said(&vm).matches("left to the guest\n").count(), 3);
            ping();
            wait_until("all is counted", || counter(&vm, "tx_packets") >= 4);
            for dropped in ["tx_dropped_malformed", "tx_dropped_refused"] {
                assert_eq!(counter(&vm, dropped), 0, "{dropped}");
            }
        },
    );
}

#[test]
fn limits_hold_a_guest_s_answers_back_until_they_are_lifted() {
    in_own_network(
        "limits_hold_a_guest_s_answers_back_until_they_are_lifted",
        || {
            bridge();
            let tap = tap::create(TAP, false).unwrap();
            tap::connect(TAP, Some("br-test"), None).unwrap();
            let vm = boot(tap, "");
            let socket = udp(7);
            echo(&socket, b"unlimited");

            let one = RateLimit {
                per_second: 1.try_into().unwrap(),
                burst: 1,
            };
            let limits = NetLimits {
                transmit: RateLimits {
                    bytes: Some(one),
                    operations: None,
                },
                ..NetLimits::default()
            };
            vm.set_net_limits(0, limits).unwrap();
            assert!(vm.set_net_limits(1, limits).is_err());
            // Its bytes are a debt of more than the test's patience.
            echo(&socket, &[1; 1000]);
            socket.send(&[2; 1000]).unwrap();
            wait_until("it is held back", || counter(&vm, "tx_throttled") == 1);
            socket.set_nonblocking(true).unwrap();
            let nothing = socket.recv(&mut [0; 2048]).unwrap_err();
            assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
            socket.set_nonblocking(false).unwrap();
            vm.set_net_limits(0, NetLimits::default()).unwrap();
            let mut answer = [0; 2048];
            assert_eq!(socket.recv(&mut answer).unwrap(), 1000);
            assert_eq!(answer[..1000], [2; 1000]);

            udp(9).send(b"that is all").unwrap();
            wait_until("it ends", || vm.exit().is_some());
            assert!(said(&vm).ends_with("net ok\n"), "{}", said(&vm));
        },
    );
}
