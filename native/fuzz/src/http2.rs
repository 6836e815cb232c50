//! The other end of a connection, which says what it likes.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use crate::input::Input;

/// What a client begins with, in the place of a frame.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const SETTINGS: u8 = 4;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
/// A request for the method `/a/b`, as HPACK has it without its tables.
pub const REQUEST: &[u8] = b"\x83\x86\x04\x04/a/b\x01\x01h\x0f\x10\x10application/grpc";
/// The head of an answer, 200, and trailers that say that all is well, or not.
pub const ANSWER: &[u8] = b"\x88\x0f\x10\x10application/grpc";
pub const TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";
pub const FAILED: &[u8] = b"\x00\x0bgrpc-status\x0213";

/// The other end of a socket.
pub struct Peer(UnixStream);

impl Peer {
    /// Two ends of a connection, of which one is for what is tried.
    #[must_use]
    pub fn new() -> (TcpStream, Self) {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        theirs.set_nonblocking(true).expect("a socket");
        (TcpStream::from(OwnedFd::from(ours)), Self(theirs))
    }

    /// Sends bytes, as far as there is room for them.
    pub fn send(&mut self, data: &[u8]) {
        match self.0.write(data) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::BrokenPipe) => {
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads what has come.
    pub fn hear(&mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        let _ = self.0.read_to_end(&mut heard); // that there is nothing now is an error
        heard
    }

    /// Reads what has come, and forgets it. Returns how much it was.
    pub fn drain(&mut self) -> usize {
        let (mut room, mut total) = ([0; 16 << 10], 0);
        while let Ok(count @ 1..) = self.0.read(&mut room) {
            total += count;
        }
        total
    }
}

/// A frame of HTTP/2.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// A frame of any kind with a payload out of the input.
#[must_use]
pub fn any_frame(input: &mut Input<'_>) -> Vec<u8> {
    let (kind, flags, stream) = (input.byte(), input.byte(), input.byte());
    let length = usize::from(input.byte());
    frame(kind, flags, u32::from(stream), input.take(length))
}

/// The length of a message: just what is allowed, or a little more, or any.
#[must_use]
pub fn length_near(allowed: usize, input: &mut Input<'_>) -> u32 {
    match input.byte() % 4 {
        0 => 2 * input.number::<2>() as u32,
        more => allowed as u32 + u32::from(more) - 1,
    }
}

/// The beginning of a message of gRPC, and many bytes of it, in frames of 16 KiB.
#[must_use]
pub fn flood(stream: u32, length: u32, frames: usize) -> Vec<u8> {
    let mut prefix = vec![0];
    prefix.extend(length.to_be_bytes());
    let mut out = frame(DATA, 0, stream, &prefix);
    for _ in 0..frames {
        out.extend(frame(DATA, 0, stream, &[7; 16 << 10]));
    }
    out
}

/// What a server may say: whatever `step`, below `ANSWERS`, makes of the input.
#[must_use]
pub fn any_answer(step: u8, message_limit: usize, input: &mut Input<'_>) -> Vec<u8> {
    match step {
        0..=3 => any_frame(input),
        4 => input.piece().to_vec(),
        5 | 6 => frame(SETTINGS, input.byte() & 1, 0, &[]),
        7 => frame(HEADERS, END_HEADERS, u32::from(input.byte()), ANSWER),
        8 => {
            let (control, ends) = (input.byte(), END_HEADERS | END_STREAM);
            let trailers = if control < 128 { TRAILERS } else { FAILED };
            frame(HEADERS, ends, u32::from(control % 128), trailers)
        }
        _ => {
            let stream = u32::from(input.byte());
            let length = length_near(message_limit, input);
            flood(stream, length, input.below(4))
        }
    }
}

/// How many kinds of answers there are.
pub const ANSWERS: u8 = 10;
