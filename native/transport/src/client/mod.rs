//! gRPC as a client speaks it, for threads that wait for what they are answered.
//!
//! A `Link` is one address: it connects when a call wants it, keeps one connection for all calls, and
//! connects again when that has failed. Whoever calls sends by himself; a thread of the `Runtime`
//! takes what comes, and wakes those who wait for it. A `Caller` is an address for an event loop: the
//! same without threads, whose owner connects, waits for sockets, and is told what came.

mod base64;
mod begin;
mod call;
mod caller;
mod connect;
mod connection;
mod link;
mod runtime;
mod state;
mod status;

pub use crate::descriptors::close_inherited;
pub use begin::Begin;
pub use caller::{Caller, News};
pub use link::{Link, Received};
pub use runtime::Runtime;
#[cfg(feature = "fuzz")]
pub use state::State;
pub use status::{Code, Status};
