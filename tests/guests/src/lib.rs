//! Small freestanding kernels that the tests and the demo boot.
//!
//! They run on any KVM: general registers only, polling instead of interrupts, output on COM1,
//! reset through the keyboard controller. Each is an ELF image for 16 MiB.
#![forbid(unsafe_code)]

/// A kernel and what it does.
#[derive(Debug, Clone, Copy)]
pub struct Guest {
    /// Its name, also as a file.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub about: &'static str,
    /// The ELF image.
    pub bytes: &'static [u8],
}

macro_rules! guests {
    ($($constant:ident, $file:literal, $name:literal, $about:literal;)*) => {
        $(
            #[doc = $about]
            pub const $constant: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/", $file));
        )*

        /// Every guest.
        #[must_use]
        pub fn all() -> &'static [Guest] {
            &[$(Guest { name: $name, about: $about, bytes: $constant }),*]
        }
    };
}

guests! {
    HELLO, "hello", "hello",
        "Says its command line and memory size, then ticks; `ticks=N` resets after N ticks.";
    HELLO_PVH, "hello_pvh", "hello-pvh", "The same, entered by its PVH note.";
    BURN, "burn", "burn", "Burns CPU without leaving guest mode.";
    SILENT, "silent", "silent", "Runs on without ever printing anything.";
    RESET, "reset", "reset", "Resets the machine.";
    TRIPLE_FAULT, "triple_fault", "triple-fault", "Ends in a triple fault.";
    ECHO, "echo", "echo", "Prints `ready`, then sends back what it receives.";
    STORM, "storm", "storm", "Writes to the serial line without end.";
    VIRTIO_RNG, "virtio_rng", "virtio-rng", "Prints bytes of the entropy device, then `rng ok`.";
    VIRTIO_NET, "virtio_net", "virtio-net",
        "Answers ARP, pings and UDP as 10.77.0.2 on its network device; UDP port 9 ends it.";
    VIRTIO_BLK, "virtio_blk", "virtio-blk",
        "Prints what is on its disk and how often it booted from there, then `disk ok`.";
    VIRTIO_BALLOON, "virtio_balloon", "virtio-balloon",
        "Uses 8 MiB, gives them to its balloon when asked to, and takes them back.";
    VIRTIO_CONSOLE, "virtio_console", "virtio-console",
        "Says on its console what is typed there and the terminal's size; `q` ends it.";
    HOSTILE, "hostile", "hostile",
        "Abuses its entropy device and addresses where nothing is, then prints `survived`.";
    HOSTILE_DEVICES, "hostile_devices", "hostile-devices",
        "Abuses each of its virtio devices, then uses the entropy device and prints `survived`.";
}
