//! gRPC as a server speaks it over one connection, by HTTP/2 of the crate `h2`.
//!
//! There is no thread, no clock and no event loop here: whoever owns the connection says when its
//! socket can be read or written, and is told what came. What comes is taken only as far as it was
//! allowed, so that nobody can make a server hold more than it wants to.

mod assembly;
mod connection;
mod outgoing;
mod readiness;
mod socket;
mod stream;

pub use connection::{Connection, Limits};
pub use stream::{Event, SMALL_BYTES};
