//! The device as a guest and as programs of the host see it, with real sockets.

mod closing;
mod guest;
mod guest_connects;
mod host_connects;
mod hostile;
mod lifecycle;
mod many;
mod protocol;
mod socket;
mod transfer;
