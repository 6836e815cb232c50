//! What a stream has to send, and how far its peer takes it.

use std::task::Context;

use bytes::Bytes;
use h2::SendStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};

use crate::send_queue::SendQueue;

/// The answer to one call: messages, and what ends it.
pub struct Outgoing {
    respond: SendResponse<Bytes>,
    body: Option<SendStream<Bytes>>,
    pub queue: SendQueue,
    trailers: Option<HeaderMap>,
    /// Whether all that there will be was handed on.
    pub is_done: bool,
}

fn head() -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

impl Outgoing {
    pub fn new(respond: SendResponse<Bytes>) -> Self {
        Self { respond, body: None, queue: SendQueue::default(), trailers: None, is_done: false }
    }

    /// Has the call end with these trailers, after what was pushed.
    pub fn finish(&mut self, trailers: HeaderMap) {
        self.trailers.get_or_insert(trailers);
    }

    /// Hands on what the peer takes. Errors: the stream is gone.
    pub fn advance(&mut self, context: &mut Context<'_>) -> Result<(), h2::Error> {
        if self.is_done {
            return Ok(());
        }
        if self.body.is_none() && self.queue.is_empty() {
            // Nothing but the end: headers and trailers are one.
            let Some(trailers) = self.trailers.take() else { return Ok(()) };
            let mut response = head();
            response.headers_mut().extend(trailers);
            self.respond.send_response(response, true)?;
            self.is_done = true;
            return Ok(());
        }
        if self.body.is_none() {
            self.body = Some(self.respond.send_response(head(), false)?);
        }
        let Some(body) = &mut self.body else { return Ok(()) };
        if !self.queue.send(body, false, context)? {
            return Ok(());
        }
        if let Some(trailers) = self.trailers.take() {
            body.send_trailers(trailers)?;
            self.is_done = true;
        }
        Ok(())
    }

    /// Whether the peer has given the call up.
    pub fn was_reset(&mut self, context: &mut Context<'_>) -> bool {
        let reset = match &mut self.body {
            Some(body) => body.poll_reset(context),
            None => self.respond.poll_reset(context),
        };
        reset.is_ready()
    }
}
