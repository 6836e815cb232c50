//! What a stream has to send, and how far its peer takes it.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};

/// The answer to one call: messages, and what ends it.
pub struct Outgoing {
    respond: SendResponse<Bytes>,
    body: Option<SendStream<Bytes>>,
    pending: VecDeque<Bytes>,
    /// Bytes that the peer has not taken yet.
    pub pending_bytes: usize,
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
        Self {
            respond,
            body: None,
            pending: VecDeque::new(),
            pending_bytes: 0,
            trailers: None,
            is_done: false,
        }
    }

    /// Has some bytes sent after those before.
    pub fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.pending_bytes += data.len();
            self.pending.push_back(data);
        }
    }

    /// Has the call end with these trailers, after what was pushed.
    pub fn finish(&mut self, trailers: HeaderMap) {
        self.trailers.get_or_insert(trailers);
    }

    pub fn reset(&mut self, reason: Reason) {
        match &mut self.body {
            Some(body) => body.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
        self.is_done = true;
    }

    /// Hands on what the peer takes. Errors: the stream is gone.
    pub fn advance(&mut self, context: &mut Context<'_>) -> Result<(), h2::Error> {
        if self.is_done {
            return Ok(());
        }
        if self.body.is_none() && self.pending.is_empty() {
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
        self.send_pending(context)?;
        if self.pending.is_empty() {
            if let (Some(body), Some(trailers)) = (&mut self.body, self.trailers.take()) {
                body.send_trailers(trailers)?;
                self.is_done = true;
            }
        }
        Ok(())
    }

    fn send_pending(&mut self, context: &mut Context<'_>) -> Result<(), h2::Error> {
        let Some(body) = &mut self.body else { return Ok(()) };
        while let Some(first) = self.pending.front_mut() {
            body.reserve_capacity(self.pending_bytes);
            if body.capacity() == 0 {
                match body.poll_capacity(context) {
                    Poll::Ready(Some(granted)) => {
                        granted?;
                        continue;
                    }
                    Poll::Ready(None) => return Err(h2::Error::from(Reason::STREAM_CLOSED)),
                    Poll::Pending => return Ok(()),
                }
            }
            let count = first.len().min(body.capacity());
            let part = first.split_to(count);
            if first.is_empty() {
                self.pending.pop_front();
            }
            self.pending_bytes -= count;
            body.send_data(part, false)?;
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
