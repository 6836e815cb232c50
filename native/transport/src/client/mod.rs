//! gRPC as a client speaks it, for threads that wait for what they are answered.
//!
//! A `Link` is one address: it connects when a call wants it, keeps one connection for all calls, and
//! connects again when that has failed. Whoever calls sends by himself; a thread of the `Runtime`
//! takes what comes, and wakes those who wait for it.

mod base64;
mod call;
mod connect;
mod connection;
mod link;
mod runtime;
mod state;
mod status;

pub use crate::descriptors::close_inherited;
pub use link::{Begin, Link, Received};
pub use runtime::Runtime;
pub use status::{Code, Status};
