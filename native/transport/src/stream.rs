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
/// What each further message counts beside its length, so that empty ones are few as well.
const MESSAGE_COST_BYTES: usize = 64;
/// A sender is told to go on once no more than this waits for its peer.
const LOW_WATER_BYTES: usize = 256 << 10;

/// What came over a connection. Numbers are of streams.
#[derive(Debug)]
pub enum Event {
    /// A call of this method, `/service/method`, has begun, with what its header `authorization` has:
    /// nothing if there is more than one.
    Call(u32, String, Option<Bytes>),
    /// What one `ask` was for: a message, or several that were there, each in parts.
    Messages(u32, Vec<Message>),
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

/// A message, in parts.
pub type Message = Vec<Bytes>;

pub struct Stream {
    number: u32,
    incoming: RecvStream,
    assembly: Assembly,
    pub outgoing: Outgoing,
    pub waker: Arc<StreamWaker>,
    /// Whether the next message is asked for.
    is_asked: bool,
    /// What may come with it: the bytes of further messages that are there.
    more_bytes: usize,
    /// The length of a message that begins and was not looked at, as it comes with the next `ask`.
    declared: Option<usize>,
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
            more_bytes: 0,
            declared: None,
            has_ended: false,
            allowed: 0,
            coming: 0,
            is_held: false,
            told_full: false,
        }
    }

    /// Asks for the next message, and for those behind it that are there by then: short ones, up
    /// to so many bytes.
    pub fn ask(&mut self, more_bytes: usize) {
        (self.is_asked, self.more_bytes) = (true, more_bytes);
        self.waker.queue();
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

    /// The bytes that came of messages that are not whole, or that nobody has asked for, but for
    /// what was allowed.
    pub fn kept(&self) -> usize {
        let have = if self.coming > 0 { 0 } else { self.assembly.have_bytes() };
        self.assembly.rest_bytes() + have
    }

    /// Takes nothing more, and forgets what came.
    pub fn cut(&mut self) {
        self.assembly = Assembly::default();
        self.has_ended = true;
        (self.allowed, self.coming, self.is_held) = (0, 0, false);
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
        if !self.is_asked || self.has_ended || self.is_held {
            return false;
        }
        let mut messages = Vec::new();
        let end = self.take(context, &mut messages);
        self.assembly.keep_rest();
        if !messages.is_empty() {
            self.is_asked = false;
            events.push(Event::Messages(self.number, messages));
        }
        let Some(end) = end else { return false };
        let is_over = matches!(end, Event::Cancelled(_));
        events.push(end);
        is_over
    }

    /// Takes the next message, and further ones as far as they are asked for. Returns what ends
    /// that, if it is an event.
    fn take(&mut self, context: &mut Context<'_>, messages: &mut Vec<Message>) -> Option<Event> {
        let mut more_bytes = self.more_bytes;
        loop {
            let step = match self.declared.take() {
                Some(length) => Step::Declared(length),
                None => self.assembly.step(),
            };
            match step {
                Step::Whole(parts) => {
                    let is_long = std::mem::take(&mut self.coming) > 0;
                    messages.push(parts);
                    if is_long || self.more_bytes == 0 {
                        return None;
                    }
                }
                Step::Declared(length) if !messages.is_empty() => {
                    let left = more_bytes.checked_sub(length.saturating_add(MESSAGE_COST_BYTES));
                    match left {
                        Some(left) if length <= SMALL_BYTES => more_bytes = left,
                        _ => {
                            self.declared = Some(length);
                            return None;
                        }
                    }
                }
                Step::Declared(length) if length > SMALL_BYTES => {
                    self.coming = length;
                    if length > self.allowed {
                        self.is_held = true;
                        return Some(Event::Large(self.number, length));
                    }
                }
                Step::Declared(_) => {}
                Step::Compressed => {
                    self.has_ended = true;
                    let reason = "a message is compressed, which this server does not take";
                    return Some(Event::Broken(self.number, reason));
                }
                Step::More => match self.incoming.poll_data(context) {
                    Poll::Pending => return None,
                    Poll::Ready(Some(Ok(data))) => {
                        // The window opens again as it is read: all of it was allowed.
                        let _ = self.incoming.flow_control().release_capacity(data.len());
                        self.assembly.put(data);
                    }
                    Poll::Ready(Some(Err(_))) => return Some(Event::Cancelled(self.number)),
                    Poll::Ready(None) => {
                        self.has_ended = true;
                        return Some(if self.assembly.is_amid() {
                            Event::Broken(self.number, "the last message is cut short")
                        } else {
                            Event::Ended(self.number)
                        });
                    }
                },
            }
        }
    }
}
