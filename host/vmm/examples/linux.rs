//! Boots a Linux kernel with nothing but this crate and follows its serial port.
//!
//! ```text
//! linux --kernel vmlinuz [--initrd initrd.cpio] [--cmdline TEXT] [--vcpus 2] [--memory-mib 256]
//!       [--rng true] [--cpu host|x86-64-v2] [--memory-backing anonymous|memfd|hugetlbfs]
//!       [--when 'TEXT=power-button'] [--when 'TEXT=ctrl-alt-delete'] [--when 'TEXT=pause:3000']
//!       [--until TEXT]
//! ```
//!
//! `--when` does something the first time that the guest prints a line with TEXT; `pause` takes
//! milliseconds. The last line of the output is `exit: ` and how the guest ended, in a sentence.
//!
//! With `--until`, it ends when the guest has printed TEXT (nothing: anything), and the last line is
//! instead `times: `, when the VM was built, and when TEXT was there: us since the program started.

use std::error::Error;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::thread;
use std::time::{Duration, Instant};

use roost_vmm::{DeviceConfig, MachineOptions, Vm, VmConfig};
use rustix::event::{PollFd, PollFlags, poll};
use serde::de::DeserializeOwned;

/// Output that is read at a time, bytes.
const CHUNK_BYTES: usize = 16 << 10;

struct Action {
    text: String,
    what: String,
    done: bool,
}

struct Arguments {
    config: VmConfig,
    actions: Vec<Action>,
    until: Option<String>,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let (mut kernel, mut initrd, mut actions) = (None, None, Vec::new());
    let mut until = None;
    let mut devices = DeviceConfig::default();
    let mut machine = MachineOptions::default();
    let (mut cmdline, mut vcpus, mut memory_mib) = ("console=ttyS0".to_owned(), 2, 256_u64);
    let mut words = std::env::args().skip(1);
    while let Some(option) = words.next() {
        let value = words
            .next()
            .ok_or_else(|| format!("{option} has no value"))?;
        match option.as_str() {
            "--kernel" => kernel = Some(File::open(value)?),
            "--initrd" => initrd = Some(File::open(value)?),
            "--cmdline" => cmdline = value,
            "--vcpus" => vcpus = value.parse()?,
            "--memory-mib" => memory_mib = value.parse()?,
            "--until" => until = Some(value),
            "--rng" => devices.rng = value.parse()?,
            "--cpu" => machine.cpu_template = named(&value)?,
            "--memory-backing" => machine.memory_backing = named(&value)?,
            "--when" => {
                let (text, what) = value.split_once('=').ok_or("--when TEXT=ACTION")?;
                actions.push(Action {
                    text: text.to_owned(),
                    what: what.to_owned(),
                    done: false,
                });
            }
            _ => return Err(format!("there is no option {option}").into()),
        }
    }
    let config = VmConfig {
        vcpus,
        memory_bytes: memory_mib.checked_mul(1 << 20).ok_or("too much memory")?,
        cmdline,
        kernel: kernel.ok_or("--kernel is missing")?,
        initrd,
        devices,
        machine,
    };
    Ok(Arguments {
        config,
        actions,
        until,
    })
}

/// A value by the name that it has in a VM's spec.
fn named<T: DeserializeOwned>(name: &str) -> Result<T, serde_json::Error> {
    serde_json::from_value(name.into())
}

fn act(vm: &Vm, what: &str) -> Result<(), Box<dyn Error>> {
    match what.split_once(':').unwrap_or((what, "")) {
        ("power-button", _) => vm.press_power_button()?,
        ("ctrl-alt-delete", _) => vm.ctrl_alt_delete()?,
        ("pause", ms) => {
            vm.pause()?;
            thread::sleep(Duration::from_millis(ms.parse()?));
            vm.resume()?;
        }
        _ => return Err(format!("there is no action {what}").into()),
    }
    println!("did: {what}");
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let Arguments {
        config,
        mut actions,
        until,
    } = arguments()?;
    let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
    let vm = Vm::build(kvm, config)?;
    eprintln!("{:?}", vm.kvm_features());
    let built = start.elapsed();
    vm.resume()?;
    let (mut position, mut line) = (0, Vec::new());
    let mut printed = Vec::new();
    loop {
        // Asked before the output is read: what the guest wrote before its end is then read.
        let exit = vm.exit();
        let chunk = vm.serial().read(position, CHUNK_BYTES);
        position = chunk.offset + chunk.bytes.len() as u64;
        std::io::stdout().write_all(&chunk.bytes)?;
        if let Some(text) = &until {
            printed.extend_from_slice(&chunk.bytes);
            if !printed.is_empty() && String::from_utf8_lossy(&printed).contains(text) {
                let (built, there) = (built.as_micros(), start.elapsed().as_micros());
                println!("\ntimes: {built} {there}");
                return Ok(());
            }
        }
        for byte in chunk.bytes {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            let text = String::from_utf8_lossy(&line).into_owned();
            line.clear();
            let due = |action: &&mut Action| !action.done && text.contains(&action.text);
            for action in actions.iter_mut().filter(due) {
                action.done = true;
                act(&vm, &action.what)?;
            }
        }
        if position < vm.serial().end() {
            continue;
        }
        if let Some(exit) = exit {
            println!("\nexit: {exit}");
            return Ok(());
        }
        let (output, ended) = (vm.serial().output_fd(), vm.exit_fd());
        let mut both = [
            PollFd::new(&output, PollFlags::IN),
            PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN),
        ];
        poll(&mut both, None)?;
        if both[0].revents().contains(PollFlags::IN) {
            rustix::io::read(output, &mut [0; 8])?;
        }
    }
}
