//! What a VM's devices are made of is there while it is, and gone with it.

#[allow(dead_code)]
#[path = "host.rs"]
mod host;

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use host::Host;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// A VM with a device of each kind that needs nothing but its host's files.
fn create(host: &Host, name: &str, image: &str) -> String {
    let kernel = host.file("hello", roost_guests::HELLO);
    let disk = format!("name=root,image={image},size=8");
    let record = host.roost(&[
        "vm",
        "create",
        "--name",
        name,
        "--kernel",
        &kernel,
        "--memory",
        "64",
        "--rng",
        "--vsock",
        "--balloon",
        "deflate-on-oom",
        "--disk",
        &disk,
        "--disk",
        "name=data,size=4,operations=100",
        "--cpu-template",
        "host",
        "--memory-backing",
        "memfd",
    ]);
    record["id"].as_str().unwrap().to_owned()
}

fn boot(host: &Host, name: &str) {
    host.roost(&["vm", "boot", name]);
    host.until("the first tick", || {
        host.log(name).contains("tick 1\n").then_some(())
    });
}

#[test]
fn a_guest_gets_random_bytes_from_its_entropy_device() {
    let host = Host::start();
    let kernel = host.file("virtio_rng", roost_guests::VIRTIO_RNG);
    host.roost(&["vm", "create", "--name", "a", "--kernel", &kernel, "--rng"]);
    host.roost(&["vm", "boot", "a"]);
    host.until("the guest's random bytes", || {
        host.log("a").contains("rng ok\n").then_some(())
    });
    assert!(!host.log("a").contains("not random"));
}

#[test]
fn devices_are_made_controlled_adopted_and_cleaned_up() {
    let mut host = Host::start();
    let image = host.file("image", &[7; 1 << 20]);
    let id = create(&host, "web", &image);
    let other = create(&host, "web-2", &image);
    assert!(!host.data().join("disks").join(&id).exists());
    boot(&host, "web");
    boot(&host, "web-2");

    let report = host.roost(&["vm", "devices", "web"]);
    let devices = report["devices"].as_array().unwrap();
    let names: Vec<_> = devices
        .iter()
        .map(|d| d["device"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 5, "{names:?}");
    assert_eq!(names[0], "rng0");
    assert!(devices.iter().all(|device| device["broken"].is_null()));
    assert_eq!(report["balloon"]["target_bytes"], 0);

    // Each VM has a layer of its own over the image that they share.
    let layers = |id: &str| {
        let disks = std::fs::read_dir(host.data().join("disks").join(id)).unwrap();
        let mut names: Vec<_> = disks.map(|disk| disk.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(layers(&id), ["data.raw", "root.qcow2"]);
    assert_eq!(layers(&other), ["data.raw", "root.qcow2"]);
    let cid = |name| host.roost(&["vm", "show", name])["vsock_cid"].clone();
    assert_ne!(cid("web"), cid("web-2"));
    assert!(
        host.data()
            .join("run")
            .join(&id)
            .join("vsock.sock")
            .exists()
    );

    host.roost(&["vm", "balloon", "web", "16"]);
    let report = host.roost(&["vm", "devices", "web"]);
    assert_eq!(report["balloon"]["target_bytes"], 16 << 20);
    host.roost(&["vm", "limit", "disk", "web", "data", "--bytes", "1000"]);
    host.roost(&["vm", "limit", "serial", "web", "--bytes", "1000"]);
    let error = host.refused(&["vm", "limit", "disk", "web", "no-such-disk"]);
    assert!(error.contains("no-such-disk"), "{error}");
    let error = host.refused(&["vm", "balloon", "web", "1000000"]);
    assert!(error.contains("64"), "{error}");

    // The guest does not listen to the button: it is given its time, then stopped.
    host.roost(&["vm", "shutdown", "web", "--deadline", "0"]);
    assert_eq!(host.roost(&["vm", "show", "web"])["state"], "stopped");
    assert!(
        !host
            .data()
            .join("run")
            .join(&id)
            .join("vsock.sock")
            .exists()
    );
    boot(&host, "web");

    host.kill_and_restart();
    host.until("adoption", || {
        let record = host.roost(&["vm", "show", "web"]);
        (record["state"] == "running").then_some(())
    });
    let adopted = host.roost(&["vm", "devices", "web"]);
    assert_eq!(adopted["devices"].as_array().unwrap().len(), 5);
    host.roost(&["vm", "delete", "web"]);
    host.roost(&["vm", "delete", "web-2"]);
    for folder in ["disks", "run"] {
        let left = std::fs::read_dir(host.data().join(folder)).unwrap();
        assert_eq!(left.count(), 0, "{folder}");
    }
}

#[test]
fn a_disk_that_was_lost_is_not_replaced_by_a_blank_one() {
    let host = Host::start();
    let image = host.file("image", &[7; 1 << 20]);
    let id = create(&host, "web", &image);
    boot(&host, "web");
    host.roost(&["vm", "shutdown", "web"]);
    std::fs::remove_file(host.data().join("disks").join(&id).join("data.raw")).unwrap();

    let error = host.refused(&["vm", "boot", "web"]);
    assert!(error.contains("\"data\""), "{error}");
    assert_eq!(host.roost(&["vm", "show", "web"])["state"], "failed");
}

#[test]
fn what_can_not_be_a_device_is_refused_by_name() {
    let host = Host::start();
    let kernel = host.file("hello", roost_guests::HELLO);
    let odd = host.file("odd", &[7; 1000]);
    let large = host.file("large", &vec![7; 3 << 20]);
    let refused = |arguments: &[&str]| {
        let create = ["vm", "create", "--name", "bad", "--kernel", &kernel];
        host.refused(&[&create, arguments].concat())
    };
    for (arguments, words) in [
        (vec!["--disk", "name=a"], "image or a size"),
        (
            vec!["--disk", "name=a,size=1", "--disk", "name=a,size=1"],
            "two of the name",
        ),
        (
            vec!["--disk", &format!("name=a,image={odd}")],
            "multiple of 512",
        ),
        (
            vec!["--disk", &format!("name=a,image={large},size=2")],
            "more than the disk",
        ),
        (vec!["--disk", "name=a,image=none:1"], "no image"),
        (
            vec!["--network", "name=a,mac=01:00:00:00:00:01"],
            "MAC address",
        ),
        (vec!["--network", "name=a,bridge=../x"], "interface's name"),
        (vec!["--disk", "name=a,size=1,bytes=0"], "at least 1"),
    ] {
        let error = refused(&arguments);
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
    assert_eq!(
        host.roost(&["vm", "list"])["items"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
}

/// A VM `a` that talks on its console port.
fn create_with_console(host: &Host) {
    let kernel = host.file("virtio_console", roost_guests::VIRTIO_CONSOLE);
    host.roost(&[
        "vm",
        "create",
        "--name",
        "a",
        "--kernel",
        &kernel,
        "--console",
    ]);
}

#[test]
fn a_console_port_is_logged_typed_on_and_kept_and_one_that_is_not_there_refused() {
    let mut host = Host::start();
    create_with_console(&host);
    let error = host.refused(&["vm", "console", "a", "--port", "0"]);
    assert!(error.contains("does not run"), "{error}");
    host.roost(&["vm", "boot", "a"]);
    let log = |host: &Host| {
        let output = host.run(&["vm", "logs", "a", "--port", "0"]);
        String::from_utf8(output.stdout).unwrap()
    };
    host.until("the guest's question", || {
        log(&host).ends_with("who is there?\n").then_some(())
    });
    assert_eq!(host.log("a"), "", "the serial port is another");

    // The detach key ends the command.
    let output = host.run_with_input(&["vm", "console", "a", "--port", "0"], b"me\x1d");
    assert!(output.status.success(), "{output:?}");
    let all = "who is there?\nme at 80x24\n";
    host.until("the guest's answer", || (log(&host) == all).then_some(()));

    let error = host.refused(&["vm", "logs", "a", "--port", "agent"]);
    assert!(error.contains("no console port \"agent\""), "{error}");
    assert!(error.contains("there are 0"), "{error}");
    host.boot_hello("without");
    for command in ["logs", "console"] {
        let error = host.refused(&["vm", command, "without", "--port", "0"]);
        assert!(error.contains("the VM has no console"), "{error}");
    }

    host.kill_and_restart();
    host.until("adoption", || (log(&host) == all).then_some(()));
    host.roost(&["vm", "shutdown", "a"]);
    assert_eq!(log(&host), all);
    let error = host.refused(&["vm", "logs", "a", "--port", "1"]);
    assert!(error.contains("there are 0"), "{error}");
    host.roost(&["vm", "boot", "a"]);
    host.until("the next incarnation's question", || {
        (log(&host) == "who is there?\n").then_some(())
    });
}

/// A terminal: the end of the person, and the end of the program.
fn terminal() -> (File, File) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let path = ptsname(&person, Vec::new()).unwrap();
    let program = File::options()
        .read(true)
        .write(true)
        .open(path.to_str().unwrap())
        .unwrap();
    (person.into(), program)
}

fn resize(terminal: impl AsFd, columns: u16, rows: u16) {
    let size = Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).unwrap();
}

#[test]
fn a_guest_is_told_the_size_of_the_terminal_that_joins_and_each_new_one() {
    let host = Host::start();
    create_with_console(&host);
    host.roost(&["vm", "boot", "a"]);
    let (mut person, program) = terminal();
    let is_cooked = |program: &File| {
        let modes = tcgetattr(program).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    };
    assert!(is_cooked(&program));
    resize(&program, 100, 30);
    let mut console = Command::new(env!("CARGO_BIN_EXE_roost"))
        .args(["vm", "console", "a", "--port", "0"])
        .env("ROOST_SOCKET", host.data().join("roost.sock"))
        .stdin(program.try_clone().unwrap())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();

    // The guest says the size that it knows whenever something is typed.
    let mut told = |size: &str| {
        host.until(size, || {
            person.write_all(b"x\n").unwrap();
            let log = host.run(&["vm", "logs", "a", "--port", "0"]).stdout;
            let log = String::from_utf8(log).unwrap();
            log.ends_with(&format!(" at {size}\n")).then_some(())
        });
    };
    told("100x30");
    assert!(!is_cooked(&program), "keys are for the guest alone");
    resize(&program, 120, 40);
    let signalled = Command::new("kill")
        .args(["-WINCH", &console.id().to_string()])
        .status();
    assert!(signalled.unwrap().success());
    told("120x40");

    person.write_all(b"\x1d").unwrap();
    assert!(console.wait().unwrap().success());
    assert!(is_cooked(&program), "the terminal is left as it was");
}
