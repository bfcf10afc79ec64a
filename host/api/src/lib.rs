//! The HTTP admin API of a Roost host.
//!
//! JSON over HTTP/1.1 on a Unix socket that only the host's user may connect to. Every route is in
//! one table ([`routes`]); every error is a problem document (RFC 9457) with a stable `type`.
//! Bodies, headers, connections and waits are bounded.
//!
//! ```no_run
//! # async fn example(engine: roost_engine::Engine) -> std::io::Result<()> {
//! let socket = roost_api::bind("/run/roost/roost.sock".as_ref())?;
//! roost_api::serve(socket, engine, std::future::pending()).await;
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod bindings;
mod decisions;
mod drain;
mod extract;
mod images;
mod limits;
mod listener;
mod operations;
mod plugins;
mod problem;
mod records;
mod repair;
mod routes;
mod serial;
mod store;
mod unread;
mod vms;

pub use listener::{bind, serve};
pub use routes::{Route, router, routes};
