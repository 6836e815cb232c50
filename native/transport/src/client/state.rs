//! What is known of one address: its connections, and calls to it.

use std::collections::{BTreeMap, VecDeque};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Request;

use crate::client::call::Call;
use crate::client::connection::{Begun, Connection};
use crate::client::status::Status;
use crate::readiness::{ReadyList, StreamWaker};

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
    /// Messages that come may have this length.
    limit: usize,
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
            limit,
            gone: Vec::new(),
        }
    }

    /// Begins a call, which waits for a connection if there is none.
    pub fn begin(
        &mut self,
        request: Request<()>,
        is_unary: bool,
        deadline: Option<Instant>,
        now: Instant,
    ) -> (u32, &mut Call) {
        let mut number = self.last_call.wrapping_add(1);
        while self.calls.contains_key(&number) {
            number = number.wrapping_add(1);
        }
        self.last_call = number;
        let waker = StreamWaker::new(number, &self.ready);
        let mut call = Call::new(request, is_unary, deadline, waker);
        if self.is_closed {
            call.end(Status::unavailable("its connection is closed"));
        } else if let Some(status) = self.failure_now(now) {
            call.end(status);
        } else {
            self.waiting.push_back(number);
        }
        (number, self.calls.entry(number).or_insert(call))
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
        match Connection::new(stream, now) {
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

    /// Notes that the socket of a connection has something to read.
    pub fn set_readable(&mut self, number: usize) {
        if let Some(connection) = self.connections.get(&number) {
            connection.set_readable();
        }
    }

    /// Goes on with all connections and calls, as far as that is possible now.
    pub fn advance(&mut self, now: Instant) {
        loop {
            self.poll_connections(now);
            let has_begun = self.begin_waiting();
            let ready = self.ready.take();
            for number in &ready {
                let Some(call) = self.calls.get_mut(number) else { continue };
                let (has_news, connection) = call.advance(self.limit);
                if has_news {
                    call.news.notify_all();
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
        let has_greeted = connection.has_greeted();
        drop(connection); // which wakes its calls
        for call in self.calls.values_mut().filter(|call| call.connection() == Some(number)) {
            call.lose(status);
        }
        if self.current == Some(number) {
            self.current = None;
            if !has_greeted {
                self.not_connected(status.clone(), now);
            }
        }
    }

    /// Gives streams to calls that wait for one. Returns whether any got one.
    fn begin_waiting(&mut self) -> bool {
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
            call.news.notify_all();
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
