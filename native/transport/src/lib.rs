//! gRPC as a server and a client speak it, by HTTP/2 of the crate `h2`.
//!
//! Of a server there is one connection here, and no thread, no clock and no event loop here: whoever owns the connection says when its
//! socket can be read or written, and is told what came. What comes is taken only as far as it was
//! allowed, so that nobody can make a server hold more than it wants to. A client, in `client`, has a thread: its callers block.

#[cfg(not(feature = "fuzz"))]
mod assembly;
#[cfg(feature = "fuzz")]
pub mod assembly;
pub mod client;
mod connection;
mod descriptors;
mod outgoing;
mod readiness;
mod send_queue;
mod socket;
mod stream;
pub mod tls;

pub use connection::{Connection, Limits};
pub use stream::{Event, SMALL_BYTES};
