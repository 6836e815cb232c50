//! One connection of a client: what HTTP/2 wants, without its calls.

use std::future::Future;
use std::io;
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Builder, Connection as Carrier, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, SendStream};
use http::uri::Scheme;
use http::{Request, Uri};

use crate::client::status::{Code, Status};
use crate::socket::{Condition, Socket};
use crate::tls::Session;

/// Calls of one connection at a time; others wait.
const MAX_CALLS: usize = 4096;
/// Calls that were given up of which it is known for a while, as something of them may come late.
const GIVEN_UP_MAX: usize = MAX_CALLS;
/// How far a peer may be ahead of who reads a call.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// The streams' windows bound what may come: that of a connection would let one call, whose reader
/// is slow, hold up all others.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
const MAX_FRAME_BYTES: u32 = 256 << 10;
const SEND_BUFFER_BYTES: usize = 2 << 20;
/// Errors travel in trailers.
const MAX_HEADERS_BYTES: u32 = 2 << 20;
/// The type of the frame with which a peer begins.
const SETTINGS: u8 = 4;

/// An attempt to connect takes at most this, up to the peer's first frame.
pub const CONNECT_TIME: Duration = Duration::from_secs(3);
/// A peer that says nothing for this long, while calls wait, is asked whether it is there.
const SILENT_TIME: Duration = Duration::from_secs(3);
/// It has this long to answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);

type Opened = Result<(SendRequest<Bytes>, Carrier<Socket, Bytes>), h2::Error>;

enum Phase {
    Opening(Pin<Box<dyn Future<Output = Opened> + Send>>),
    Open(SendRequest<Bytes>, Box<Carrier<Socket, Bytes>>),
}

/// What comes of a wish to begin a call.
pub enum Begun {
    Call(ResponseFuture, SendStream<Bytes>),
    /// There are too many calls, or the peer has not said anything yet.
    Later,
    /// It takes no call any more; those that are under way go on.
    Never,
}

/// A connection. Whoever does something with its calls must `poll` it then.
pub struct Connection {
    phase: Phase,
    /// What is known of its socket.
    pub condition: Arc<Condition>,
    ping: Option<PingPong>,
    has_pinged: bool,
    heard_bytes: u64,
    /// Since when calls have waited without hearing anything, as far as that was looked at.
    silent_since: Option<Instant>,
    pinged_at: Instant,
    opened_at: Instant,
    is_encrypted: bool,
    /// Calls that have a stream of it.
    pub calls: usize,
    /// Whether any call has had one.
    pub was_used: bool,
}

impl Connection {
    /// Greets the peer at the other end of a connected socket, within TLS if there is a session.
    /// `opened_at`: when the attempt to connect began.
    pub fn new(stream: TcpStream, tls: Option<Session>, opened_at: Instant) -> io::Result<Self> {
        let mut builder = Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(MAX_FRAME_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .max_header_list_size(MAX_HEADERS_BYTES)
            // What comes late of calls that were given up is no reason to end all others.
            .max_concurrent_reset_streams(GIVEN_UP_MAX)
            .max_local_error_reset_streams(None)
            .enable_push(false);
        let is_encrypted = tls.is_some();
        let socket = Socket::listed(stream, tls)?;
        let condition = socket.condition();
        Ok(Self {
            phase: Phase::Opening(Box::pin(builder.handshake(socket))),
            condition,
            ping: None,
            has_pinged: false,
            heard_bytes: 0,
            silent_since: None,
            pinged_at: opened_at,
            opened_at,
            is_encrypted,
            calls: 0,
            was_used: false,
        })
    }

    /// Whether the peer has said, as HTTP/2 wants, how it wants to be spoken to.
    pub fn has_greeted(&self) -> bool {
        self.condition.first_type() == Some(SETTINGS)
    }

    /// Reads and writes what can be. Errors: it is over, and why.
    pub fn poll(&mut self) -> Result<(), Status> {
        let mut context = Context::from_waker(Waker::noop());
        if let Phase::Opening(opening) = &mut self.phase {
            match opening.as_mut().poll(&mut context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(self.failed(Some(&error))),
                Poll::Ready(Ok((sender, mut carrier))) => {
                    self.ping = carrier.ping_pong();
                    self.phase = Phase::Open(sender, Box::new(carrier));
                }
            }
        }
        let Phase::Open(_, carrier) = &mut self.phase else { return Ok(()) };
        match Pin::new(carrier.as_mut()).poll(&mut context) {
            Poll::Ready(Ok(())) => return Err(self.failed(None)),
            Poll::Ready(Err(error)) => return Err(self.failed(Some(&error))),
            Poll::Pending => {}
        }
        if self.condition.first_type().is_some_and(|kind| kind != SETTINGS) {
            return Err(self.failed(None));
        }
        let pong = self.ping.as_mut().map(|ping| ping.poll_pong(&mut context));
        if pong.is_some_and(|pong| pong.is_ready()) {
            self.has_pinged = false;
        }
        Ok(())
    }

    /// Begins a call.
    pub fn begin(&mut self, request: &Request<()>) -> Begun {
        let has_room = self.calls < MAX_CALLS && self.has_greeted();
        let Phase::Open(sender, _) = &mut self.phase else { return Begun::Later };
        let mut context = Context::from_waker(Waker::noop());
        match sender.poll_ready(&mut context) {
            Poll::Ready(Err(_)) => return Begun::Never,
            Poll::Ready(Ok(())) if has_room => {}
            _ => return Begun::Later,
        }
        let mut request = request.clone();
        if self.is_encrypted {
            *request.uri_mut() = as_https(request.uri());
        }
        match sender.send_request(request, false) {
            Ok((response, body)) => {
                self.calls += 1;
                self.was_used = true;
                Begun::Call(response, body)
            }
            Err(_) => Begun::Never,
        }
    }

    /// Looks whether the peer lives. `is_awaited`: calls wait for it. Errors: it is over, and why.
    ///
    /// Silence lasts until something is heard, whatever becomes of the calls meanwhile: calls with
    /// short deadlines, one after the other, would never see it else.
    pub fn tick(&mut self, now: Instant, is_awaited: bool) -> Result<(), Status> {
        if !self.has_greeted() {
            let is_late = now >= self.opened_at + CONNECT_TIME;
            let reason = "its time was over before receiving SETTINGS";
            return if is_late { Err(Status::unavailable(reason)) } else { Ok(()) };
        }
        let heard = self.condition.received();
        if heard != self.heard_bytes {
            (self.heard_bytes, self.silent_since) = (heard, None);
            return Ok(());
        }
        if !is_awaited && !self.has_pinged {
            return Ok(());
        }
        let since = *self.silent_since.get_or_insert(now);
        if self.has_pinged && now >= self.pinged_at + ANSWER_TIME && now >= since + ANSWER_TIME {
            return Err(Status::unavailable("it does not answer any more (ping timeout)"));
        }
        if self.has_pinged || now < since + SILENT_TIME {
            return Ok(());
        }
        if let Some(ping) = &mut self.ping {
            self.has_pinged = ping.send_ping(Ping::opaque()).is_ok();
            self.pinged_at = now;
        }
        Ok(())
    }

    /// Whether the peer was asked whether it lives, and has not answered.
    pub fn awaits_pong(&self) -> bool {
        self.has_pinged
    }

    fn failed(&self, error: Option<&h2::Error>) -> Status {
        if let Some(trouble) = self.condition.trouble() {
            return Status::unavailable(format!("TLS has failed: {trouble}"));
        }
        let reason = error.map_or("it was closed by the peer".to_owned(), h2::Error::to_string);
        match self.condition.first_type() {
            Some(SETTINGS) if error.is_some_and(|error| !error.is_io() && !error.is_remote()) => {
                Status::new(Code::Unavailable, format!("the peer breaks HTTP/2: {reason}"))
            }
            Some(SETTINGS) => Status::unavailable(format!("the connection was lost: {reason}")),
            Some(_) => Status::unavailable("Failed parsing HTTP/2: it does not begin as that does"),
            None if self.condition.is_encrypted() => Status::unavailable(format!(
                "it ended after the handshake of TLS ({reason}): perhaps it wants another \
                 certificate of this end, or one"
            )),
            None => Status::unavailable(format!("{reason}, before receiving SETTINGS")),
        }
    }
}

/// The same with the scheme of what is encrypted, as HTTP wants it to be said.
fn as_https(uri: &Uri) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(Scheme::HTTPS);
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}
