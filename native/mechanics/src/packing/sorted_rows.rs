//! Rows of bytes that are sorted by partition, and their blocks.

use crate::block::{FLAG_LENGTHS, LENGTH_BYTES, MAX_CONTENT_BYTES};
use crate::little_endian::u32_at;
use crate::packing::blocks::Contents;
use crate::packing::row_sorter::MAX_BLOCK_ROW_BYTES;

/// Rows of one partition that lie together behind the table of their lengths, as the content of a
/// block; `rows` 0: a row too long for a block, kept elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    partition: u32,
    rows: u32,
    /// Where the table begins.
    at: usize,
    /// The length of the rows, without the table.
    bytes: usize,
}

impl Piece {
    /// Rows that lie in the memory of `SortedRows`, from their table of lengths on.
    #[must_use]
    pub fn of_rows(partition: u32, rows: u32, at: usize, bytes: usize) -> Self {
        Self { partition, rows, at, bytes }
    }

    fn rows_at(&self) -> usize {
        self.at + LENGTH_BYTES * self.rows as usize
    }
}

/// How the rest of a partition that is longer than a block is cut.
#[derive(Default)]
struct Cuts {
    /// Where each row ends in one long content, its entry in the table of lengths counted.
    ends: Vec<u64>,
    /// The first row that is in no block yet.
    first: usize,
    /// Where its bytes are: in which piece, and how many bytes of that are in blocks already.
    piece: usize,
    taken: usize,
}

/// Rows sorted by partition, in the order in which they came.
#[derive(Default)]
pub struct SortedRows {
    memory: Vec<u8>,
    used: usize,
    pieces: Vec<Piece>,
    /// The first piece of the partition that comes next.
    next: usize,
    /// How that partition is cut, if it is longer than a block and was begun.
    cuts: Option<Cuts>,
}

impl SortedRows {
    /// Makes place for rows and their tables behind what is there. Returns where it begins.
    pub(super) fn make_room(&mut self, rows: usize, bytes: usize, limit: usize) -> usize {
        let start = self.used;
        self.used += LENGTH_BYTES * rows + bytes;
        if self.memory.is_empty() {
            // Memory that the kernel clears when it is touched, and that is not cleared again.
            self.memory = vec![0; limit.max(self.used)];
        } else if self.memory.len() < self.used {
            self.memory.resize(self.used, 0);
        }
        start
    }

    pub(super) fn memory(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    pub(super) fn push(&mut self, piece: Piece) {
        self.pieces.push(piece);
    }

    /// Adds rows of one partition.
    pub(super) fn push_rows(&mut self, partition: u32, lengths: &[u32], rows: &[u8], limit: usize) {
        if lengths.is_empty() {
            return;
        }
        let at = self.make_room(lengths.len(), rows.len(), limit);
        let piece = Piece::of_rows(partition, lengths.len() as u32, at, rows.len());
        let (table, target) = self.memory[at..self.used].split_at_mut(piece.rows_at() - at);
        for (entry, length) in table.chunks_exact_mut(LENGTH_BYTES).zip(lengths) {
            entry.copy_from_slice(&length.to_le_bytes());
        }
        target.copy_from_slice(rows);
        self.push(piece);
    }

    /// Adds the place of a row that is too long for a block.
    pub(super) fn push_long_row(&mut self, partition: u32, bytes: usize) {
        self.push(Piece::of_rows(partition, 0, 0, bytes));
    }

    pub(super) fn is_without_memory(&self) -> bool {
        self.memory.is_empty() && self.pieces.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.used = 0;
        self.pieces.clear();
        self.next = 0;
        self.cuts = None;
    }

    /// Brings the pieces into the order of partitions.
    pub(super) fn begin(&mut self) {
        // Stable, so that the pieces of a partition stay in their order.
        self.pieces.sort_by_key(|piece| piece.partition);
    }

    /// Passes the next row, if it is too long for a block. Returns whether it is.
    pub fn skip_long_row(&mut self) -> bool {
        let Some(mut cuts) = self.cuts.take() else { return false };
        let end = cuts.next_end();
        let is_long = cuts.is_long_row(end);
        if is_long {
            // Pieces of rows without bytes may lie before it.
            while self.pieces[cuts.piece].rows > 0 {
                cuts.piece += 1;
            }
            cuts.piece += 1;
            self.go_on(cuts, end);
        } else {
            self.cuts = Some(cuts);
        }
        is_long
    }

    fn join(&self, first: usize, count: usize, content: &mut Vec<u8>) {
        let pieces = &self.pieces[first..first + count];
        content.clear();
        for piece in pieces {
            content.extend_from_slice(&self.memory[piece.at..piece.rows_at()]);
        }
        for piece in pieces {
            let start = piece.rows_at();
            content.extend_from_slice(&self.memory[start..start + piece.bytes]);
        }
    }

    fn begin_cuts(&self, count: usize, rows: usize) -> Cuts {
        let mut ends = Vec::with_capacity(rows);
        let mut end = 0;
        for piece in &self.pieces[self.next..self.next + count] {
            if piece.rows == 0 {
                end += (piece.bytes + LENGTH_BYTES) as u64;
                ends.push(end);
            }
            for row in 0..piece.rows as usize {
                let length = u32_at(&self.memory, piece.at + LENGTH_BYTES * row);
                end += u64::from(length) + LENGTH_BYTES as u64;
                ends.push(end);
            }
        }
        Cuts { ends, first: 0, piece: self.next, taken: 0 }
    }

    /// Writes the content of a block with the rows up to `end`.
    fn gather(&self, cuts: &mut Cuts, end: usize, content: &mut Vec<u8>) {
        content.clear();
        let mut bytes = 0;
        for row in cuts.first..end {
            let length = cuts.length(row);
            bytes += length;
            content.extend_from_slice(&(length as u32).to_le_bytes());
        }
        while bytes > 0 {
            let piece = &self.pieces[cuts.piece];
            let part = bytes.min(piece.bytes - cuts.taken);
            let start = piece.rows_at() + cuts.taken;
            content.extend_from_slice(&self.memory[start..start + part]);
            bytes -= part;
            cuts.taken += part;
            if cuts.taken == piece.bytes {
                cuts.piece += 1;
                cuts.taken = 0;
            }
        }
    }

    fn go_on(&mut self, mut cuts: Cuts, end: usize) {
        cuts.first = end;
        if end < cuts.ends.len() {
            self.cuts = Some(cuts);
            return;
        }
        let partition = self.partition();
        while partition.is_some() && self.partition() == partition {
            self.next += 1;
        }
    }
}

impl Contents for SortedRows {
    const FLAGS: u8 = FLAG_LENGTHS;

    fn partition(&self) -> Option<u32> {
        self.pieces.get(self.next).map(|piece| piece.partition)
    }

    fn next_block<'a>(&'a mut self, content: &'a mut Vec<u8>) -> Option<(u32, &'a [u8])> {
        if self.cuts.is_none() {
            let (first, partition) = (self.next, self.partition()?);
            let rest = &self.pieces[first..];
            let count = rest.iter().take_while(|piece| piece.partition == partition).count();
            let pieces = &rest[..count];
            let rows: usize = pieces.iter().map(|piece| piece.rows.max(1) as usize).sum();
            let bytes: usize = pieces.iter().map(|piece| piece.bytes).sum();
            let length = rows * LENGTH_BYTES + bytes;
            if length <= MAX_CONTENT_BYTES {
                self.next += count;
                if count == 1 {
                    let at = self.pieces[first].at;
                    return Some((rows as u32, &self.memory[at..at + length]));
                }
                self.join(first, count, content);
                return Some((rows as u32, content));
            }
            self.cuts = Some(self.begin_cuts(count, rows));
        }
        let mut cuts = self.cuts.take()?;
        let end = cuts.next_end();
        if cuts.is_long_row(end) {
            self.cuts = Some(cuts);
            return None;
        }
        let rows = (end - cuts.first) as u32;
        self.gather(&mut cuts, end, content);
        self.go_on(cuts, end);
        Some((rows, content))
    }
}

impl Cuts {
    fn base(&self) -> u64 {
        if self.first == 0 { 0 } else { self.ends[self.first - 1] }
    }

    /// The bytes of a row.
    fn length(&self, row: usize) -> usize {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        (self.ends[row] - start) as usize - LENGTH_BYTES
    }

    /// Where the next block ends: `cosco.client.content.byte_rows.block_cuts` says how.
    fn next_end(&self) -> usize {
        let (base, count) = (self.base(), self.ends.len());
        let rest = self.ends[count - 1] - base;
        let most = MAX_CONTENT_BYTES as u64;
        if rest <= most {
            return count;
        }
        let target = base + rest.div_ceil(rest.div_ceil(most));
        let end = self.ends.partition_point(|&one| one < target) + 1;
        if end - self.first > 1 && self.ends[end - 1] - base > most { end - 1 } else { end }
    }

    fn is_long_row(&self, end: usize) -> bool {
        end - self.first == 1 && self.length(self.first) > MAX_BLOCK_ROW_BYTES
    }
}
