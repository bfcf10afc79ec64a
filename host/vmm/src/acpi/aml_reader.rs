//! A reader of as much AML as it takes to find the devices that we describe.

use std::collections::BTreeMap;

/// A device: its objects by name, each with the bytes of its value.
pub(super) type Objects = BTreeMap<String, Vec<u8>>;

const NAME: u8 = 0x08;
const SCOPE: u8 = 0x10;
const METHOD: u8 = 0x14;
const EXTENDED: u8 = 0x5b;
const REGION: u8 = 0x80;
const FIELD: u8 = 0x81;
const DEVICE: u8 = 0x82;

/// Devices by their path. Anything that is not understood is a panic: the test fails.
pub(super) fn devices(aml: &[u8]) -> BTreeMap<String, Objects> {
    let mut found = BTreeMap::new();
    let mut top = Objects::new();
    list(aml, "", &mut top, &mut found);
    found.insert(String::new(), top);
    found
}

fn list(
    mut aml: &[u8],
    inside: &str,
    objects: &mut Objects,
    found: &mut BTreeMap<String, Objects>,
) {
    while let Some((&operation, rest)) = aml.split_first() {
        aml = match operation {
            NAME => {
                let (name, value) = name(rest);
                let length = value_length(value);
                assert!(objects.insert(name, value[..length].to_vec()).is_none());
                &value[length..]
            }
            SCOPE => {
                let (package, after) = package(rest);
                let (name, body) = name(package);
                list(body, &name, objects, found);
                after
            }
            METHOD => {
                let (package, after) = package(rest);
                let (name, body) = name(package);
                assert!(objects.insert(name, body.to_vec()).is_none());
                after
            }
            EXTENDED => match rest[0] {
                REGION => {
                    let (name, body) = name(&rest[1..]);
                    let offset = 1 + value_length(&body[1..]);
                    let length = offset + value_length(&body[offset..]);
                    assert!(objects.insert(name, body[..length].to_vec()).is_none());
                    &body[length..]
                }
                FIELD => package(&rest[1..]).1,
                DEVICE => {
                    let (package, after) = package(&rest[1..]);
                    let (name, body) = name(package);
                    let path = format!("{inside}.{name}");
                    let mut own = Objects::new();
                    list(body, &path, &mut own, found);
                    assert!(found.insert(path, own).is_none(), "named twice");
                    after
                }
                other => panic!("extended operation {other:#x}"),
            },
            other => panic!("operation {other:#x} in {inside}"),
        };
    }
}

/// "PkgLength" (ACPI 6.5, 20.2.4): the bytes that it covers, itself left out, and what follows.
fn package(aml: &[u8]) -> (&[u8], &[u8]) {
    let more = usize::from(aml[0] >> 6);
    let mut length = usize::from(aml[0] & if more == 0 { 0x3f } else { 0xf });
    for byte in 0..more {
        length |= usize::from(aml[1 + byte]) << (4 + 8 * byte);
    }
    (&aml[1 + more..length], &aml[length..])
}

/// A name of one segment, with its root if it says so.
fn name(aml: &[u8]) -> (String, &[u8]) {
    let length = 4 + usize::from(aml[0] == b'\\');
    let text = std::str::from_utf8(&aml[..length]).unwrap();
    (text.to_owned(), &aml[length..])
}

/// Bytes of an integer, a string, a buffer or a package.
fn value_length(aml: &[u8]) -> usize {
    match aml[0] {
        0x00 | 0x01 | 0xff => 1,
        0x0a => 2,
        0x0b => 3,
        0x0c => 5,
        0x0e => 9,
        0x0d => 1 + aml.iter().position(|byte| *byte == 0).unwrap(),
        0x11 | 0x12 => aml.len() - package(&aml[1..]).1.len(),
        other => panic!("a value that begins with {other:#x}"),
    }
}
