//! Puts messages together: each is a flag, four bytes of length (big-endian), and its content.

use bytes::{Buf, Bytes, BytesMut};

const PREFIX_BYTES: usize = 5;
/// Messages up to this length are copied behind their prefix.
const COPIED_BYTES: usize = 64 << 10;
/// Parts of messages up to this length are copied: a part keeps all that was read with it, and an
/// entry of a list.
const SMALL_PART_BYTES: usize = 4 << 10;

/// What is known after some more bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes are needed.
    More,
    /// A message begins that has this length.
    Declared(usize),
    /// A message is there, in these parts.
    Whole(Vec<Bytes>),
    /// A message is compressed, which no peer was told that it may be.
    Compressed,
}

/// A message that is coming, and what came behind it.
#[derive(Default)]
pub struct Assembly {
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    /// The length of the message, once its prefix is whole.
    length: Option<usize>,
    have: usize,
    parts: Vec<Bytes>,
    /// The last part, if it is one of small ones.
    tail: BytesMut,
    rest: Bytes,
    /// Whether nothing else was read with the rest.
    is_rest_own: bool,
}

impl Assembly {
    /// Whether bytes are left that `step` has not looked at.
    pub fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Whether a message has begun to come.
    pub fn is_amid(&self) -> bool {
        self.prefix_bytes > 0 || self.has_rest()
    }

    /// The bytes that were not looked at.
    pub fn rest_bytes(&self) -> usize {
        self.rest.len()
    }

    /// The bytes that there are of the message that is coming.
    pub fn have_bytes(&self) -> usize {
        self.have
    }

    /// Gives it more bytes; nothing may be left of those before.
    pub fn put(&mut self, data: Bytes) {
        debug_assert!(self.rest.is_empty());
        self.rest = data;
        self.is_rest_own = false;
    }

    /// Keeps the rest for some time, and nothing that was read with it.
    pub fn keep_rest(&mut self) {
        if !self.is_rest_own && self.has_rest() {
            self.rest = Bytes::copy_from_slice(&self.rest);
            self.is_rest_own = true;
        }
    }

    /// Looks at what it was given, up to the next thing that is known.
    pub fn step(&mut self) -> Step {
        let Some(length) = self.length else {
            return self.read_prefix();
        };
        let count = self.rest.len().min(length - self.have);
        if count > 0 {
            let part = self.rest.split_to(count);
            if count < length && count <= SMALL_PART_BYTES {
                self.tail.extend_from_slice(&part);
            } else {
                self.end_tail();
                self.parts.push(part);
            }
            self.have += count;
        }
        if self.have < length {
            return Step::More;
        }
        self.end_tail();
        (self.prefix_bytes, self.length, self.have) = (0, None, 0);
        Step::Whole(std::mem::take(&mut self.parts))
    }

    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            self.parts.push(std::mem::take(&mut self.tail).freeze());
        }
    }

    fn read_prefix(&mut self) -> Step {
        let count = self.rest.len().min(PREFIX_BYTES - self.prefix_bytes);
        let end = self.prefix_bytes + count;
        self.rest.copy_to_slice(&mut self.prefix[self.prefix_bytes..end]);
        self.prefix_bytes = end;
        if end < PREFIX_BYTES {
            return Step::More;
        }
        if self.prefix[0] != 0 {
            return Step::Compressed;
        }
        let [_, a, b, c, d] = self.prefix;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        self.length = Some(length);
        Step::Declared(length)
    }
}

/// A message as it is sent; None if it is too long for that.
///
/// Each part is a frame of HTTP/2 of its own, which costs more than the copy of a short message.
pub fn parts_of(message: Bytes) -> Option<Vec<Bytes>> {
    let prefix = prefix_of(message.len())?;
    if message.len() > COPIED_BYTES {
        return Some(vec![prefix, message]);
    }
    let mut joined = BytesMut::with_capacity(prefix.len() + message.len());
    joined.extend_from_slice(&prefix);
    joined.extend_from_slice(&message);
    Some(vec![joined.freeze()])
}

/// The prefix of a message that is sent.
fn prefix_of(length: usize) -> Option<Bytes> {
    let length = u32::try_from(length).ok()?;
    let mut prefix = [0; PREFIX_BYTES];
    prefix[1..].copy_from_slice(&length.to_be_bytes());
    Some(Bytes::copy_from_slice(&prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(messages: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for message in messages {
            out.extend_from_slice(&prefix_of(message.len()).unwrap());
            out.extend_from_slice(message);
        }
        out
    }

    #[test]
    fn messages_come_back_however_they_were_cut() {
        let messages: [&[u8]; 4] = [b"abc", b"", b"0123456789", b"x"];
        let all = encoded(&messages);
        for cut in 1..=all.len() {
            let mut assembly = Assembly::default();
            let mut found = Vec::new();
            for piece in all.chunks(cut) {
                assembly.put(Bytes::copy_from_slice(piece));
                loop {
                    match assembly.step() {
                        Step::Whole(parts) => found.push(parts.concat()),
                        Step::More => break,
                        Step::Declared(_) => {}
                        Step::Compressed => panic!("none is"),
                    }
                }
                assert!(!assembly.has_rest());
            }
            assert_eq!(found, messages);
            assert!(!assembly.is_amid());
        }
    }

    #[test]
    fn a_message_in_small_parts_is_one() {
        let content: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let mut assembly = Assembly::default();
        let mut cut = encoded(&[&content]);
        let mut pieces = vec![];
        for length in [1, 4, 7, SMALL_PART_BYTES, 1, 1, SMALL_PART_BYTES + 1] {
            let rest = cut.split_off(length);
            pieces.push(std::mem::replace(&mut cut, rest));
        }
        pieces.extend(cut.chunks(1000).map(<[u8]>::to_vec));
        let mut found = None;
        for piece in pieces {
            assembly.put(Bytes::from(piece));
            while let step @ (Step::Declared(_) | Step::Whole(_)) = assembly.step() {
                if let Step::Whole(parts) = step {
                    found = Some(parts);
                    break;
                }
            }
        }
        let parts = found.expect("it is whole");
        assert_eq!(parts.concat(), content);
        assert_eq!(parts.len(), 3, "small ones, a long one, and small ones");
    }

    #[test]
    fn what_is_kept_is_what_is_left() {
        let read = Bytes::from(encoded(&[&[7; 10], &[8; 20]]));
        let mut assembly = Assembly::default();
        assembly.put(read.clone());
        assert_eq!(assembly.step(), Step::Declared(10));
        assert!(matches!(assembly.step(), Step::Whole(_)));
        assert_eq!(assembly.rest_bytes(), 25);
        assembly.keep_rest();
        assert!(read.try_into_mut().is_ok(), "nobody has what was read any more");
        assembly.keep_rest();
        assert_eq!(assembly.step(), Step::Declared(20));
        assert_eq!(assembly.step(), Step::Whole(vec![Bytes::from(vec![8; 20])]));
        assert_eq!((assembly.rest_bytes(), assembly.have_bytes()), (0, 0));
    }

    #[test]
    fn a_compressed_message_is_told() {
        let mut assembly = Assembly::default();
        assembly.put(Bytes::from_static(b"\x01\0\0\0\x01x"));
        assert_eq!(assembly.step(), Step::Compressed);
    }
}
