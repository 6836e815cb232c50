//! Bytes of one stream that its peer has not taken yet.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, SendStream};

/// What a stream has to send, in order.
#[derive(Default)]
pub struct SendQueue {
    parts: VecDeque<Bytes>,
    bytes: usize,
}

impl SendQueue {
    /// Has some bytes sent after those before.
    pub fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.bytes += data.len();
            self.parts.push_back(data);
        }
    }

    /// Bytes that are not handed on yet.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Forgets what was not handed on.
    pub fn clear(&mut self) {
        self.parts.clear();
        self.bytes = 0;
    }

    /// Hands on what the peer takes; `ends`: nothing follows what is in the queue, and `body` is to
    /// end with it. Returns whether all was handed on. Errors: the stream is gone.
    pub fn send(
        &mut self,
        body: &mut SendStream<Bytes>,
        ends: bool,
        context: &mut Context<'_>,
    ) -> Result<bool, h2::Error> {
        while let Some(first) = self.parts.front_mut() {
            body.reserve_capacity(self.bytes);
            if body.capacity() == 0 {
                match body.poll_capacity(context) {
                    Poll::Ready(Some(granted)) => {
                        granted?;
                        continue;
                    }
                    Poll::Ready(None) => return Err(h2::Error::from(Reason::STREAM_CLOSED)),
                    Poll::Pending => return Ok(false),
                }
            }
            let count = first.len().min(body.capacity());
            let part = first.split_to(count);
            if first.is_empty() {
                self.parts.pop_front();
            }
            self.bytes -= count;
            body.send_data(part, ends && self.parts.is_empty())?;
        }
        Ok(true)
    }
}
