//! What driver and host do, in order, and playing it.

use std::collections::HashMap;

use arbitrary::{Arbitrary, Result, Unstructured};
use virtio_bindings::virtio_mmio::{
    VIRTIO_MMIO_CONFIG, VIRTIO_MMIO_QUEUE_NOTIFY, VIRTIO_MMIO_STATUS,
};
use vm_memory::{Bytes as _, GuestAddress};

use super::chain::{self, Layout, Sent};
use super::state::Tamper;
use super::value::{Address, Length, Number};
use super::{Shape, Subject};
use crate::devices::mmio::MmioDevice as _;
use crate::devices::virtio::test_driver::{Driver, FEATURES_OK};

/// Most steps of a script: an input has a few thousand bytes, and more steps find no more.
const MAX_STEPS: usize = 128;

/// What is done to a device.
pub(crate) struct Script<S: Subject> {
    config: S::Config,
    steps: Vec<Step<S>>,
}

impl<S: Subject> std::fmt::Debug for Script<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script")
            .field("config", &self.config)
            .field("steps", &self.steps)
            .finish()
    }
}

impl<'a, S: Subject> Arbitrary<'a> for Script<S> {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let config = u.arbitrary()?;
        let mut steps = Vec::new();
        while !u.is_empty() && steps.len() < MAX_STEPS {
            steps.push(u.arbitrary()?);
        }
        Ok(Self { config, steps })
    }
}

/// One thing that happens.
enum Step<S: Subject> {
    /// The driver asks for something, and tells the device, or does not yet.
    Send {
        request: S::Request,
        layout: Layout,
        told: bool,
    },
    Host(S::Host),
    /// The device gets one turn.
    Turn,
    /// The device gets turns until nothing is left to do.
    Rest,
    /// The driver begins anew, with all queues and these of the features.
    Negotiate {
        features: u64,
    },
    /// The driver begins anew with some queues, of these sizes.
    Begin {
        features: u64,
        sizes: Vec<u8>,
    },
    /// The VM pauses and goes on; what was about to happen may be lost.
    Pause {
        lose: bool,
    },
    /// The VM is saved and goes on elsewhere.
    Migrate(Option<Tamper>),
    Register {
        register: u8,
        value: Number,
    },
    Read {
        offset: u16,
        bytes: u8,
    },
    Write {
        offset: u16,
        bytes: u8,
        value: u64,
    },
    WriteConfig {
        offset: u8,
        bytes: u8,
        value: u64,
    },
    /// A queue is notified so often, whether it is there or not.
    Notify {
        queue: Number,
        times: u8,
    },
    Ring {
        queue: u8,
        field: RingField,
    },
    Descriptor {
        queue: u8,
        at: u8,
        address: Address,
        bytes: Length,
        flags: u8,
        next: u8,
    },
    Poke {
        address: Address,
        value: u64,
    },
    Acknowledge,
}

/// What a driver writes into a ring beside requests.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum RingField {
    AvailableIndex(u16),
    Available(u16),
    UsedEvent(u16),
    NoInterrupt(bool),
    UsedIndex(u16),
}

impl<S: Subject> std::fmt::Debug for Step<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Send {
                request,
                layout,
                told,
            } => {
                write!(f, "Send({request:?}, {layout:?}, told: {told})")
            }
            Self::Host(action) => write!(f, "Host({action:?})"),
            Self::Turn => write!(f, "Turn"),
            Self::Rest => write!(f, "Rest"),
            Self::Negotiate { features } => write!(f, "Negotiate({features:#x})"),
            Self::Begin { features, sizes } => write!(f, "Begin({features:#x}, {sizes:?})"),
            Self::Pause { lose } => write!(f, "Pause(lose: {lose})"),
            Self::Migrate(tamper) => write!(f, "Migrate({tamper:?})"),
            Self::Register { register, value } => {
                write!(
                    f,
                    "Register({:#x}, {:#x})",
                    4 * u32::from(*register),
                    value.0
                )
            }
            Self::Read { offset, bytes } => write!(f, "Read({offset:#x}, {bytes})"),
            Self::Write {
                offset,
                bytes,
                value,
            } => {
                write!(f, "Write({offset:#x}, {bytes}, {value:#x})")
            }
            Self::WriteConfig {
                offset,
                bytes,
                value,
            } => {
                write!(f, "WriteConfig({offset:#x}, {bytes}, {value:#x})")
            }
            Self::Notify { queue, times } => write!(f, "Notify({:#x}, {times})", queue.0),
            Self::Ring { queue, field } => write!(f, "Ring({queue}, {field:?})"),
            Self::Descriptor {
                queue,
                at,
                address,
                bytes,
                flags,
                next,
            } => write!(
                f,
                "Descriptor({queue}, {at}, {:#x}, {:#x}, {flags:#x}, {next})",
                address.0, bytes.0
            ),
            Self::Poke { address, value } => write!(f, "Poke({:#x}, {value:#x})", address.0),
            Self::Acknowledge => write!(f, "Acknowledge"),
        }
    }
}

impl<'a, S: Subject> Arbitrary<'a> for Step<S> {
    /// Of 64 steps 56 are what a driver that is not hostile may do.
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u.int_in_range(0..=63)? {
            0..=33 => Self::Send {
                request: u.arbitrary()?,
                layout: u.arbitrary()?,
                told: u.ratio(3, 4)?,
            },
            34..=43 => Self::Host(u.arbitrary()?),
            44 => Self::Turn,
            45 | 46 => Self::Rest,
            47 | 48 => Self::Negotiate {
                features: u.arbitrary()?,
            },
            49 => Self::Begin {
                features: u.arbitrary()?,
                sizes: u.arbitrary()?,
            },
            50 | 51 => Self::Pause {
                lose: u.arbitrary()?,
            },
            52 => Self::Migrate(None),
            53 => Self::Notify {
                queue: u.arbitrary()?,
                times: u.arbitrary()?,
            },
            54 => Self::Read {
                offset: u.arbitrary()?,
                bytes: u.arbitrary()?,
            },
            55 => Self::Acknowledge,
            56 => Self::Migrate(Some(u.arbitrary()?)),
            57 => Self::Register {
                register: u.int_in_range(0..=63)?,
                value: u.arbitrary()?,
            },
            58 => Self::Write {
                offset: u.arbitrary()?,
                bytes: u.arbitrary()?,
                value: u.arbitrary()?,
            },
            59 => Self::WriteConfig {
                offset: u.arbitrary()?,
                bytes: u.arbitrary()?,
                value: u.arbitrary()?,
            },
            60 | 61 => Self::Ring {
                queue: u.arbitrary()?,
                field: u.arbitrary()?,
            },
            62 => Self::Descriptor {
                queue: u.arbitrary()?,
                at: u.arbitrary()?,
                address: u.arbitrary()?,
                bytes: u.arbitrary()?,
                flags: u.arbitrary()?,
                next: u.arbitrary()?,
            },
            _ => Self::Poke {
                address: u.arbitrary()?,
                value: u.arbitrary()?,
            },
        })
    }
}

impl<S: Subject> Script<S> {
    /// Plays it.
    ///
    /// # Panics
    /// Something does not hold that must.
    pub(crate) fn run(self) {
        let mut subject = S::new(&self.config);
        let mut play = Play {
            driver: Driver::new(subject.device()),
            subject,
            queues: Vec::new(),
            keeps_rules: false,
        };
        play.negotiate(u64::MAX);
        for step in self.steps {
            play = play.step(step);
        }
        play.end();
    }
}

/// What the driver knows of a queue.
struct Queue {
    free: Vec<u16>,
    sent: HashMap<u16, Sent>,
}

impl Queue {
    fn new(size: u16) -> Self {
        Self {
            free: (0..size).rev().collect(),
            sent: HashMap::new(),
        }
    }
}

/// A script that is being played.
struct Play<S: Subject> {
    driver: Driver,
    subject: S,
    queues: Vec<Queue>,
    /// Whether the driver did nothing since its reset that a driver may not do.
    keeps_rules: bool,
}

impl<S: Subject> Play<S> {
    fn negotiate(&mut self, features: u64) {
        let offered = self.driver.offered();
        self.driver.negotiate(offered & features);
        self.know_queues();
        self.keeps_rules = S::KEEPS_MEMORY;
    }

    fn begin(&mut self, features: u64, sizes: &[u8]) {
        self.driver.begin(self.driver.offered() & features);
        assert_ne!(self.driver.read(VIRTIO_MMIO_STATUS) & FEATURES_OK, 0);
        for (queue, size) in (0..).zip(sizes) {
            let most = self.driver.queue_size(queue);
            if most == 0 {
                break;
            }
            self.driver
                .enable_queue(1 << (u32::from(*size) % (most.ilog2() + 1)));
        }
        self.driver.driver_ok();
        self.know_queues();
        self.keeps_rules = S::KEEPS_MEMORY;
    }

    fn know_queues(&mut self) {
        let sizes = self.driver.sizes();
        self.queues = sizes.into_iter().map(Queue::new).collect();
    }

    fn step(mut self, step: Step<S>) -> Self {
        match step {
            Step::Send {
                request,
                layout,
                told,
            } => {
                let shape = self.subject.shape(&request);
                self.send(&shape, &layout, told);
            }
            Step::Host(action) => self.subject.host(&action),
            Step::Turn => self.driver.turn(),
            Step::Rest => self.rest(),
            Step::Negotiate { features } => self.negotiate(features),
            Step::Begin { features, sizes } => self.begin(features, &sizes),
            Step::Pause { lose } => {
                self.driver.device.quiesce();
                if lose {
                    self.driver.lose_events();
                }
                self.driver.device.resume();
            }
            Step::Migrate(tamper) => return self.migrate(tamper),
            Step::Read { offset, bytes } => {
                let offset = u64::from(offset % 0xff8);
                let mut data = [0; 8];
                let data = &mut data[..1 + usize::from(bytes % 8)];
                self.driver.device.read(offset, data);
            }
            Step::Notify { queue, times } => {
                for _ in 0..times {
                    self.driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, queue.0);
                }
            }
            Step::Acknowledge => drop(self.driver.take_interrupt()),
            hostile => {
                self.keeps_rules = false;
                self.attack(&hostile);
            }
        }
        self
    }

    fn send(&mut self, shape: &Shape, layout: &Layout, told: bool) {
        if let Some(queue) = self.queues.get_mut(usize::from(shape.queue)) {
            self.keeps_rules &= layout.twist.is_none();
            let before = self.driver.next_buffer();
            let sent = chain::send(&mut self.driver, &mut queue.free, shape, layout);
            // Buffers are placed from the start again, where others may still be in use.
            self.keeps_rules &= self.driver.next_buffer() >= before;
            if let Some((head, sent)) = sent {
                queue.sent.insert(head, sent);
            }
        }
        if told {
            self.driver.notify(shape.queue);
            self.rest();
        }
    }

    /// What a driver may not do.
    fn attack(&mut self, step: &Step<S>) {
        let driver = &mut self.driver;
        match step {
            Step::Register { register, value } => {
                driver.write(4 * u32::from(*register), value.0);
            }
            Step::Write {
                offset,
                bytes,
                value,
            } => {
                let bytes = 1 + usize::from(bytes % 8);
                let data = &value.to_le_bytes()[..bytes];
                driver.device.write(u64::from(offset % 0xff8), data);
            }
            Step::WriteConfig {
                offset,
                bytes,
                value,
            } => {
                let data = &value.to_le_bytes()[..1 + usize::from(bytes % 8)];
                let base = u64::from(VIRTIO_MMIO_CONFIG);
                driver.device.write(base + u64::from(*offset), data);
            }
            Step::Ring { queue, field } if !self.queues.is_empty() => {
                let queue = u16::from(*queue) % self.queues.len() as u16;
                let (memory, ring) = driver.ring(queue);
                match field {
                    RingField::AvailableIndex(index) => ring.set_available_index(memory, *index),
                    RingField::Available(head) => ring.make_available(memory, *head),
                    RingField::UsedEvent(index) => ring.set_used_event(memory, *index),
                    RingField::NoInterrupt(off) => ring.set_no_interrupt(memory, *off),
                    RingField::UsedIndex(index) => {
                        let at = GuestAddress(ring.used + 2);
                        memory.write_obj(*index, at).unwrap();
                    }
                }
            }
            Step::Descriptor {
                queue,
                at,
                address,
                bytes,
                flags,
                next,
            } if !self.queues.is_empty() => {
                let queue = u16::from(*queue) % self.queues.len() as u16;
                let entry =
                    chain::descriptor(*address, *bytes, u16::from(*flags), u16::from(*next));
                let (memory, ring) = driver.ring(queue);
                ring.set_descriptor(memory, u16::from(*at) % ring.size, entry);
            }
            Step::Poke { address, value } => {
                // Where there is no memory nothing is written.
                let _ = driver.memory.write_obj(*value, GuestAddress(address.0));
            }
            _ => {}
        }
    }

    /// Turns until nothing is left to do; then the driver looks at what came back.
    fn rest(&mut self) {
        self.driver.run();
        for (number, queue) in (0..).zip(&mut self.queues) {
            for (head, written) in self.driver.used(number) {
                let Some(sent) = queue.sent.remove(&head) else {
                    assert!(!self.keeps_rules, "queue {number}: {head} was not sent");
                    continue;
                };
                queue.free.extend(sent.descriptors);
                let Some(writable) = sent.writable else {
                    continue;
                };
                let room: u64 = writable.iter().map(|(_, bytes)| u64::from(*bytes)).sum();
                assert!(
                    !self.keeps_rules || u64::from(written) <= room,
                    "queue {number}: {written} bytes written into {room}"
                );
                let bytes = read(&self.driver, &writable, written);
                self.subject.took(number, &bytes, self.keeps_rules);
            }
        }
    }

    /// The same VM elsewhere, or one whose state somebody changed.
    fn migrate(mut self, tamper: Option<Tamper>) -> Self {
        let subject = &mut self.subject;
        let (driver, restored) = self.driver.migrate_changed(
            || subject.device(),
            |state| {
                if let Some(tamper) = tamper {
                    tamper.apply(state);
                }
            },
        );
        self.driver = driver;
        if tamper.is_some() {
            self.keeps_rules = false;
        } else {
            restored.unwrap();
        }
        self
    }

    fn end(mut self) {
        self.rest();
        self.driver.device.quiesce();
        self.driver.device.save().unwrap();
        self.driver.device.resume();
        self.driver.negotiate(0);
        self.subject.works(&mut self.driver);
    }
}

/// The first `written` bytes of the buffers.
fn read(driver: &Driver, writable: &[(u64, u32)], written: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (address, room) in writable {
        let left = written as usize - bytes.len().min(written as usize);
        bytes.extend(driver.bytes(*address, left.min(*room as usize)));
    }
    bytes
}
