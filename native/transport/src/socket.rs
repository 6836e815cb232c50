//! A socket that never blocks, as h2 wants its transport.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::descriptors::Listed;
use crate::tls::Session;

/// Where the type of a frame is in its header.
const TYPE_AT: u64 = 3;
/// As many parts of one call as the kernel takes.
const MAX_PARTS: usize = 1024;
/// What stands in the place of a type that has not come yet.
const NOTHING: u8 = u8::MAX;
/// What TLS begins with: an alert, or a handshake. No frame of HTTP/2 that comes first does, as it
/// would be longer than a frame may be.
const OF_TLS: [u8; 2] = [0x15, 0x16];

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
    /// Whom the certificate of the peer is of, once that is known.
    peer_names: OnceLock<Vec<String>>,
    /// Why nothing can be said over it, if that is known for sure.
    trouble: OnceLock<String>,
}

impl Condition {
    pub(crate) fn new() -> Self {
        Self {
            received: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
            is_readable: AtomicBool::new(false),
            left: AtomicUsize::new(usize::MAX),
            first_type: AtomicU8::new(NOTHING),
            peer_names: OnceLock::new(),
            trouble: OnceLock::new(),
        }
    }

    /// Bytes that have come; those of a handshake do not count, as they may never end.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The type of the frame that came first, if frames are what comes; None if it has not come.
    pub fn first_type(&self) -> Option<u8> {
        Some(self.first_type.load(Ordering::Relaxed)).filter(|kind| *kind != NOTHING)
    }

    /// Whom the certificate of the peer is of that was verified: DNS names, URIs, IP addresses.
    pub fn peer_names(&self) -> &[String] {
        self.peer_names.get().map_or(&[], Vec::as_slice)
    }

    /// Whether there was a handshake of TLS, which is over.
    pub fn is_encrypted(&self) -> bool {
        self.peer_names.get().is_some()
    }

    /// Why nothing can be said over it, for people, if that is known for sure: it concerns TLS.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.get().map(String::as_str)
    }

    pub(crate) fn set_peer_names(&self, names: Vec<String>) {
        let _ = self.peer_names.set(names); // which is done once
    }

    pub(crate) fn set_trouble(&self, reason: impl Into<String>) {
        let _ = self.trouble.set(reason.into()); // the first one is the cause of others
    }

    /// Notes that so many bytes have come, and returns how many had before.
    pub(crate) fn add_received(&self, bytes: usize) -> u64 {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed)
    }

    /// Notes what was read for HTTP/2, of which so much had been before.
    pub(crate) fn note(&self, data: &[u8], before: u64) {
        let at = TYPE_AT.checked_sub(before);
        if let Some(kind) = at.and_then(|at| data.get(at as usize)) {
            self.first_type.store(*kind, Ordering::Relaxed);
        }
    }

    /// Whether the socket is to be read: there may be something, and that may be read.
    pub(crate) fn may_read(&self) -> bool {
        self.has_unread() && self.left.load(Ordering::Relaxed) > 0
    }

    /// Notes that the socket has nothing more.
    pub(crate) fn set_dry(&self) {
        self.is_readable.store(false, Ordering::Relaxed);
    }

    /// Notes that so much was read of what may be.
    pub(crate) fn spend(&self, bytes: usize) {
        let left = self.left.load(Ordering::Relaxed);
        if left < usize::MAX {
            self.left.store(left.saturating_sub(bytes), Ordering::Relaxed);
        }
    }

    pub(crate) fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
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

/// A connected stream socket, and what TLS there is on it. Nobody is woken: it is tried again when
/// its owner says so.
pub struct Socket {
    /// Goes first: a descriptor is taken off the list before it is closed.
    listed: Option<Listed>,
    stream: TcpStream,
    condition: Arc<Condition>,
    tls: Option<Box<Session>>,
}

impl Socket {
    /// Takes a socket, which carries TLS if there is a session of that.
    pub fn new(stream: TcpStream, tls: Option<Session>) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let condition = Arc::new(Condition::new());
        Ok(Self { listed: None, stream, condition, tls: tls.map(Box::new) })
    }

    /// As `new`, for a descriptor that a forked child closes.
    pub fn listed(stream: TcpStream, tls: Option<Session>) -> io::Result<Self> {
        let listed = Listed::new(stream.as_raw_fd());
        let mut socket = Self::new(stream, tls)?;
        socket.listed = listed;
        Ok(socket)
    }

    #[cfg(test)]
    pub(crate) fn session(&mut self) -> &mut Session {
        self.tls.as_mut().expect("TLS")
    }

    #[cfg(test)]
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn condition(&self) -> Arc<Condition> {
        Arc::clone(&self.condition)
    }

    fn written(&mut self, result: io::Result<usize>) -> Poll<io::Result<usize>> {
        let has_no_room = result.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        self.condition.set_full(has_no_room);
        if has_no_room { Poll::Pending } else { Poll::Ready(result) }
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
pub(crate) fn send(stream: &TcpStream, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: zeros are a message header without an address, without control data, without parts.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = parts.len().min(MAX_PARTS) as _;
    // SAFETY: the descriptor is open as long as the stream is there. `IoSlice` is by its documents
    // what the kernel takes as a part, there are as many, and none is written to.
    let sent = unsafe { libc::sendmsg(stream.as_raw_fd(), &message, libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Reads into `room` what there is. Returns how many bytes of it were filled, 0 at the end; None
/// if there is nothing now.
pub(crate) fn receive(
    stream: &TcpStream,
    room: &mut [MaybeUninit<u8>],
) -> io::Result<Option<usize>> {
    loop {
        // SAFETY: the descriptor is open as long as the stream is there, and the kernel writes at
        // most `room.len()` bytes to `room`.
        let count =
            unsafe { libc::recv(stream.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), 0) };
        if let Ok(count) = usize::try_from(count) {
            return Ok(Some(count));
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            ErrorKind::WouldBlock => return Ok(None),
            ErrorKind::Interrupted => {}
            _ => return Err(error),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let condition = &*this.condition;
        if let Some(session) = &mut this.tls {
            return session.read(&this.stream, condition, buffer);
        }
        if !condition.may_read() {
            return Poll::Pending;
        }
        // SAFETY: no byte of it is made uninitialized that was not: it is only given to `receive`.
        let room = unsafe { buffer.unfilled_mut() };
        let Some(count) = receive(&this.stream, room)? else {
            condition.set_dry();
            return Poll::Pending;
        };
        // SAFETY: the kernel has written this many bytes to where `room` begins.
        unsafe { buffer.assume_init(count) };
        let data = &buffer.initialized()[buffer.filled().len()..][..count];
        let before = condition.add_received(count);
        condition.note(data, before);
        if before == 0 && data.first().is_some_and(|first| OF_TLS.contains(first)) {
            condition.set_trouble("it speaks TLS, and this end does not");
        }
        buffer.advance(count);
        condition.spend(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.tls.is_some() {
            return self.poll_write_vectored(context, &[IoSlice::new(data)]);
        }
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
        if let Some(session) = &mut this.tls {
            return session.write(&this.stream, &this.condition, parts);
        }
        let result = send(&this.stream, parts);
        this.written(result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.tls {
            Some(session) => session.flush(&this.stream, &this.condition),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(session) = &mut this.tls {
            if session.end(&this.stream, &this.condition).is_pending() {
                return Poll::Pending;
            }
        }
        // A peer that is gone already needs not be told.
        let _ = this.stream.shutdown(Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}
