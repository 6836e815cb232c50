//! Numbers and pieces out of the bytes of one run.

/// What is left of the input; behind its end there are zeros, and no pieces.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    #[must_use]
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.number::<1>() as u8
    }

    /// A number below `end`, which is 256 at most.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    /// A number of `N` bytes, little-endian.
    pub fn number<const N: usize>(&mut self) -> u64 {
        let piece = self.take(N);
        piece.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    /// The next `length` bytes, or as many as there are.
    pub fn take(&mut self, length: usize) -> &'a [u8] {
        let (piece, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        piece
    }

    /// A piece behind its length, of two bytes.
    pub fn piece(&mut self) -> &'a [u8] {
        let length = self.number::<2>() as usize;
        self.take(length)
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }
}
