//! The pages of a chunk in memory: see `Chunk` in
//! `cosco/shuffle_service/state/buffers/partition_buffer.py`.

use crate::chunk::CHUNK_HEADER_BYTES;
use crate::pool::{Page, PagePool, TooLittle, round_up};

/// Bytes of the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub offset: u64,
    pub length: u64,
}

/// A copy to make: bytes of a frame, from `source` on, to a span of the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub source: usize,
    pub target: Span,
}

/// Where a chunk is in memory. `length` counts its header, not its padding.
#[derive(Debug)]
pub struct ChunkPages {
    pub pages: Vec<Page>,
    pub capacity: u64,
    pub length: u64,
}

impl Default for ChunkPages {
    fn default() -> Self {
        Self { pages: Vec::new(), capacity: 0, length: CHUNK_HEADER_BYTES as u64 }
    }
}

impl ChunkPages {
    /// The bytes of pages to add before `length` bytes can be appended.
    #[must_use]
    pub fn room_needed(&self, length: u64) -> u64 {
        round_up((self.length + length).saturating_sub(self.capacity))
    }

    /// Adds pages of `need` bytes, 1 or more; `extra` more may be taken.
    pub fn grow(&mut self, pool: &mut PagePool, need: u64, extra: u64) -> Result<(), TooLittle> {
        // Doubling keeps the pages few; what it takes ahead is bounded by `extra`.
        let ahead = extra.min(self.capacity.saturating_sub(need)) / need * need;
        let first = self.pages.len();
        pool.allocate(need + ahead, &mut self.pages)?;
        self.capacity += self.pages[first..].iter().map(|page| page.size).sum::<u64>();
        Ok(())
    }

    /// Counts `length` bytes at the end, where there is room for them.
    ///
    /// The copies that bring them there, from `source` on, are added to `pieces`.
    pub fn append(&mut self, source: usize, length: u64, pieces: &mut Vec<Piece>) {
        let (start, mut source) = (self.length, source);
        self.length += length;
        for target in self.spans(start, self.length) {
            pieces.push(Piece { source, target });
            source += target.length as usize;
        }
    }

    /// Where bytes [start, end) of it are, page by page.
    pub fn spans(&self, start: u64, end: u64) -> impl Iterator<Item = Span> {
        // Appends go to the last pages, so the search begins at the end.
        let (mut first, mut base) = (self.pages.len(), self.capacity);
        while base > start && first > 0 {
            first -= 1;
            base -= self.pages[first].size;
        }
        self.pages[first..].iter().map_while(move |page| {
            if base >= end {
                return None;
            }
            let low = start.saturating_sub(base);
            let high = (end - base).min(page.size);
            base += page.size;
            Some(Span { offset: page.offset + low, length: high - low })
        })
    }

    /// Gives its pages back.
    pub fn release(&mut self, pool: &mut PagePool) {
        for page in self.pages.drain(..) {
            pool.free(page);
        }
        self.capacity = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::MAX_PAGE_BYTES;

    #[test]
    fn an_append_goes_to_as_many_pages_as_it_needs() {
        let mut pool = PagePool::new(MAX_PAGE_BYTES).unwrap();
        let (mut chunk, mut pieces) = (ChunkPages::default(), Vec::new());
        assert_eq!(chunk.room_needed(4032), 4096);
        assert_eq!(chunk.room_needed(4033), 8192);
        chunk.grow(&mut pool, 4096, 0).unwrap();
        chunk.grow(&mut pool, 4096, 4096).unwrap(); // there is nothing to double
        assert_eq!(chunk.capacity, 8192);
        chunk.append(100, 4000, &mut pieces);
        chunk.append(5000, 100, &mut pieces);
        let targets: Vec<_> = pieces.iter().map(|p| (p.source, p.target.length)).collect();
        assert_eq!(targets, [(100, 4000), (5000, 32), (5032, 68)]);
        let bytes: u64 = chunk.spans(64, chunk.length).map(|span| span.length).sum();
        assert_eq!(bytes, 4100);
        chunk.grow(&mut pool, 4096, 1 << 20).unwrap();
        assert_eq!(chunk.capacity, 16384); // doubled
        chunk.release(&mut pool);
        assert_eq!(pool.free_bytes(), MAX_PAGE_BYTES);
    }
}
