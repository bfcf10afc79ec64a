//! The device status field (virtio 1.2, section 2.1): which step may follow which.

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
};

/// The driver's steps, in the order in which they may be taken.
const STEPS: [u32; 4] = [
    VIRTIO_CONFIG_S_ACKNOWLEDGE,
    VIRTIO_CONFIG_S_DRIVER,
    VIRTIO_CONFIG_S_FEATURES_OK,
    VIRTIO_CONFIG_S_DRIVER_OK,
];
/// All bits that a driver sets.
const DRIVER_BITS: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE
    | VIRTIO_CONFIG_S_DRIVER
    | VIRTIO_CONFIG_S_FEATURES_OK
    | VIRTIO_CONFIG_S_DRIVER_OK
    | VIRTIO_CONFIG_S_FAILED;

/// How far a driver is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Status(u32);

/// What writing the field led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    /// Not all of it may be done now; what may was.
    Refused,
    /// The driver is ready.
    DriverOk,
}

impl Status {
    /// The field as it reads.
    pub(super) fn bits(self) -> u32 {
        self.0
    }

    /// The field as it was saved; `None`: no driver gets there.
    pub(super) fn from_bits(bits: u32) -> Option<Self> {
        let mut status = Self(bits & VIRTIO_CONFIG_S_NEEDS_RESET);
        let driver = Self(0).advance(bits & DRIVER_BITS, true).1;
        status.0 |= driver.0;
        (status.0 == bits).then_some(status)
    }

    fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    /// Whether the driver or the device gave up; then only a reset helps.
    fn is_over(self) -> bool {
        self.has(VIRTIO_CONFIG_S_FAILED | VIRTIO_CONFIG_S_NEEDS_RESET)
    }

    /// Whether features may be written.
    pub(super) fn takes_features(self) -> bool {
        self.has(VIRTIO_CONFIG_S_DRIVER)
            && !self.has(VIRTIO_CONFIG_S_FEATURES_OK)
            && !self.is_over()
    }

    /// Whether queues may be configured.
    pub(super) fn takes_queues(self) -> bool {
        self.has(VIRTIO_CONFIG_S_FEATURES_OK)
            && !self.has(VIRTIO_CONFIG_S_DRIVER_OK)
            && !self.is_over()
    }

    /// Whether the device works for the driver.
    pub(super) fn is_active(self) -> bool {
        self.has(VIRTIO_CONFIG_S_DRIVER_OK) && !self.has(VIRTIO_CONFIG_S_NEEDS_RESET)
    }

    /// Whether features were agreed on.
    pub(super) fn has_features(self) -> bool {
        self.has(VIRTIO_CONFIG_S_FEATURES_OK)
    }

    /// The device gives up.
    pub(super) fn set_needs_reset(&mut self) {
        self.0 |= VIRTIO_CONFIG_S_NEEDS_RESET;
    }

    /// The driver writes the field, not with 0. A driver may take several steps at once.
    pub(super) fn write(&mut self, value: u32, features_are_acceptable: bool) -> Progress {
        let (progress, status) = self.advance(value, features_are_acceptable);
        *self = status;
        progress
    }

    fn advance(self, value: u32, features_are_acceptable: bool) -> (Progress, Self) {
        let mut status = self;
        // A driver adds to what it read, in which the device's own bit may be.
        let value = value & !VIRTIO_CONFIG_S_NEEDS_RESET;
        let clears = status.0 & DRIVER_BITS & !value != 0;
        let unknown = value & !DRIVER_BITS != 0;
        if clears || unknown {
            return (Progress::Refused, status);
        }
        let mut progress = Progress::Done;
        let mut reached = true;
        for step in STEPS {
            if status.has(step) || value & step == 0 {
                reached = status.has(step);
                continue;
            }
            let may = match step {
                VIRTIO_CONFIG_S_FEATURES_OK => features_are_acceptable && !status.is_over(),
                VIRTIO_CONFIG_S_DRIVER_OK => !status.is_over(),
                _ => true,
            };
            if !reached || !may {
                return (Progress::Refused, status);
            }
            status.0 |= step;
            if step == VIRTIO_CONFIG_S_DRIVER_OK {
                progress = Progress::DriverOk;
            }
        }
        status.0 |= value & VIRTIO_CONFIG_S_FAILED;
        (progress, status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u32 = 1 | 2 | 8 | 4;

    #[test]
    fn the_steps_are_taken_in_order_one_by_one_or_at_once() {
        let mut status = Status::default();
        for (value, progress) in [
            (1, Progress::Done),
            (3, Progress::Done),
            (11, Progress::Done),
            (15, Progress::DriverOk),
            (15, Progress::Done),
        ] {
            assert_eq!(status.write(value, true), progress);
            assert_eq!(status.bits(), value);
        }
        assert!(status.is_active());
        let mut status = Status::default();
        assert_eq!(status.write(ALL, true), Progress::DriverOk);
        assert_eq!(status.bits(), ALL);
    }

    #[test]
    fn no_step_is_skipped_and_none_is_taken_back() {
        for (from, value) in [
            (0, 2),
            (0, 4),
            (0, 8),
            (1, 9),
            (3, 7),
            (3, 2),
            (11, 3),
            (15, 11),
        ] {
            let mut status = Status(from);
            assert_eq!(
                status.write(value, true),
                Progress::Refused,
                "{from} {value}"
            );
            assert_eq!(status.bits(), from);
        }
        let mut status = Status(3);
        assert_eq!(
            status.write(3 | 16, true),
            Progress::Refused,
            "a reserved bit"
        );
    }

    #[test]
    fn features_that_are_not_acceptable_stop_the_driver_there() {
        let mut status = Status::default();
        assert_eq!(status.write(ALL, false), Progress::Refused);
        assert_eq!(status.bits(), 3);
        assert!(status.takes_features() && !status.takes_queues());
    }

    #[test]
    fn after_a_failure_of_either_side_nothing_is_configured() {
        for start in [3, 11] {
            let mut driver = Status(start);
            assert_eq!(driver.write(start | 128, true), Progress::Done);
            let mut device = Status(start);
            device.set_needs_reset();
            for mut status in [driver, device] {
                assert!(!status.takes_features() && !status.takes_queues());
                assert_eq!(status.write(status.bits() | ALL, true), Progress::Refused);
                assert!(!status.is_active());
            }
        }
    }

    #[test]
    fn exactly_what_a_driver_can_reach_is_restored() {
        let reachable = [0, 1, 3, 11, 15];
        for bits in 0..=255 {
            let driver = bits & !(64 | 128);
            let expected = bits & 128 == 0 && reachable.contains(&driver)
                || bits & 128 != 0 && reachable.contains(&driver);
            assert_eq!(Status::from_bits(bits).is_some(), expected, "{bits}");
        }
        assert_eq!(Status::from_bits(1 << 8), None);
    }
}
