//! What is known of one address: its connections, and calls to it.

use std::collections::{BTreeMap, VecDeque};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Request;

use crate::client::begin::Begin;
use crate::client::call::Call;
use crate::client::connection::{Begun, Connection};
use crate::client::status::{Code, Status};
use crate::readiness::{ReadyList, StreamWaker};
use crate::socket::Condition;
use crate::tls::TlsTo;

/// After a failure to connect calls fail at once for this time, which doubles with each one.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Calls and connections of an address. Connections are known by numbers that the owner gives.
pub struct State {
    calls: BTreeMap<u32, Call>,
    last_call: u32,
    /// Calls that have no stream yet, in their order.
    waiting: VecDeque<u32>,
    ready: Arc<ReadyList>,
    connections: BTreeMap<usize, Connection>,
    /// The one for new calls; the others only end what they have.
    current: Option<usize>,
    /// When the attempt to connect began that is under way.
    attempt: Option<Instant>,
    failure: Option<(Status, Instant)>,
    backoff: Duration,
    is_closed: bool,
    /// Of an owner that has no threads waiting for calls, and looks for their news.
    news: Option<Vec<u32>>,
    /// Messages that come may have this length.
    limit: usize,
    /// What connections that are made go by.
    tls: Option<TlsTo>,
    /// Numbers of connections that are gone.
    pub gone: Vec<usize>,
}

impl State {
    pub fn new(limit: usize) -> Self {
        Self {
            calls: BTreeMap::new(),
            last_call: 0,
            waiting: VecDeque::new(),
            ready: Arc::default(),
            connections: BTreeMap::new(),
            current: None,
            attempt: None,
            failure: None,
            backoff: BACKOFF_FIRST,
            is_closed: false,
            news: None,
            limit,
            tls: None,
            gone: Vec::new(),
        }
    }

    /// The same, for an owner who looks for news of its calls.
    pub fn with_news(limit: usize) -> Self {
        Self { news: Some(Vec::new()), ..Self::new(limit) }
    }

    /// Has connections carry TLS that are made from now on, or not; what there are go on.
    pub fn set_tls(&mut self, tls: Option<TlsTo>) {
        self.tls = tls;
    }

    /// Begins a call, which waits for a connection if there is none. Returns its number.
    pub fn begin(&mut self, request: Request<()>, begin: Begin<'_>, now: Instant) -> u32 {
        let mut number = self.last_call.wrapping_add(1);
        while self.calls.contains_key(&number) {
            number = number.wrapping_add(1);
        }
        self.last_call = number;
        let waker = StreamWaker::new(number, &self.ready);
        let deadline = begin.timeout.and_then(|timeout| now.checked_add(timeout));
        let mut call = Call::new(request, begin.is_unary, deadline, waker);
        if let Some(message) = begin.message {
            if call.send(message).is_none() {
                call.end(Status::new(Code::ResourceExhausted, "a message of 4 GiB"));
            }
            call.half_close();
        }
        if self.is_closed {
            call.end(Status::unavailable("its connection is closed"));
        } else if let Some(status) = self.failure_now(now) {
            call.end(status);
        } else {
            self.waiting.push_back(number);
        }
        let has_ended = call.status().is_some();
        self.calls.insert(number, call);
        if has_ended {
            self.tell(number);
        }
        number
    }

    /// Tells who waits for a call, or looks for news, that there are some.
    fn tell(&mut self, number: u32) {
        if let Some(call) = self.calls.get(&number) {
            call.news.notify_all();
        }
        if let Some(news) = &mut self.news {
            news.push(number);
        }
    }

    /// Calls that have had news since this was called last, for one who looks for them.
    pub fn take_news(&mut self) -> Vec<u32> {
        self.news.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Forgets a call that is over, and returns how it has ended; None: it has not.
    pub fn take_ended(&mut self, number: u32) -> Option<Status> {
        let status = self.calls.get(&number)?.status()?.clone();
        self.calls.remove(&number);
        Some(status)
    }

    fn failure_now(&self, now: Instant) -> Option<Status> {
        let is_hopeless = self.current.is_none() && self.attempt.is_none();
        let (status, until) = self.failure.as_ref().filter(|_| is_hopeless)?;
        (now < *until).then(|| status.clone())
    }

    pub fn call(&mut self, number: u32) -> Option<&mut Call> {
        self.calls.get_mut(&number)
    }

    /// Whether calls wait for a peer.
    pub fn is_busy(&self) -> bool {
        self.calls.values().any(|call| call.status().is_none())
    }

    /// Whether `tick` is to be called: calls wait for a peer, or a peer was asked whether it lives.
    pub fn wants_ticks(&self) -> bool {
        self.is_busy() || self.connections.values().any(Connection::awaits_pong)
    }

    /// Whether a connection is wanted; then the caller is to make one, and to tell `connected`.
    pub fn wants_connection(&mut self, now: Instant) -> bool {
        let wants = self.current.is_none()
            && self.attempt.is_none()
            && !self.is_closed
            && self.waiting.iter().any(|number| self.calls.contains_key(number));
        if wants {
            self.attempt = Some(now);
        }
        wants
    }

    /// Notes that the attempt was not made that was wanted.
    pub fn give_up_attempt(&mut self) {
        self.attempt = None;
    }

    /// Takes a connection, by a number that is not used yet.
    pub fn connected(&mut self, number: usize, stream: TcpStream, now: Instant) {
        if self.attempt.take().is_none() || self.is_closed {
            self.gone.push(number);
            return;
        }
        let made = match &self.tls {
            None => Connection::new(stream, None, now),
            Some(tls) => tls.session().and_then(|tls| Connection::new(stream, Some(tls), now)),
        };
        match made {
            Ok(connection) => {
                self.connections.insert(number, connection);
                self.current = Some(number);
            }
            Err(error) => {
                self.gone.push(number);
                self.not_connected(Status::unavailable(error.to_string()), now);
            }
        }
    }

    /// Fails the calls that wait for a connection, as there is none.
    pub fn not_connected(&mut self, status: Status, now: Instant) {
        self.attempt = None;
        for number in std::mem::take(&mut self.waiting) {
            self.end(number, status.clone());
        }
        self.failure = Some((status, now + self.backoff));
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }

    /// Notes that the socket of a connection has something to read, of which so much may be read.
    pub fn set_readable(&mut self, number: usize, up_to_bytes: usize) {
        if let Some(connection) = self.connections.get(&number) {
            connection.condition.set_readable_up_to(up_to_bytes);
        }
    }

    /// What is known of the socket of a connection.
    pub fn condition(&self, number: usize) -> Option<&Condition> {
        self.connections.get(&number).map(|connection| &*connection.condition)
    }

    /// Goes on with all connections and calls, as far as that is possible now.
    pub fn advance(&mut self, now: Instant) {
        loop {
            self.poll_connections(now);
            let has_begun = self.begin_waiting(now);
            let ready = self.ready.take();
            for number in &ready {
                let Some(call) = self.calls.get_mut(number) else { continue };
                let (has_news, connection) = call.advance(self.limit);
                if has_news {
                    self.tell(*number);
                }
                self.left(connection);
            }
            if ready.is_empty() && !has_begun {
                return;
            }
        }
    }

    fn poll_connections(&mut self, now: Instant) {
        let mut over = Vec::new();
        for (number, connection) in &mut self.connections {
            if let Err(status) = connection.poll() {
                over.push((*number, status));
            } else if self.current == Some(*number) && connection.has_greeted() {
                (self.failure, self.backoff) = (None, BACKOFF_FIRST);
            } else if self.current != Some(*number) && connection.calls == 0 {
                over.push((*number, Status::unavailable("it is not used any more")));
            }
        }
        for (number, status) in over {
            self.drop_connection(number, &status, now);
        }
    }

    fn drop_connection(&mut self, number: usize, status: &Status, now: Instant) {
        let Some(connection) = self.connections.remove(&number) else { return };
        self.gone.push(number);
        let was_used = connection.was_used;
        drop(connection); // which wakes its calls
        for call in self.calls.values_mut().filter(|call| call.connection() == Some(number)) {
            call.lose(status);
        }
        if self.current == Some(number) {
            self.current = None;
            if !was_used {
                // Else who hangs up on each connection would be connected to without end.
                self.not_connected(status.clone(), now);
            }
        }
    }

    /// Gives streams to calls that wait for one. Returns whether any got one.
    fn begin_waiting(&mut self, now: Instant) -> bool {
        let mut has_begun = false;
        while let Some(number) = self.waiting.front() {
            let Some(current) = self.current else { break };
            let Some(connection) = self.connections.get_mut(&current) else { break };
            let unfinished = self.calls.get_mut(number).filter(|call| call.status().is_none());
            if let Some(call) = unfinished {
                match connection.begin(&call.request) {
                    Begun::Call(response, body) => call.begin(current, response, body),
                    Begun::Later => break,
                    Begun::Never => {
                        self.current = None;
                        if !connection.was_used {
                            // The next one would say the same, and so on.
                            let reason = "the connection was lost: it takes no calls";
                            self.not_connected(Status::unavailable(reason), now);
                        }
                        break;
                    }
                }
                has_begun = true;
            }
            self.waiting.pop_front();
        }
        has_begun
    }

    /// Looks for peers that are gone without a word, and attempts that take too long.
    pub fn tick(&mut self, now: Instant) {
        let mut over = Vec::new();
        for (number, connection) in &mut self.connections {
            let is_awaited = connection.calls > 0;
            if let Err(status) = connection.tick(now, is_awaited) {
                over.push((*number, status));
            }
        }
        for (number, status) in over {
            self.drop_connection(number, &status, now);
        }
        self.advance(now);
    }

    /// Ends a call, unless it has ended.
    pub fn end(&mut self, number: u32, status: Status) {
        if let Some(call) = self.calls.get_mut(&number) {
            let connection = call.end(status);
            self.tell(number);
            self.left(connection);
        }
    }

    /// Forgets a call, which nobody waits for.
    pub fn forget(&mut self, number: u32, status: Status) {
        self.end(number, status);
        self.calls.remove(&number);
    }

    fn left(&mut self, connection: Option<usize>) {
        if let Some(connection) = connection.and_then(|number| self.connections.get_mut(&number)) {
            connection.calls -= 1;
        }
    }

    /// Ends everything, for good.
    pub fn close(&mut self) {
        self.is_closed = true;
        self.end_all(&Status::unavailable("its connection is closed"));
    }

    /// Ends everything that is under way.
    pub fn end_all(&mut self, status: &Status) {
        let numbers: Vec<u32> = self.calls.keys().copied().collect();
        for number in numbers {
            self.end(number, status.clone());
        }
        self.waiting.clear();
        self.current = None;
        self.gone.extend(std::mem::take(&mut self.connections).into_keys());
    }
}
