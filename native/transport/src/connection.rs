//! One connection of a server, with its calls.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::{self, Handshake, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request};

use crate::assembly::parts_of;
use crate::outgoing::Outgoing;
use crate::readiness::{ReadyList, StreamWaker};
use crate::socket::{Condition, Socket};
use crate::stream::{Event, Stream};
use crate::tls::Session;

/// A connection's window is at most this, as HTTP/2 has it.
const MAX_WINDOW_BYTES: usize = (1 << 31) - 1;
/// DATA frames up to this length are taken, each as a whole.
const MAX_FRAME_BYTES: u32 = 256 << 10;
/// A stream's window: what a connection may hold is bounded by its own.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// As much is read before others have their turn.
const TURN_BYTES: usize = 4 << 20;
/// Calls that were begun and given up before they were looked at; h2 ends a connection with more.
const GIVEN_UP_MAX: usize = 1024;
/// What small DATA frames of a connection may cost that nobody has looked at; h2 ends it beyond.
/// Some thousands may come at once: h2 reads all that there is before their calls are told.
const SMALL_FRAMES_BYTES: usize = 2 << 20;
/// What h2 may have of a call's messages that the socket has not taken.
const SEND_BUFFER_BYTES: usize = 2 << 20;
const MAX_HEADERS_BYTES: u32 = 16 << 10;

/// What a peer may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls at a time.
    pub streams: u32,
    /// Bytes of a connection that nobody has allowed, or asked for.
    pub window_bytes: u32,
}

enum State {
    Greeting(Box<Handshake<Socket, Bytes>>),
    Open(Box<server::Connection<Socket, Bytes>>),
    Closed,
}

/// A connection. After whatever is called `advance` must be, until it returns no events.
pub struct Connection {
    condition: Arc<Condition>,
    state: State,
    limits: Limits,
    streams: BTreeMap<u32, Stream>,
    ready: Arc<ReadyList>,
    ping: Option<PingPong>,
    has_pinged: bool,
    /// The window that the peer was last given, in all.
    window_bytes: usize,
    /// Whether what was allowed has changed since.
    is_window_old: bool,
    /// What all calls keep.
    kept_bytes: usize,
    stops: bool,
}

impl Connection {
    /// Begins to serve what a peer sends over a connected socket, within TLS if there is a session.
    pub fn new(socket: TcpStream, limits: Limits, tls: Option<Session>) -> io::Result<Self> {
        let mut builder = server::Builder::new();
        builder
            .initial_connection_window_size(limits.window_bytes)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .max_frame_size(MAX_FRAME_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .max_pending_accept_reset_streams(GIVEN_UP_MAX)
            .data_frame_budget(SMALL_FRAMES_BYTES)
            .max_header_list_size(MAX_HEADERS_BYTES)
            .max_concurrent_streams(limits.streams);
        let socket = Socket::new(socket, tls)?;
        let condition = socket.condition();
        let handshake = builder.handshake(socket);
        Ok(Self {
            condition,
            state: State::Greeting(Box::new(handshake)),
            limits,
            streams: BTreeMap::new(),
            ready: Arc::default(),
            ping: None,
            has_pinged: false,
            window_bytes: limits.window_bytes as usize,
            is_window_old: false,
            kept_bytes: 0,
            stops: false,
        })
    }

    /// Writes, and reads, what can be, and goes on with all calls. Returns what came.
    ///
    /// `is_readable`: whether the socket has something; else what it had before is all there is.
    pub fn advance(&mut self, is_readable: bool) -> Vec<Event> {
        if is_readable {
            self.condition.set_readable_up_to(TURN_BYTES);
        }
        let mut events = Vec::new();
        loop {
            let has_news = self.poll_connection(&mut events);
            let has_ready = self.advance_ready(&mut events);
            if matches!(self.state, State::Closed) || !(has_news || has_ready) {
                return events;
            }
            self.open_window();
        }
    }

    /// Whether it has something to send for which its socket has no room.
    pub fn wants_write(&self) -> bool {
        !matches!(self.state, State::Closed) && self.condition.is_full()
    }

    /// Whether the socket may have something that was not read, be it that it could not be.
    pub fn has_unread(&self) -> bool {
        self.condition.has_unread()
    }

    /// Asks for the next message of a call, and for short ones behind it that are there by then,
    /// up to so many bytes.
    pub fn ask(&mut self, number: u32, more_bytes: usize) {
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.ask(more_bytes);
        }
    }

    /// Lets messages of a call come that are up to this long.
    pub fn allow(&mut self, number: u32, length: usize) {
        if let Some(stream) = self.streams.get_mut(&number) {
            self.is_window_old |= stream.allowed != length;
            stream.allow(length);
            self.open_window();
        }
    }

    /// Sends a message. Returns the bytes of the call that its peer has not taken yet; None if
    /// there is no such call any more.
    pub fn send(&mut self, number: u32, message: Bytes) -> Option<usize> {
        let stream = self.streams.get_mut(&number)?;
        let parts = parts_of(message)?;
        Some(stream.send(parts))
    }

    /// Ends a call, after what was sent.
    pub fn finish(&mut self, number: u32, trailers: HeaderMap) {
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.outgoing.finish(trailers);
            stream.waker.queue();
        }
    }

    /// Takes nothing more of a call, and forgets what came of it.
    pub fn cut(&mut self, number: u32) {
        if let Some(stream) = self.streams.get_mut(&number) {
            self.kept_bytes -= stream.kept();
            stream.cut();
            self.is_window_old = true;
            self.open_window();
        }
    }

    /// Asks the peer whether it is there, unless it was asked and has not answered.
    pub fn ping(&mut self) {
        if let (Some(ping), false) = (&mut self.ping, self.has_pinged) {
            self.has_pinged = ping.send_ping(Ping::opaque()).is_ok();
        }
    }

    /// Whether the peer was asked whether it is there, and has not answered.
    pub fn awaits_pong(&self) -> bool {
        self.has_pinged
    }

    /// Takes no further calls; it is closed when those that there are have ended.
    pub fn stop(&mut self) {
        self.stops = true;
        if let State::Open(connection) = &mut self.state {
            connection.graceful_shutdown();
        }
    }

    /// Ends everything at once.
    pub fn close(&mut self) {
        self.state = State::Closed;
        self.streams.clear();
        self.kept_bytes = 0;
        self.ping = None;
    }

    /// Bytes that have come in all.
    pub fn received(&self) -> u64 {
        self.condition.received()
    }

    /// The bytes that came of messages that are not whole, or that nobody has asked for, but for
    /// what was allowed.
    pub fn kept(&self) -> usize {
        self.kept_bytes
    }

    /// The call that keeps most of them.
    pub fn keeps_most(&self) -> Option<u32> {
        let most = self.streams.iter().max_by_key(|(_, stream)| stream.kept());
        most.map(|(number, _)| *number)
    }

    /// Whom the certificate of the peer is of that was verified; known when its first call is told.
    pub fn peer_names(&self) -> &[String] {
        self.condition.peer_names()
    }

    /// Why TLS has failed with this peer, for people; empty if it has not.
    pub fn tls_failure(&self) -> &str {
        self.condition.trouble().unwrap_or_default()
    }

    /// The number of calls that are under way.
    pub fn calls(&self) -> usize {
        self.streams.len()
    }

    fn poll_connection(&mut self, events: &mut Vec<Event>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        if let State::Greeting(handshake) = &mut self.state {
            match Pin::new(handshake.as_mut()).poll(&mut context) {
                Poll::Pending => return false,
                Poll::Ready(Ok(connection)) => self.opened(connection),
                Poll::Ready(Err(error)) => return self.fail(&error, events),
            }
        }
        let mut has_news = false;
        loop {
            let State::Open(connection) = &mut self.state else { return has_news };
            match connection.poll_accept(&mut context) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok((request, respond)))) => self.begin(request, respond, events),
                Poll::Ready(Some(Err(error))) => return self.fail(&error, events),
                Poll::Ready(None) => return self.end(String::new(), events),
            }
            has_news = true;
        }
        let pong = self.ping.as_mut().map(|ping| ping.poll_pong(&mut context));
        if let Some(Poll::Ready(Ok(_))) = pong {
            self.has_pinged = false;
        }
        has_news
    }

    fn opened(&mut self, mut connection: server::Connection<Socket, Bytes>) {
        self.ping = connection.ping_pong();
        if self.stops {
            connection.graceful_shutdown();
        }
        self.state = State::Open(Box::new(connection));
    }

    fn begin(
        &mut self,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        events: &mut Vec<Event>,
    ) {
        let number = respond.stream_id().as_u32();
        let method = request.uri().path().to_owned();
        let authorization = authorization_of(request.headers());
        let waker = StreamWaker::new(number, &self.ready);
        waker.queue();
        let stream = Stream::new(number, request.into_body(), Outgoing::new(respond), waker);
        self.streams.insert(number, stream);
        events.push(Event::Call(number, method, authorization));
    }

    /// Goes on with the calls that can. Returns whether there were any.
    fn advance_ready(&mut self, events: &mut Vec<Event>) -> bool {
        let ready = self.ready.take();
        for number in &ready {
            let Some(stream) = self.streams.get_mut(number) else { continue };
            stream.waker.taken();
            let (promised, kept) = (stream.promised(), stream.kept());
            let is_over = stream.advance(events);
            let now = if is_over { (0, 0) } else { (stream.promised(), stream.kept()) };
            self.is_window_old |= promised != now.0;
            self.kept_bytes = self.kept_bytes - kept + now.1;
            if is_over {
                self.streams.remove(number);
            }
        }
        !ready.is_empty()
    }

    /// Gives the peer room for all that it was allowed to send.
    fn open_window(&mut self) {
        let State::Open(connection) = &mut self.state else { return };
        if !std::mem::take(&mut self.is_window_old) {
            return;
        }
        let allowed: usize = self.streams.values().map(Stream::promised).sum();
        let wanted = (self.limits.window_bytes as usize + allowed).min(MAX_WINDOW_BYTES);
        if wanted != self.window_bytes {
            self.window_bytes = wanted;
            connection.set_target_window_size(wanted as u32);
        }
    }

    fn fail(&mut self, error: &h2::Error, events: &mut Vec<Event>) -> bool {
        let reason = self.condition.trouble().map_or_else(|| error.to_string(), str::to_owned);
        self.end(reason, events)
    }

    fn end(&mut self, reason: String, events: &mut Vec<Event>) -> bool {
        let numbers: Vec<u32> = self.streams.keys().copied().collect();
        events.extend(numbers.into_iter().map(Event::Cancelled));
        self.close();
        events.push(Event::Closed(reason));
        true
    }
}

/// What the header `authorization` has. Of several nobody knows which one is meant: that is nothing.
fn authorization_of(headers: &HeaderMap) -> Option<Bytes> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let first = values.next()?;
    let only = if values.next().is_none() { first.as_bytes() } else { b"" };
    Some(Bytes::copy_from_slice(only))
}
