//! What a guest does to its ports, and the host to what is behind them, for fuzz targets.

use std::num::NonZeroU64;
use std::sync::Arc;

use arbitrary::{Arbitrary, Result, Unstructured};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::events::POWER_BUTTON;
use super::ports::{
    COM1, EVENTS, I8042_COMMAND, I8042_DATA, PANIC, PortInterrupts, PortWrite, Ports,
    RESET_CONTROL, RTC_INDEX, SLEEP_CONTROL, SLEEP_STATUS,
};
use super::{OUTPUT_RING_BYTES, SerialPort};
use crate::devices::virtio::RateLimit;

/// Accesses to ports, in order.
#[derive(Debug, Arbitrary)]
pub(crate) struct Accesses(Vec<Access>);

#[derive(Debug)]
enum Access {
    Read {
        port: u16,
        width: u8,
        items: u8,
    },
    Write {
        port: u16,
        width: u8,
        data: Vec<u8>,
    },
    /// A storm of output: so many times the same bytes.
    Storm {
        data: [u8; 8],
        times: u8,
    },
    Type(Vec<u8>),
    PowerButton,
    CtrlAltDelete,
    Limit(Option<(NonZeroU64, u32)>),
    Output {
        from: u32,
        most: u32,
    },
}

impl<'a> Arbitrary<'a> for Access {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u.int_in_range(0..=15)? {
            0..=4 => Self::Read {
                port: port(u)?,
                width: u.arbitrary()?,
                items: u.arbitrary()?,
            },
            5..=9 => Self::Write {
                port: port(u)?,
                width: u.arbitrary()?,
                data: u.arbitrary()?,
            },
            10 => Self::Storm {
                data: u.arbitrary()?,
                times: u.arbitrary()?,
            },
            11 => Self::Type(u.arbitrary()?),
            12 => Self::PowerButton,
            13 => Self::CtrlAltDelete,
            14 => Self::Limit(u.arbitrary()?),
            _ => Self::Output {
                from: u.arbitrary()?,
                most: u.arbitrary()?,
            },
        })
    }
}

fn port(u: &mut Unstructured<'_>) -> Result<u16> {
    const PORTS: [u16; 9] = [
        I8042_DATA,
        I8042_COMMAND,
        RTC_INDEX,
        RTC_INDEX + 1,
        RESET_CONTROL,
        PANIC,
        SLEEP_CONTROL,
        SLEEP_STATUS,
        EVENTS,
    ];
    match u.int_in_range(0..=3)? {
        0 => u.arbitrary(),
        1 => Ok(*u.choose(&PORTS)?),
        _ => Ok(COM1 + u.int_in_range(0..=7)?),
    }
}

impl Accesses {
    /// Does them all.
    ///
    /// # Panics
    /// Something does not hold that must.
    pub(crate) fn run(self) {
        let interrupt = || EventFd::new(EFD_NONBLOCK).unwrap();
        let serial = Arc::new(SerialPort::new(interrupt()).unwrap());
        let interrupts = PortInterrupts {
            keyboard: interrupt(),
            events: interrupt(),
        };
        let ports = Ports::new(Arc::clone(&serial), interrupts);
        for access in self.0 {
            match access {
                Access::Read { port, width, items } => {
                    let width = [1, 2, 4][usize::from(width % 3)];
                    let mut data = vec![0; width * (1 + usize::from(items))];
                    ports.read(port, width, &mut data);
                }
                Access::Write { port, width, data } => {
                    let width = [1, 2, 4][usize::from(width % 3)];
                    // KVM passes whole items.
                    let whole = data.len() / width * width;
                    let done = ports.write(port, width, &data[..whole]);
                    assert!(
                        width == 1 || done == PortWrite::Done,
                        "only bytes do anything"
                    );
                }
                Access::Storm { data, times } => {
                    for _ in 0..times {
                        ports.write(COM1, 1, &data.repeat(8));
                    }
                }
                Access::Type(bytes) => assert!(serial.write_input(&bytes) <= bytes.len()),
                Access::PowerButton => ports.events().raise(POWER_BUTTON),
                Access::CtrlAltDelete => ports.ctrl_alt_delete(),
                Access::Limit(limit) => {
                    serial.set_output_limit(limit.map(|(per_second, burst)| RateLimit {
                        per_second,
                        burst: burst.into(),
                    }));
                }
                Access::Output { from, most } => {
                    let chunk = serial.read(from.into(), most as usize);
                    assert!(chunk.bytes.len() <= OUTPUT_RING_BYTES.min(most as usize));
                    assert!(chunk.offset + chunk.bytes.len() as u64 <= serial.end());
                }
            }
        }
    }
}
