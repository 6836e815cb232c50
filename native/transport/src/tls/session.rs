//! TLS of one connection, between HTTP/2 and its socket.

use std::io::{self, BufRead, ErrorKind, IoSlice, Write};
use std::net::TcpStream;
use std::task::Poll;

use rustls::Connection;
use tokio::io::ReadBuf;

use super::settings::H2;
use super::{names, reasons};
use crate::socket::{Condition, receive, send};

/// As much is read of the socket at once. It is there only while something of it waits.
const READ_BYTES: usize = 64 << 10;
/// As much may wait to be sent: HTTP/2 has to keep what is beyond.
const UNSENT_BYTES: usize = 128 << 10;
/// With this much it is sent without waiting for more, which `flush` else ends.
const SEND_BYTES: usize = 64 << 10;
/// Types of records of TLS, of which one is the first byte.
const RECORDS: std::ops::RangeInclusive<u8> = 0x14..=0x17;

/// The session of a connection: what has come and was not deciphered, and what was enciphered and
/// has not gone. Both have bounds, of which rustls keeps those of the handshake.
pub struct Session {
    tls: Connection,
    /// What the socket gave; from `taken` on it is not deciphered yet.
    incoming: Vec<u8>,
    taken: usize,
    /// What was given to be sent since all of it had gone.
    unsent_bytes: usize,
    /// Bytes that HTTP/2 was given.
    read_bytes: u64,
    /// Whether any byte has come.
    has_heard: bool,
    /// Whether the socket has said that nothing follows.
    has_ended: bool,
    /// Whether the handshake is over, and all is well.
    is_open: bool,
    is_closing: bool,
}

impl Session {
    pub(super) fn new(mut tls: Connection) -> Self {
        tls.set_buffer_limit(Some(UNSENT_BYTES));
        Self {
            tls,
            incoming: Vec::new(),
            taken: 0,
            unsent_bytes: 0,
            read_bytes: 0,
            has_heard: false,
            has_ended: false,
            is_open: false,
            is_closing: false,
        }
    }

    /// Reads for HTTP/2 what has come, and answers what TLS wants to be answered.
    ///
    /// Of the socket as much is read as the condition allows; what was read of it before always comes,
    /// as nobody is told of that again.
    pub fn read(
        &mut self,
        stream: &TcpStream,
        condition: &Condition,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if let Err(error) = self.send(stream, condition) {
            return Poll::Ready(Err(self.lost(stream, condition, error)));
        }
        loop {
            let is_over = self.take_plain(condition, buffer)?;
            let has_some = buffer.filled().len() > before;
            if is_over || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if self.taken < self.incoming.len() {
                self.decipher(stream, condition)?;
            } else if has_some || self.has_ended && self.is_open {
                return Poll::Ready(Ok(()));
            } else if self.has_ended {
                let reason = "it hung up amid the handshake";
                return Poll::Ready(Err(self.fail(stream, condition, reason.into())));
            } else if !condition.may_read() || !self.fill(stream, condition)? {
                return Poll::Pending;
            }
        }
    }

    /// Takes what HTTP/2 has to send. Returns how much of it: it goes with the next `flush`.
    pub fn write(
        &mut self,
        stream: &TcpStream,
        condition: &Condition,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.unsent_bytes >= SEND_BYTES && self.flush(stream, condition)?.is_pending() {
            return Poll::Pending;
        }
        let count = self.tls.writer().write_vectored(parts)?;
        self.unsent_bytes += count;
        if count == 0 && parts.iter().any(|part| !part.is_empty()) {
            return Poll::Pending; // before the end of the handshake
        }
        Poll::Ready(Ok(count))
    }

    /// Sends what can be. Pending: the socket has no room for the rest.
    pub fn flush(&mut self, stream: &TcpStream, condition: &Condition) -> Poll<io::Result<()>> {
        match self.send(stream, condition) {
            Ok(()) if self.tls.wants_write() => Poll::Pending,
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(self.lost(stream, condition, error))),
        }
    }

    /// Says that nothing follows. Pending: not all could be sent.
    pub fn end(&mut self, stream: &TcpStream, condition: &Condition) -> Poll<()> {
        if !std::mem::replace(&mut self.is_closing, true) {
            self.tls.send_close_notify();
        }
        // A peer that is gone already needs not be told.
        self.flush(stream, condition).map(|_| ())
    }

    /// Gives HTTP/2 what was deciphered. Returns whether the peer has said that nothing follows.
    fn take_plain(&mut self, condition: &Condition, out: &mut ReadBuf<'_>) -> io::Result<bool> {
        let mut reader = self.tls.reader();
        while out.remaining() > 0 {
            let plain = match reader.fill_buf() {
                Ok([]) => return Ok(true),
                Ok(plain) => plain,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            let count = plain.len().min(out.remaining());
            condition.note(&plain[..count], self.read_bytes);
            out.put_slice(&plain[..count]);
            reader.consume(count);
            self.read_bytes += count as u64;
        }
        Ok(false)
    }

    /// Reads of the socket. Returns false if it has nothing now.
    fn fill(&mut self, stream: &TcpStream, condition: &Condition) -> io::Result<bool> {
        self.incoming.clear();
        self.taken = 0;
        self.incoming.reserve_exact(READ_BYTES);
        match receive(stream, self.incoming.spare_capacity_mut())? {
            None => {
                condition.set_dry();
                self.incoming = Vec::new();
                return Ok(false);
            }
            Some(0) => self.has_ended = true,
            Some(count) => {
                // SAFETY: the kernel has written this many bytes to where the vector's room begins.
                unsafe { self.incoming.set_len(count) };
                condition.spend(count);
                if self.is_open {
                    condition.add_received(count);
                }
            }
        }
        Ok(true)
    }

    /// Deciphers of what has come as much as brings HTTP/2 something, or all.
    fn decipher(&mut self, stream: &TcpStream, condition: &Condition) -> io::Result<()> {
        if !std::mem::replace(&mut self.has_heard, true) && !RECORDS.contains(&self.incoming[0]) {
            // For the alert that rustls makes of it.
            let _ = self.tls.read_tls(&mut &self.incoming[..]);
            let _ = self.tls.process_new_packets();
            let reason = "it does not speak TLS, and this end does";
            return Err(self.fail(stream, condition, reason.into()));
        }
        while let mut rest @ [_, ..] = &self.incoming[self.taken..] {
            match self.tls.read_tls(&mut rest) {
                // What is behind the end that the peer has said is nothing.
                Ok(0) => self.taken = self.incoming.len(),
                Ok(count) => self.taken += count,
                Err(error) => {
                    return Err(self.fail(stream, condition, format!("it breaks TLS: {error}")));
                }
            }
            let has_plain = match self.tls.process_new_packets() {
                Ok(state) => state.plaintext_bytes_to_read() > 0 || state.peer_has_closed(),
                Err(error) => {
                    return Err(self.fail(stream, condition, reasons::of_error(&error)));
                }
            };
            if !self.is_open && !self.tls.is_handshaking() {
                self.open(stream, condition)?;
            }
            if let Err(error) = self.send(stream, condition) {
                return Err(self.lost(stream, condition, error));
            }
            if has_plain {
                break;
            }
        }
        Ok(())
    }

    /// Looks at what the handshake has come to.
    fn open(&mut self, stream: &TcpStream, condition: &Condition) -> io::Result<()> {
        if self.tls.alpn_protocol() != Some(H2) {
            let reason = "it does not speak HTTP/2 (h2) within TLS";
            return Err(self.fail(stream, condition, reason.into()));
        }
        let first = self.tls.peer_certificates().and_then(<[_]>::first);
        condition.set_peer_names(first.map(|der| names::of_certificate(der)).unwrap_or_default());
        self.is_open = true;
        Ok(())
    }

    /// Sends what is enciphered, as far as the socket has room.
    fn send(&mut self, stream: &TcpStream, condition: &Condition) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Sending(stream)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    condition.set_full(true);
                    return Ok(());
                }
                Err(error) => {
                    condition.set_full(false);
                    return Err(error);
                }
            }
        }
        condition.set_full(false);
        self.unsent_bytes = 0;
        Ok(())
    }

    /// Gives up, and says why to both ends.
    fn fail(&mut self, stream: &TcpStream, condition: &Condition, reason: String) -> io::Error {
        let _ = self.send(stream, condition); // an alert, if it can be heard
        condition.set_trouble(reason.as_str());
        self.incoming = Vec::new();
        self.taken = 0;
        io::Error::new(ErrorKind::InvalidData, reason)
    }

    /// Why nothing can be sent any more: the peer may have said that before it hung up.
    fn lost(&mut self, stream: &TcpStream, condition: &Condition, error: io::Error) -> io::Error {
        if self.read_bytes > 0 || self.taken < self.incoming.len() {
            return error;
        }
        while let Ok(true) = self.fill(stream, condition) {
            let mut rest = &self.incoming[..];
            // rustls takes nothing behind the end that the peer has said.
            while !rest.is_empty() && matches!(self.tls.read_tls(&mut rest), Ok(1..)) {
                if let Err(said) = self.tls.process_new_packets() {
                    let reason = reasons::of_error(&said);
                    condition.set_trouble(reason.as_str());
                    return io::Error::new(ErrorKind::InvalidData, reason);
                }
            }
            if self.has_ended || !rest.is_empty() {
                break;
            }
        }
        error
    }
}

/// The socket, as rustls sends over it.
struct Sending<'a>(&'a TcpStream);

impl Write for Sending<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        send(self.0, &[IoSlice::new(data)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        send(self.0, parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
