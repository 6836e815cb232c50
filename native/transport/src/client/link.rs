//! One address, for threads that wait.

use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::client::begin::Begin;
use crate::client::connect;
use crate::client::connection::CONNECT_TIME;
use crate::client::runtime::Runtime;
use crate::client::state::State;
use crate::client::status::{Code, Status};
use crate::tls::ClientTls;

/// What comes of waiting for a call.
#[derive(Debug)]
pub enum Received {
    /// A message, in parts.
    Message(Vec<Bytes>),
    /// The call is over; see `Link::status`.
    Ended,
    /// More can be sent again, which could not.
    Room,
    /// Nothing, in that time.
    Nothing,
    /// Nothing, as `Link::wake` wants it.
    Woken,
}

/// An address, and what is under way there.
pub struct Link {
    address: String,
    runtime: Arc<Runtime>,
    state: Mutex<State>,
}

impl Link {
    /// Does nothing yet. `limit`: how long messages may be that come.
    pub fn new(address: String, limit: usize, runtime: Arc<Runtime>) -> Arc<Self> {
        Arc::new(Self { address, runtime, state: Mutex::new(State::new(limit)) })
    }

    /// Has connections carry TLS that are made from now on, or not; what there are go on. Errors: no
    /// certificate can be of this address.
    pub fn set_tls(&self, tls: Option<&ClientTls>) -> Result<(), String> {
        let tls = tls.map(|tls| tls.to(&self.address)).transpose()?;
        self.lock().set_tls(tls);
        Ok(())
    }

    /// Begins a call, and returns its number. Errors: there can be no thread to connect, or this is
    /// no method's name.
    pub fn begin(self: &Arc<Self>, begin: Begin<'_>) -> io::Result<u32> {
        let now = Instant::now();
        let request = begin.request(&self.address)?;
        let mut state = self.lock();
        let number = state.begin(request, begin, now);
        if let Err(error) = self.advance(&mut state, now) {
            state.forget(number, Status::unavailable("there is no thread for it"));
            return Err(error);
        }
        drop(state);
        self.runtime.note_call();
        Ok(number)
    }

    /// Has a message sent. Returns whether more should be; if not, `receive` tells when.
    pub fn send(self: &Arc<Self>, number: u32, message: Bytes) -> bool {
        let mut state = self.lock();
        let Some(call) = state.call(number) else { return true };
        if call.send(message).is_none() {
            state.end(number, Status::new(Code::ResourceExhausted, "a message of 4 GiB"));
        }
        self.advance_or_fail(&mut state);
        state.call(number).is_none_or(|call| call.has_room())
    }

    /// Sends nothing further.
    pub fn half_close(self: &Arc<Self>, number: u32) {
        let mut state = self.lock();
        if let Some(call) = state.call(number) {
            call.half_close();
            self.advance_or_fail(&mut state);
        }
    }

    /// Waits for what comes next of a call, at most for `timeout`.
    pub fn receive(self: &Arc<Self>, number: u32, timeout: Option<Duration>) -> Received {
        let mut now = Instant::now();
        let until = timeout.and_then(|timeout| now.checked_add(timeout));
        let mut state = self.lock();
        if let Some(call) = state.call(number) {
            call.ask();
            self.advance_or_fail(&mut state);
        }
        loop {
            let Some(call) = state.call(number) else { return Received::Ended };
            if let Some(parts) = call.take_message() {
                return Received::Message(parts);
            }
            if call.status().is_some() {
                return Received::Ended;
            }
            if call.take_room_news() {
                return Received::Room;
            }
            if call.take_woken() {
                return Received::Woken;
            }
            let (news, deadline) = (Arc::clone(&call.news), call.deadline);
            if deadline.is_some_and(|deadline| deadline <= now) {
                let status = Status::new(Code::DeadlineExceeded, "its time is over");
                state.end(number, status);
                self.advance_or_fail(&mut state);
                continue;
            }
            if until.is_some_and(|until| until <= now) {
                return Received::Nothing;
            }
            let soonest = deadline.into_iter().chain(until).min();
            state = match soonest {
                None => news.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(soonest) => {
                    let left = soonest.saturating_duration_since(now);
                    let woken = news.wait_timeout(state, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            now = Instant::now();
        }
    }

    /// Has whoever waits for a call, or will be the next to, not wait.
    pub fn wake(&self, number: u32) {
        if let Some(call) = self.lock().call(number) {
            call.wake();
        }
    }

    /// How a call has ended; None if it has not.
    pub fn status(&self, number: u32) -> Option<Status> {
        self.lock().call(number).and_then(|call| call.status().cloned())
    }

    /// Ends a call, unless it has ended; who waits for it is told.
    pub fn cancel(self: &Arc<Self>, number: u32) {
        let mut state = self.lock();
        state.end(number, Status::new(Code::Cancelled, "it was cancelled here"));
        self.advance_or_fail(&mut state);
    }

    /// As `cancel`, for a call that nobody will wait for.
    pub fn forget(self: &Arc<Self>, number: u32) {
        let mut state = self.lock();
        state.forget(number, Status::new(Code::Cancelled, "it was cancelled here"));
        self.advance_or_fail(&mut state);
    }

    /// Ends all calls and connections, for good.
    pub fn close(&self) {
        let mut state = self.lock();
        state.close();
        self.runtime.remove(&mut state.gone);
    }

    // --- for the runtime's thread ---------------------------------------------------------------

    /// Goes on, as the socket of a connection can be read or written.
    pub(super) fn on_ready(self: &Arc<Self>, connection: usize, is_readable: bool) {
        let mut state = self.lock();
        if is_readable {
            state.set_readable(connection, usize::MAX);
        }
        self.advance_or_fail(&mut state);
    }

    /// Looks after its connections. Returns whether that is to be done again.
    pub(super) fn tick(self: &Arc<Self>, now: Instant) -> bool {
        let mut state = self.lock();
        state.tick(now);
        self.advance_or_fail(&mut state);
        state.wants_ticks()
    }

    /// Ends everything that is under way, of which something has panicked.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.end_all(&Status::new(Code::Internal, "the native part has panicked"));
        self.runtime.remove(&mut state.gone);
    }

    // --- inside ---------------------------------------------------------------------------------

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn advance_or_fail(self: &Arc<Self>, state: &mut State) {
        let now = Instant::now();
        if let Err(error) = self.advance(state, now) {
            let details = format!("{}: there is no thread to connect: {error}", self.address);
            state.not_connected(Status::unavailable(details), now);
        }
    }

    /// Goes on with everything, and connects if that is wanted. Errors: there is no thread for it.
    fn advance(self: &Arc<Self>, state: &mut State, now: Instant) -> io::Result<()> {
        state.advance(now);
        self.runtime.remove(&mut state.gone);
        if !state.wants_connection(now) {
            return Ok(());
        }
        let link = Arc::clone(self);
        let tell = move |made| link.made(made);
        connect::begin(self.address.clone(), now + CONNECT_TIME, tell)
            .inspect_err(|_| state.give_up_attempt())
    }

    fn made(self: &Arc<Self>, made: Result<TcpStream, String>) {
        let now = Instant::now();
        let mut state = self.lock();
        let failed = |reason| Status::unavailable(format!("failed to connect: {reason}"));
        match made {
            Err(reason) => state.not_connected(failed(reason), now),
            Ok(stream) => match self.runtime.add(self, &stream) {
                Err(error) => state.not_connected(failed(error.to_string()), now),
                Ok(number) => state.connected(number, stream, now),
            },
        }
        self.advance_or_fail(&mut state);
    }
}
