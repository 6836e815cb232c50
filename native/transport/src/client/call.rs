//! One call of a client.

use std::sync::{Arc, Condvar};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::Request;

use crate::assembly::{Assembly, Step, parts_of};
use crate::client::status::{Code, Status};
use crate::readiness::StreamWaker;
use crate::send_queue::SendQueue;

/// A sender that has so much under way is told when most of it has left.
const HIGH_WATER_BYTES: usize = 1 << 20;
const LOW_WATER_BYTES: usize = 256 << 10;

/// What a call has of its connection, as long as it is not over.
struct Stream {
    connection: usize,
    body: SendStream<Bytes>,
    response: Option<ResponseFuture>,
    replies: Option<RecvStream>,
}

/// A call. After whatever is called `advance` must be.
pub struct Call {
    pub request: Request<()>,
    /// Whether its one reply is told together with its end.
    is_unary: bool,
    /// When it is given up.
    pub deadline: Option<Instant>,
    /// Signalled when something is there for who waits for the call.
    pub news: Arc<Condvar>,
    pub waker: Arc<StreamWaker>,
    stream: Option<Stream>,
    queue: SendQueue,
    ends: bool,
    has_ended: bool,
    was_full: bool,
    has_room_news: bool,
    is_woken: bool,
    is_asked: bool,
    assembly: Assembly,
    message: Option<Vec<Bytes>>,
    /// Why its connection was lost.
    lost: Option<Status>,
    status: Option<Status>,
}

impl Call {
    /// A call that has no connection yet.
    pub fn new(
        request: Request<()>,
        is_unary: bool,
        deadline: Option<Instant>,
        waker: Arc<StreamWaker>,
    ) -> Self {
        Self {
            request,
            is_unary,
            deadline,
            news: Arc::default(),
            waker,
            stream: None,
            queue: SendQueue::default(),
            ends: false,
            has_ended: false,
            was_full: false,
            has_room_news: false,
            is_woken: false,
            is_asked: is_unary,
            assembly: Assembly::default(),
            message: None,
            lost: None,
            status: None,
        }
    }

    /// Gives it a stream of a connection.
    pub fn begin(&mut self, connection: usize, response: ResponseFuture, body: SendStream<Bytes>) {
        self.stream = Some(Stream { connection, body, response: Some(response), replies: None });
        self.waker.queue();
    }

    /// The connection that it has a stream of.
    pub fn connection(&self) -> Option<usize> {
        self.stream.as_ref().map(|stream| stream.connection)
    }

    /// Has a message sent, unless none is to follow. Returns the bytes that the peer has not taken; None: it is too long.
    pub fn send(&mut self, message: Bytes) -> Option<usize> {
        let parts = parts_of(message)?;
        if self.status.is_none() && !self.ends {
            for part in parts {
                self.queue.push(part);
            }
            self.waker.queue();
        }
        Some(self.queue.bytes())
    }

    /// Whether more should be sent. If not, that is news once it should be.
    pub fn has_room(&mut self) -> bool {
        self.was_full = self.queue.bytes() > HIGH_WATER_BYTES;
        !self.was_full
    }

    /// Sends nothing further.
    pub fn half_close(&mut self) {
        self.ends = true;
        self.waker.queue();
    }

    /// Asks for the next message, or for the end.
    pub fn ask(&mut self) {
        if self.message.is_none() && self.status.is_none() {
            self.is_asked = true;
            self.waker.queue();
        }
    }

    /// Takes the message that has come; that of a unary call, once its end has.
    pub fn take_message(&mut self) -> Option<Vec<Bytes>> {
        if self.is_unary && self.status.is_none() { None } else { self.message.take() }
    }

    /// Whether more can be sent again; once.
    pub fn take_room_news(&mut self) -> bool {
        std::mem::take(&mut self.has_room_news)
    }

    /// Has whoever waits for it, or will be the next to, not wait.
    pub fn wake(&mut self) {
        self.is_woken = true;
        self.news.notify_all();
    }

    /// Whether who waits for it is to stop; once.
    pub fn take_woken(&mut self) -> bool {
        std::mem::take(&mut self.is_woken)
    }

    /// How it has ended, if it has. What came before may still be there to be taken.
    pub fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    /// Says why the connection is gone that it has a stream of; what had come by then counts.
    pub fn lose(&mut self, status: &Status) {
        self.lost = Some(status.clone());
        self.waker.queue();
    }

    /// Ends it, unless it has ended. Returns the connection that it had a stream of.
    pub fn end(&mut self, status: Status) -> Option<usize> {
        if self.status.is_none() {
            if !matches!(status.code, code if code == Code::Ok as u32) {
                self.message = self.message.take().filter(|_| !self.is_unary);
            }
            self.status = Some(status);
        }
        self.queue.clear();
        self.has_room_news = false;
        let mut stream = self.stream.take()?;
        // Nothing is sent for one that has ended by itself.
        stream.body.send_reset(Reason::CANCEL);
        Some(stream.connection)
    }

    /// Goes on with whatever can. Returns whether there are news, and the connection of which it
    /// has no stream any more.
    pub fn advance(&mut self, limit: usize) -> (bool, Option<usize>) {
        self.waker.taken();
        if self.stream.is_none() || self.status.is_some() {
            return (false, None);
        }
        let waker = self.waker.waker();
        let mut context = Context::from_waker(&waker);
        self.send_queued(&mut context);
        let had_message = self.message.is_some();
        if let Err(status) = self.receive(&mut context, limit) {
            let connection = self.end(status);
            return (true, connection);
        }
        if self.was_full && self.queue.bytes() <= LOW_WATER_BYTES {
            (self.was_full, self.has_room_news) = (false, true);
        }
        let is_new = self.message.is_some() && !had_message && !self.is_unary;
        (is_new || self.has_room_news, None)
    }

    fn send_queued(&mut self, context: &mut Context<'_>) {
        let Some(stream) = &mut self.stream else { return };
        if self.has_ended {
            return;
        }
        let had_any = !self.queue.is_empty();
        match self.queue.send(&mut stream.body, self.ends, context) {
            Ok(true) if self.ends => {
                self.has_ended = had_any || stream.body.send_data(Bytes::new(), true).is_ok();
            }
            Ok(_) => {}
            Err(_) => {
                // The peer takes no more; how the call ends is told on the other side.
                self.queue.clear();
                self.has_ended = true;
            }
        }
    }

    /// Takes what came, as far as it is asked for. Errors: the call ends so.
    fn receive(&mut self, context: &mut Context<'_>, limit: usize) -> Result<(), Status> {
        while self.is_asked {
            match self.assembly.step() {
                Step::Whole(parts) => {
                    if self.message.replace(parts).is_some() {
                        return Err(Status::new(Code::Internal, "more than one reply has come"));
                    }
                    self.is_asked = self.is_unary;
                }
                Step::Declared(length) if length > limit => {
                    let details = format!("a message of {length} bytes, the limit is {limit}");
                    return Err(Status::new(Code::ResourceExhausted, details));
                }
                Step::Declared(_) => {}
                Step::Compressed => {
                    let details = "a message is compressed, which was not asked for";
                    return Err(Status::new(Code::Internal, details));
                }
                Step::More => match self.next_data(context) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Ok(data)) => self.assembly.put(data),
                    Poll::Ready(Err(status)) => return Err(status),
                },
            }
        }
        Ok(())
    }

    /// Takes the next bytes. Errors: there are none, as the call has ended so.
    fn next_data(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        let Some(stream) = &mut self.stream else { return Poll::Pending };
        if let Some(response) = &mut stream.response {
            let head = match std::pin::Pin::new(response).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(response)) => response,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.of_error(&error))),
            };
            stream.response = None;
            if let Some(status) = Status::of_head(head.status(), head.headers()) {
                return Poll::Ready(Err(status));
            }
            // One that has no messages may have its trailers in the place of its head.
            if let Some(status) = Status::of_trailers(head.headers()) {
                return Poll::Ready(Err(self.ended(status)));
            }
            stream.replies = Some(head.into_body());
        }
        let Some(replies) = &mut stream.replies else { return Poll::Pending };
        match replies.poll_data(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(data))) => {
                // The peer may send as much more.
                let _ = replies.flow_control().release_capacity(data.len());
                return Poll::Ready(Ok(data));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.of_error(&error))),
            Poll::Ready(None) => {}
        }
        let status = match replies.poll_trailers(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(trailers)) => trailers.and_then(|found| Status::of_trailers(&found)),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(self.of_error(&error))),
        };
        let status =
            status.unwrap_or_else(|| Status::new(Code::Internal, "it ends without a status"));
        Poll::Ready(Err(self.ended(status)))
    }

    /// What it ends with, if the peer says so.
    fn ended(&self, status: Status) -> Status {
        if status.code != Code::Ok as u32 {
            status
        } else if self.assembly.is_amid() {
            Status::new(Code::Internal, "the last message is cut short")
        } else if self.is_unary && self.message.is_none() {
            Status::new(Code::Internal, "it ends without a reply")
        } else {
            status
        }
    }

    fn of_error(&self, error: &h2::Error) -> Status {
        let is_of_stream = error.is_reset() && error.is_remote();
        self.lost.clone().filter(|_| !is_of_stream).unwrap_or_else(|| Status::of_error(error))
    }
}
