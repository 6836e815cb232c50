//! TLS between HTTP/2 and a socket: rustls, which reads no socket, no file and no clock but the day's.
//!
//! What the ends go by, `ServerTls` and `ClientTls`, is made of PEM once and used for many
//! connections; `TlsTo` is a client's to one address. A `Session` is one connection's.

mod names;
mod reasons;
mod session;
mod settings;

pub use session::Session;
pub use settings::{ClientTls, ServerTls, TlsTo};
