//! Makes connections, each by a thread of its own: a name is looked up there, which may take long.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

/// What there is to connect once a name was looked up, however long that took.
const LEAST_TIME: Duration = Duration::from_secs(2);
/// Room for the C library, which looks a name up.
const STACK_BYTES: usize = 1 << 20;

/// Has `tell` called, by another thread, with a connection to `host:port` or with why there is none.
/// Errors: there can be no such thread.
pub fn begin(
    address: String,
    until: Instant,
    tell: impl FnOnce(Result<TcpStream, String>) + Send + 'static,
) -> io::Result<()> {
    let builder = thread::Builder::new().name("cosco-connect".into()).stack_size(STACK_BYTES);
    builder.spawn(move || tell(connected(&address, until)))?;
    Ok(())
}

fn connected(address: &str, until: Instant) -> Result<TcpStream, String> {
    let failed = |error: io::Error| format!("errors resolving {address}: {error}");
    let found: Vec<_> = address.to_socket_addrs().map_err(failed)?.collect();
    // A slow answer of a name server leaves as much for each of what it named.
    let until = until.max(Instant::now() + LEAST_TIME);
    let mut reason = format!("errors resolving {address}: no address");
    for (tried, one) in found.iter().enumerate() {
        // Each has its share of the time, so that one that is silent leaves some for the next.
        let left = until.saturating_duration_since(Instant::now());
        let share = left / (found.len() - tried) as u32;
        if share.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(one, share) {
            Ok(stream) => {
                let _ = stream.set_nodelay(true); // if it is gone already, that is told soon
                return Ok(stream);
            }
            Err(error) => reason = format!("{one} cannot be connected to: {error}"),
        }
    }
    Err(reason)
}
