//! Compiles each guest with the system's C compiler into a freestanding ELF kernel.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// File of the guest, name of its image, its entry.
const GUESTS: [(&str, &str, &str); 15] = [
    ("hello", "hello", "entry64"),
    ("hello", "hello_pvh", "entry_pvh"),
    ("burn", "burn", "entry64"),
    ("silent", "silent", "entry64"),
    ("reset", "reset", "entry64"),
    ("triple_fault", "triple_fault", "entry64"),
    ("echo", "echo", "entry64"),
    ("storm", "storm", "entry64"),
    ("virtio_rng", "virtio_rng", "entry64"),
    ("virtio_net", "virtio_net", "entry64"),
    ("virtio_blk", "virtio_blk", "entry64"),
    ("virtio_balloon", "virtio_balloon", "entry64"),
    ("virtio_console", "virtio_console", "entry64"),
    ("hostile", "hostile", "entry64"),
    ("hostile_devices", "hostile_devices", "entry64"),
];

/// General registers only: some KVMs interpret guest code and know no more.
const FLAGS: [&str; 14] = [
    "-O2",
    "-Wall",
    "-Werror",
    "-std=gnu11",
    "-ffreestanding",
    "-fno-builtin",
    "-fno-pic",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fcf-protection=none",
    "-mgeneral-regs-only",
    "-mno-red-zone",
    "-nostdlib",
    "-static",
];

fn main() {
    println!("cargo::rerun-if-changed=kernel");
    println!("cargo::rerun-if-env-changed=CC");
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let out = env::var("OUT_DIR").unwrap_or_default();
    for (source, image, entry) in GUESTS {
        let mut command = Command::new(&compiler);
        command
            .args(FLAGS)
            .args(["-no-pie", "-Wno-main", "-Wl,-n", "-Wl,--build-id=none"]);
        command.arg("-Wl,-T,kernel/link.ld");
        if entry == "entry_pvh" {
            command.arg("-DPVH");
        }
        command
            .arg(format!("kernel/{entry}.S"))
            .arg(format!("kernel/{source}.c"));
        let target = Path::new(&out).join(image);
        match command.arg("-o").arg(&target).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr);
                let first = text
                    .lines()
                    .find(|l| l.contains("rror"))
                    .unwrap_or("no message");
                println!("cargo::error={compiler} could not build the guest {image}: {first}");
            }
            Err(error) => {
                println!("cargo::error=the test guests need a C compiler; {compiler}: {error}");
            }
        }
        if !target.exists() {
            // The error above ends the build; this keeps it the only one.
            let _ = fs::write(target, []);
        }
    }
}
