//! Counts the rows of blocks on their way to a reader: see
//! `cosco/shuffle_service/state/buffers/section_rows.py`.

use crate::block::{HEADER_BYTES, MAGIC, MAX_CONTENT_BYTES};
use crate::little_endian::u32_at;

/// More than a section can have left.
const ALL: u64 = 1 << 62;

/// The rows of one section: whole blocks, one behind the other, which come cut anywhere.
pub struct SectionRows {
    /// Bytes of stored content that are still to come.
    skip: u64,
    /// The beginning of a header, of which `cut_bytes` are there.
    cut: [u8; HEADER_BYTES],
    cut_bytes: usize,
}

impl Default for SectionRows {
    fn default() -> Self {
        Self { skip: 0, cut: [0; HEADER_BYTES], cut_bytes: 0 }
    }
}

impl SectionRows {
    /// Takes what comes next of the section. Returns the rows that the headers name which end in
    /// it. From something on that is no block header there are none.
    pub fn feed(&mut self, mut data: &[u8]) -> u64 {
        let mut rows = 0;
        while self.skip < data.len() as u64 {
            data = &data[self.skip as usize..];
            self.skip = 0;
            let wanted = (HEADER_BYTES - self.cut_bytes).min(data.len());
            let (more, rest) = data.split_at(wanted);
            data = rest;
            if more.len() == HEADER_BYTES {
                rows += self.take(more); // nearly always: so there is no copy
                continue;
            }
            self.cut[self.cut_bytes..][..wanted].copy_from_slice(more);
            self.cut_bytes += wanted;
            if self.cut_bytes == HEADER_BYTES {
                self.cut_bytes = 0;
                let header = self.cut;
                rows += self.take(&header);
            }
        }
        self.skip -= data.len() as u64;
        rows
    }

    /// Notes how long the block of a header is. Returns its rows.
    fn take(&mut self, header: &[u8]) -> u64 {
        let stored_bytes = u32_at(header, 48);
        if &header[..4] != MAGIC || stored_bytes as usize > MAX_CONTENT_BYTES {
            self.skip = ALL;
            return 0;
        }
        self.skip = u64::from(stored_bytes);
        u64::from(u32_at(header, 40))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BlockHeader, CODEC_LZ4, append_block};
    use crate::lz4::Compressor;

    fn blocks() -> Vec<u8> {
        let mut out = Vec::new();
        for (rows, content) in [(3, &b"abc"[..]), (0, b""), (2_000_000_000, &[7; 900])] {
            let header = BlockHeader { rows, codec: CODEC_LZ4, ..Default::default() };
            append_block(&mut out, header, content, &mut Compressor::new());
        }
        out
    }

    #[test]
    fn rows_are_the_same_wherever_a_section_is_cut() {
        let data = blocks();
        for first in 0..=data.len() {
            for second in [first, (first + 1).min(data.len()), data.len()] {
                let mut rows = SectionRows::default();
                let found = rows.feed(&data[..first])
                    + rows.feed(&data[first..second])
                    + rows.feed(&data[second..]);
                assert_eq!(found, 2_000_000_003, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn what_is_no_header_ends_the_count() {
        let mut long = blocks();
        long[51] = 1; // of the first length, the highest byte
        let mut other = blocks();
        other[0] = b'X';
        for damaged in [long, other, vec![0; 200]] {
            let mut rows = SectionRows::default();
            assert_eq!(rows.feed(&damaged), 0);
            assert_eq!(rows.feed(&blocks()), 0);
        }
    }
}
