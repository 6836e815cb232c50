//! A socket that never blocks, as h2 wants its transport.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::descriptors::Listed;

/// Where the type of a frame is in its header.
const TYPE_AT: u64 = 3;
/// As many parts of one call as the kernel takes.
const MAX_PARTS: usize = 1024;
/// What stands in the place of a type that has not come yet.
const NOTHING: u8 = u8::MAX;

/// What is known of a socket that h2 has; it does not give it back.
pub struct Condition {
    received: AtomicU64,
    is_full: AtomicBool,
    /// Whether there may be something to read, as far as is known.
    is_readable: AtomicBool,
    /// Bytes that may be read yet, until more are allowed.
    left: AtomicUsize,
    /// The type of the frame that came first, if frames are what comes.
    first_type: AtomicU8,
}

impl Condition {
    fn new() -> Self {
        Self {
            received: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
            is_readable: AtomicBool::new(false),
            left: AtomicUsize::new(usize::MAX),
            first_type: AtomicU8::new(NOTHING),
        }
    }

    /// Bytes that have come.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The type of the frame that came first, if frames are what comes; None if it has not come.
    pub fn first_type(&self) -> Option<u8> {
        Some(self.first_type.load(Ordering::Relaxed)).filter(|kind| *kind != NOTHING)
    }

    fn note(&self, data: &[u8]) {
        let before = self.received.fetch_add(data.len() as u64, Ordering::Relaxed);
        let at = TYPE_AT.checked_sub(before);
        if let Some(kind) = at.and_then(|at| data.get(at as usize)) {
            self.first_type.store(*kind, Ordering::Relaxed);
        }
    }

    /// Notes that there is something to read.
    pub fn set_readable(&self) {
        self.is_readable.store(true, Ordering::Relaxed);
    }

    /// Notes the same, and that about so many bytes may be read before this is called again.
    pub fn set_readable_up_to(&self, bytes: usize) {
        self.left.store(bytes, Ordering::Relaxed);
        self.set_readable();
    }

    /// Whether there may be something that was not read.
    pub fn has_unread(&self) -> bool {
        self.is_readable.load(Ordering::Relaxed)
    }

    /// Whether the last write found no room.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }
}

/// A connected stream socket. Nobody is woken: it is tried again when its owner says so.
pub struct Socket {
    /// Goes first: a descriptor is taken off the list before it is closed.
    listed: Option<Listed>,
    stream: TcpStream,
    condition: Arc<Condition>,
}

impl Socket {
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { listed: None, stream, condition: Arc::new(Condition::new()) })
    }

    /// As `new`, for a descriptor that a forked child closes.
    pub fn listed(stream: TcpStream) -> io::Result<Self> {
        let listed = Listed::new(stream.as_raw_fd());
        let mut socket = Self::new(stream)?;
        socket.listed = listed;
        Ok(socket)
    }

    pub fn condition(&self) -> Arc<Condition> {
        Arc::clone(&self.condition)
    }

    fn written(&mut self, result: io::Result<usize>) -> Poll<io::Result<usize>> {
        match result {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.condition.is_full.store(true, Ordering::Relaxed);
                Poll::Pending
            }
            other => {
                self.condition.is_full.store(false, Ordering::Relaxed);
                Poll::Ready(other)
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.listed.is_some() {
            // A child that was forked a moment ago may have it, too: the peer is told all the same.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
    }
}

/// Sends parts, one after the other; a peer that is gone is an error, and no signal.
fn send(stream: &TcpStream, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: zeros are a message header without an address, without control data, without parts.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = parts.len().min(MAX_PARTS) as _;
    // SAFETY: the descriptor is open as long as the stream is there. `IoSlice` is by its documents
    // what the kernel takes as a part, there are as many, and none is written to.
    let sent = unsafe { libc::sendmsg(stream.as_raw_fd(), &message, libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let left = this.condition.left.load(Ordering::Relaxed);
        if !this.condition.has_unread() || left == 0 {
            return Poll::Pending;
        }
        // SAFETY: no byte of it is made uninitialized that was not: it is only given to `recv`.
        let room = unsafe { buffer.unfilled_mut() };
        let count = loop {
            // SAFETY: the descriptor is open as long as the stream is there, and the kernel writes
            // at most `room.len()` bytes to `room`.
            let count = unsafe {
                libc::recv(this.stream.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), 0)
            };
            if let Ok(count) = usize::try_from(count) {
                break count;
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                ErrorKind::WouldBlock => {
                    this.condition.is_readable.store(false, Ordering::Relaxed);
                    return Poll::Pending;
                }
                ErrorKind::Interrupted => {}
                _ => return Poll::Ready(Err(error)),
            }
        };
        // SAFETY: the kernel has written this many bytes to where `room` begins.
        unsafe { buffer.assume_init(count) };
        this.condition.note(&buffer.initialized()[buffer.filled().len()..][..count]);
        buffer.advance(count);
        if left < usize::MAX {
            this.condition.left.store(left.saturating_sub(count), Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = this.stream.write(data);
        this.written(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = send(&this.stream, parts);
        this.written(result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A peer that is gone already needs not be told.
        let _ = self.stream.shutdown(Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}
