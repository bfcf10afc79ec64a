//! The socket device (virtio 1.2, section 5.10): stream sockets between the guest and Unix sockets
//! of the host, in user space.
//!
//! ```text
//!   guest                      this device                              host
//!   ─────                      ───────────                              ────
//!   connect(CID 2, port P) ──▶ Dial ─────────────────────connect──▶ <prefix>_P
//!   accept at port Q ◀──────── handshake ◀──"CONNECT Q\n"── listener ◀── a program
//!
//!   TX queue ──▶ packet ──▶ Connection (protocol, credit) ──▶ Stream ──▶ Unix socket
//!   RX queue ◀── one packet of each connection in turn ◀───── Stream ◀── Unix socket
//! ```
//!
//! [`connection`] decides what packets mean, and does no I/O; [`stream`] has the socket; the
//! [`multiplexer`] has all connections, and carries out. `device.rs`, `events.rs`, `counters.rs` and
//! `state.rs` are as with every device.
//!
//! **Who waits for whom.** Bytes for the guest stay in the host's socket until the guest has credit
//! and a buffer: a slow guest slows its peer down, and costs nothing here. Bytes of the guest that
//! a slow program does not take are buffered up to the credit that the guest was given; one that
//! sends more is reset. Nothing blocks the device thread.
//!
//! **What is lost.** A connection ends by an RST in these cases: the guest breaks the protocol; the
//! program on the host goes away without having read everything; a deadline is over. In all others
//! both ends get all bytes, then the end of the stream, each direction by itself.

mod config;
mod connection;
mod counters;
mod credit;
mod deadlines;
mod device;
mod dial;
mod events;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod handshake;
mod multiplexer;
mod packet;
mod ports;
mod state;
mod stream;
#[cfg(test)]
mod tests;

pub use config::{VsockConfig, VsockConfigError, VsockLimits};
pub(crate) use device::Vsock;
#[cfg(any(test, fuzzing))]
pub(crate) use fuzz::Bench as VsockBench;
pub(crate) use state::VsockState;
