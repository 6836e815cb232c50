//! One call of a connection.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;

use crate::assembly::{Assembly, Step};
use crate::outgoing::Outgoing;
use crate::readiness::StreamWaker;

/// Messages up to this length may come without being allowed.
pub const SMALL_BYTES: usize = 16 << 10;
/// A sender is told to go on once no more than this waits for its peer.
const LOW_WATER_BYTES: usize = 256 << 10;

/// What came over a connection. Numbers are of streams.
#[derive(Debug)]
pub enum Event {
    /// A call of this method, `/service/method`, has begun.
    Call(u32, String),
    /// A message, in parts.
    Message(u32, Vec<Bytes>),
    /// A message of this length begins, which was not allowed; none of it is read until it is.
    Large(u32, usize),
    /// No further message will come.
    Ended(u32),
    /// The peer has broken gRPC's rules: which one.
    Broken(u32, &'static str),
    /// The peer, or the connection, has given the call up; nothing further comes of it.
    Cancelled(u32),
    /// The peer has taken enough that more may be sent.
    Writable(u32),
    /// The connection is over, and all its calls are: why.
    Closed(String),
}

pub struct Stream {
    number: u32,
    incoming: RecvStream,
    assembly: Assembly,
    pub outgoing: Outgoing,
    pub waker: Arc<StreamWaker>,
    /// Whether the next message is asked for.
    pub is_asked: bool,
    has_ended: bool,
    /// A message up to this length may come.
    pub allowed: usize,
    /// The length of the message that is coming, if that is not small.
    pub coming: usize,
    is_held: bool,
    told_full: bool,
}

impl Stream {
    pub fn new(
        number: u32,
        incoming: RecvStream,
        outgoing: Outgoing,
        waker: Arc<StreamWaker>,
    ) -> Self {
        Self {
            number,
            incoming,
            assembly: Assembly::default(),
            outgoing,
            waker,
            is_asked: false,
            has_ended: false,
            allowed: 0,
            coming: 0,
            is_held: false,
            told_full: false,
        }
    }

    /// Lets messages up to this length come.
    pub fn allow(&mut self, length: usize) {
        self.allowed = length;
        if self.is_held && self.coming <= length {
            self.is_held = false;
            self.waker.queue();
        }
    }

    /// The bytes for which the peer must have room, beyond small messages.
    pub fn promised(&self) -> usize {
        if self.is_held { self.allowed } else { self.allowed.max(self.coming) }
    }

    /// Has bytes sent. Returns how many the peer has not taken yet.
    pub fn send(&mut self, parts: impl IntoIterator<Item = Bytes>) -> usize {
        for part in parts {
            self.outgoing.queue.push(part);
        }
        self.waker.queue();
        self.told_full = self.outgoing.queue.bytes() > LOW_WATER_BYTES;
        self.outgoing.queue.bytes()
    }

    /// Goes on with whatever can. Returns whether the call is over.
    pub fn advance(&mut self, events: &mut Vec<Event>) -> bool {
        let waker = self.waker.waker();
        let mut context = Context::from_waker(&waker);
        let was_given_up = self.outgoing.advance(&mut context).is_err();
        if was_given_up || (!self.outgoing.is_done && self.outgoing.was_reset(&mut context)) {
            events.push(Event::Cancelled(self.number));
            return true;
        }
        if self.told_full && self.outgoing.queue.bytes() <= LOW_WATER_BYTES {
            self.told_full = false;
            events.push(Event::Writable(self.number));
        }
        if self.outgoing.is_done {
            return true;
        }
        self.receive(&mut context, events)
    }

    /// Takes what came, as far as it is asked for and allowed. Returns whether the call is over.
    fn receive(&mut self, context: &mut Context<'_>, events: &mut Vec<Event>) -> bool {
        while self.is_asked && !self.has_ended && !self.is_held {
            match self.assembly.step() {
                Step::Whole(parts) => {
                    self.is_asked = false;
                    self.coming = 0;
                    events.push(Event::Message(self.number, parts));
                }
                Step::Declared(length) if length > SMALL_BYTES => {
                    self.coming = length;
                    if length > self.allowed {
                        self.is_held = true;
                        events.push(Event::Large(self.number, length));
                    }
                }
                Step::Declared(_) => {}
                Step::Compressed => {
                    self.has_ended = true;
                    let reason = "a message is compressed, which this server does not take";
                    events.push(Event::Broken(self.number, reason));
                }
                Step::More => match self.incoming.poll_data(context) {
                    Poll::Pending => return false,
                    Poll::Ready(Some(Ok(data))) => {
                        // The window opens again as it is read: all of it was allowed.
                        let _ = self.incoming.flow_control().release_capacity(data.len());
                        self.assembly.put(data);
                    }
                    Poll::Ready(Some(Err(_))) => {
                        events.push(Event::Cancelled(self.number));
                        return true;
                    }
                    Poll::Ready(None) => {
                        self.has_ended = true;
                        events.push(if self.assembly.is_amid() {
                            Event::Broken(self.number, "the last message is cut short")
                        } else {
                            Event::Ended(self.number)
                        });
                    }
                },
            }
        }
        false
    }
}
