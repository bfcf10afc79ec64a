//! Images that are kernels, and images that are not.

#[allow(dead_code)]
mod machine;

use std::io::{Read as _, Seek as _, SeekFrom};

use machine::{boot, config, exit, file, kvm, output};
use roost_model::GuestExit;
use roost_vmm::{
    BuildError, InitrdError, KernelError, KernelFormat, LoadError, Vm, VmConfig, check_initrd,
    inspect_kernel,
};

fn refusal(image: &[u8]) -> KernelError {
    inspect_kernel(&mut file(image)).unwrap_err()
}

#[test]
fn what_is_no_kernel_is_refused_and_the_message_says_what_was_read() {
    assert!(matches!(refusal(b""), KernelError::Empty));
    let text = refusal(b"#!/bin/sh\necho hello\n");
    assert!(matches!(text, KernelError::UnknownFormat(_)));
    assert!(text.to_string().contains("#!/b"), "{text}");
    assert!(matches!(refusal(&[0; 4096]), KernelError::UnknownFormat(_)));
    assert!(matches!(refusal(b"\x7fEL"), KernelError::UnknownFormat(_)));
}

#[test]
fn a_program_of_the_host_is_refused() {
    let mut program = Vec::new();
    std::fs::File::open("/proc/self/exe")
        .unwrap()
        .read_to_end(&mut program)
        .unwrap();
    assert!(matches!(refusal(&program), KernelError::NotAKernel(_)));
}

#[test]
fn a_kernel_that_is_cut_anywhere_is_refused() {
    let whole = roost_guests::HELLO;
    assert!(inspect_kernel(&mut file(whole)).is_ok());
    for cut in [4, 63, 64, 100, 119, whole.len() / 2] {
        let error = refusal(&whole[..cut]);
        assert!(
            matches!(error, KernelError::Truncated { .. }),
            "{cut}: {error}"
        );
    }
}

#[test]
fn every_byte_of_an_elf_header_may_be_wrong_without_a_panic() {
    for at in 4..120 {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut image = roost_guests::HELLO_PVH.to_vec();
            image[at] = value;
            // Either is fine; what counts is that it returns, and that what it accepts fits.
            if let Ok(info) = inspect_kernel(&mut file(&image)) {
                assert!(info.entry >= 1 << 20, "byte {at} = {value:#x}: {info:?}");
            }
        }
    }
}

#[test]
fn a_segment_below_one_mib_or_an_entry_outside_is_refused() {
    let mut low = roost_guests::HELLO.to_vec();
    low[64 + 24..64 + 32].copy_from_slice(&0x1000_u64.to_le_bytes());
    assert!(matches!(
        refusal(&low),
        KernelError::Segment { start: 0x1000, .. }
    ));
    let mut high = roost_guests::HELLO.to_vec();
    high[64 + 24..64 + 32].copy_from_slice(&0x4000_0000_u64.to_le_bytes());
    assert!(
        matches!(refusal(&high), KernelError::Segment { .. }),
        "the first page tables end there"
    );
    let mut outside = roost_guests::HELLO.to_vec();
    outside[24..32].copy_from_slice(&0x20_0000_u64.to_le_bytes());
    assert!(matches!(refusal(&outside), KernelError::Entry(0x20_0000)));
}

/// A bzImage around `code`, which starts at its 64-bit entry, loaded at 16 MiB.
fn bzimage(code: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 1024 + 0x200];
    image[0x1f1] = 1; // one setup sector
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x201] = 0x6a;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
    image[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    image[0x236] = 1;
    image[0x258..0x260].copy_from_slice(&0x100_0000_u64.to_le_bytes());
    image[0x260..0x264].copy_from_slice(&0x10_0000_u32.to_le_bytes());
    image.extend_from_slice(code);
    image.resize(image.len().next_multiple_of(16), 0);
    let paragraphs = ((image.len() - 1024) / 16) as u32;
    image[0x1f4..0x1f8].copy_from_slice(&paragraphs.to_le_bytes());
    image
}

#[test]
fn a_bzimage_is_entered_and_finds_the_zero_page_with_its_header_and_initrd() {
    // mov dx, 0x3f8; then the low byte of ramdisk_size and of version; then reset.
    let code = [
        0x66, 0xba, 0xf8, 0x03, // mov $0x3f8, %dx
        0x8a, 0x86, 0x1c, 0x02, 0x00, 0x00, // mov 0x21c(%rsi), %al
        0xee, // out %al, %dx
        0x8a, 0x86, 0x06, 0x02, 0x00, 0x00, // mov 0x206(%rsi), %al
        0xee, // out %al, %dx
        0xb0, 0xfe, // mov $0xfe, %al
        0xe6, 0x64, // out %al, $0x64
        0xf4, // hlt
    ];
    let image = bzimage(&code);
    let info = inspect_kernel(&mut file(&image)).unwrap();
    assert_eq!(
        (info.format, info.entry),
        (KernelFormat::BzImage, 0x100_0200)
    );
    let vm = boot(VmConfig {
        initrd: Some(file(&[7; 0x41])),
        ..config(&image)
    });
    assert_eq!(exit(&vm), GuestExit::Reset);
    assert_eq!(vm.serial().read(0, 9).bytes, [0x41, 0x0f]);
}

#[test]
fn a_bzimage_that_is_too_old_or_cut_is_refused() {
    let mut old = bzimage(&[0xf4]);
    old[0x206] = 0x05;
    assert!(matches!(refusal(&old), KernelError::BzImage(_)));
    let mut no_entry = bzimage(&[0xf4]);
    no_entry[0x236] = 0;
    assert!(matches!(refusal(&no_entry), KernelError::BzImage(_)));
    let whole = bzimage(&[0xf4; 64]);
    assert!(matches!(
        refusal(&whole[..whole.len() - 1]),
        KernelError::Truncated { .. }
    ));
}

#[test]
fn an_initrd_that_does_not_fit_is_refused_with_the_sizes() {
    assert_eq!(check_initrd(0, 128 << 20), Err(InitrdError::Empty));
    assert!(check_initrd(64 << 20, 128 << 20).is_ok());
    let error = check_initrd(200 << 20, 128 << 20).unwrap_err();
    assert_eq!(
        error,
        InitrdError::TooLarge {
            bytes: 200 << 20,
            room: 96 << 20
        }
    );

    let large = tempfile::tempfile().unwrap();
    large.set_len(200 << 20).unwrap();
    let result = Vm::build(
        kvm(),
        VmConfig {
            initrd: Some(large),
            ..config(roost_guests::HELLO)
        },
    );
    assert!(matches!(result, Err(BuildError::Load(_))));
}

#[test]
fn sizes_that_no_vm_can_have_are_refused() {
    for vcpus in [0, 255, 10_000] {
        let result = Vm::build(
            kvm(),
            VmConfig {
                vcpus,
                ..config(roost_guests::HELLO)
            },
        );
        assert!(matches!(result, Err(BuildError::Vcpus(n)) if n == vcpus));
    }
    for memory_bytes in [0, 4096, (128 << 20) + 1, !4095] {
        let result = Vm::build(
            kvm(),
            VmConfig {
                memory_bytes,
                ..config(roost_guests::HELLO)
            },
        );
        assert!(matches!(result, Err(BuildError::Memory(n)) if n == memory_bytes));
    }
    // Memory enough to be one, but not for a kernel at 16 MiB.
    let small = VmConfig {
        memory_bytes: 8 << 20,
        ..config(roost_guests::HELLO)
    };
    assert!(matches!(Vm::build(kvm(), small), Err(BuildError::Load(_))));
}

#[test]
fn what_is_not_dev_kvm_is_refused() {
    let result = Vm::build(file(b"not kvm"), config(roost_guests::HELLO));
    assert!(matches!(result, Err(BuildError::Kvm(_))));
}

#[test]
fn the_guests_of_this_repository_are_kernels() {
    for guest in roost_guests::all() {
        let info = inspect_kernel(&mut file(guest.bytes)).unwrap();
        let expected = if guest.name == "hello-pvh" {
            KernelFormat::Pvh
        } else {
            KernelFormat::Elf64
        };
        assert_eq!(info.format, expected, "{}", guest.name);
    }
    let vm = boot(config(roost_guests::HELLO));
    output(&vm, "tick 1");
}

#[test]
fn a_command_line_that_the_kernel_would_cut_is_refused_with_the_lengths() {
    let refusal = |kernel: &[u8], bytes: usize| {
        let config = VmConfig {
            cmdline: "x".repeat(bytes),
            ..config(kernel)
        };
        match Vm::build(kvm(), config) {
            Err(BuildError::Load(LoadError::Cmdline { bytes, max })) => Some((bytes, max)),
            Err(error) => panic!("{error}"),
            Ok(_) => None,
        }
    };
    assert_eq!(refusal(roost_guests::HELLO, 2047), None);
    assert_eq!(refusal(roost_guests::HELLO, 2048), Some((2048, 2047)));
    let mut image = bzimage(&[0xf4]);
    image[0x238..0x23c].copy_from_slice(&100_u32.to_le_bytes());
    assert_eq!(refusal(&image, 100), None);
    assert_eq!(refusal(&image, 101), Some((101, 100)));
}

#[test]
fn vms_that_share_an_open_kernel_file_do_not_disturb_each_other() {
    // Clones of a descriptor share one position.
    let mut kernel = file(roost_guests::HELLO);
    kernel.seek(SeekFrom::End(0)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let vm = boot(VmConfig {
                    cmdline: "ticks=1".to_owned(),
                    kernel: kernel.try_clone().unwrap(),
                    ..config(b"")
                });
                output(&vm, "tick 1\n");
                assert_eq!(exit(&vm), GuestExit::Reset);
            });
        }
    });
    assert!(inspect_kernel(&mut kernel).is_ok(), "wherever it stands");
}
