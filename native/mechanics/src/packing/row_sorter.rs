//! Rows of bytes, sorted by partition as they come.
//!
//! Rows gather in a sort buffer that stays in the cache; a full one is sorted by partition to the
//! end of one large array. Rows of a long run are sorted where they lie, a sort buffer of them at a
//! time, without being copied before.

use crate::block::{LENGTH_BYTES, MAX_CONTENT_BYTES};
use crate::packing::integers::Integers;
use crate::packing::misuse::Misuse;
use crate::packing::sorted_rows::{Piece, SortedRows};

/// A longer row is cut into fragments.
pub const MAX_BLOCK_ROW_BYTES: usize = MAX_CONTENT_BYTES - LENGTH_BYTES;
/// A sort buffer of this length stays in a cache.
const MIN_SORT_BUFFER_BYTES: usize = 4 << 20;
/// With many partitions it is longer, by this for each, as every piece costs something.
const PIECE_BYTES: usize = 4 << 10;

/// Rows one after another: row i is `data[offsets[i]..offsets[i + 1]]`.
#[derive(Clone, Copy)]
pub struct RowRun<'a> {
    pub offsets: Integers<'a>,
    pub data: &'a [u8],
}

impl RowRun<'_> {
    fn rows(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    fn offset(&self, row: usize) -> usize {
        self.offsets.at(row) as usize
    }
}

#[derive(Clone, Copy, Default)]
struct Target {
    rows: u32,
    bytes: usize,
}

#[derive(Clone, Copy, Default)]
struct Cursor {
    table: usize,
    rows: usize,
}

/// Sorts rows by partition; those of a partition keep their order.
pub struct RowSorter {
    sort_buffer_bytes: usize,
    limit: usize,
    /// Rows as they came, one behind the other.
    unsorted: Vec<u8>,
    unsorted_bytes: usize,
    /// The partition and the length of each of those.
    row_partitions: Vec<u32>,
    lengths: Vec<u32>,
    /// How many rows those are: of a batch that is being added more may be noted.
    unsorted_rows: usize,
    sorted: SortedRows,
    targets: Vec<Target>,
    cursors: Vec<Cursor>,
}

impl RowSorter {
    /// Begins empty. `limit`: about how many bytes of rows are added between two drains.
    #[must_use]
    pub fn new(partitions: usize, limit: usize) -> Self {
        Self {
            sort_buffer_bytes: sort_buffer_bytes(partitions, limit),
            limit,
            unsorted: Vec::new(),
            unsorted_bytes: 0,
            row_partitions: Vec::new(),
            lengths: Vec::new(),
            unsorted_rows: 0,
            sorted: SortedRows::default(),
            targets: vec![Target::default(); partitions],
            cursors: vec![Cursor::default(); partitions],
        }
    }

    /// Begins anew, empty, with the same memory.
    pub fn reset(&mut self, partitions: usize, limit: usize) {
        self.sort_buffer_bytes = sort_buffer_bytes(partitions, limit);
        self.limit = limit;
        self.unsorted_bytes = 0;
        self.row_partitions.clear();
        self.lengths.clear();
        self.unsorted_rows = 0;
        self.sorted.clear();
        self.targets = vec![Target::default(); partitions];
        self.cursors = vec![Cursor::default(); partitions];
    }

    /// Copies rows behind those of their partitions.
    ///
    /// Returns the indices of rows that are too long for a block, in order: their bytes are not
    /// copied, only their places are kept. After a misuse some rows may have been added.
    pub fn append(
        &mut self,
        row_partitions: Integers<'_>,
        run: RowRun<'_>,
    ) -> Result<Vec<usize>, Misuse> {
        let result = self.append_run(row_partitions, run);
        self.forget_misused(result.is_err());
        result
    }

    fn append_run(
        &mut self,
        row_partitions: Integers<'_>,
        run: RowRun<'_>,
    ) -> Result<Vec<usize>, Misuse> {
        let (mut first, count) = (0, run.rows());
        if row_partitions.len() != count {
            return Err(Misuse::Count);
        }
        let mut long_rows = Vec::new();
        while first < count {
            let rest = run.offset(count).saturating_sub(run.offset(first));
            let is_direct = self.row_partitions.is_empty() && rest > self.sort_buffer_bytes / 2;
            let room = self.sort_buffer_bytes - self.unsorted_bytes;
            let end = self.read_lengths(run, first, if is_direct { usize::MAX } else { room })?;
            self.read_partitions(row_partitions, first, end)?;
            let rows = run.data.get(run.offset(first)..run.offset(end)).ok_or(Misuse::Offsets)?;
            if is_direct {
                self.sort(rows);
            } else if end > first {
                self.gather(rows);
            }
            if end == count {
                break;
            }
            self.sort_gathered();
            if end == first {
                self.append_oversized(row_partitions, run, first, &mut long_rows)?;
                first += 1;
            } else {
                first = end;
            }
        }
        Ok(long_rows)
    }

    /// Copies a few rows that lie apart behind those of their partitions.
    ///
    /// Returns false, and adds nothing, if one is too long for a block, or all together for a sort
    /// buffer.
    pub fn append_rows<'a, Rows>(
        &mut self,
        row_partitions: &[u32],
        rows: Rows,
    ) -> Result<bool, Misuse>
    where
        Rows: ExactSizeIterator<Item = &'a [u8]> + Clone,
    {
        if row_partitions.len() != rows.len() {
            return Err(Misuse::Count);
        }
        let partitions = self.targets.len();
        if row_partitions.iter().any(|&one| one as usize >= partitions) {
            return Err(Misuse::Partition);
        }
        let mut bytes = 0;
        for row in rows.clone() {
            bytes += row.len();
            if row.len() > MAX_BLOCK_ROW_BYTES || bytes > self.sort_buffer_bytes {
                return Ok(false);
            }
        }
        if self.unsorted_bytes + bytes > self.sort_buffer_bytes {
            self.sort_gathered();
        }
        self.row_partitions.extend_from_slice(row_partitions);
        for row in rows {
            self.lengths.push(row.len() as u32);
            self.gather(row);
        }
        Ok(true)
    }

    /// Copies rows behind those of their one partition. Returns what `append` does.
    pub fn append_sorted(&mut self, partition: u32, run: RowRun<'_>) -> Result<Vec<usize>, Misuse> {
        let result = self.append_sorted_run(partition, run);
        self.forget_misused(result.is_err());
        result
    }

    fn append_sorted_run(&mut self, partition: u32, run: RowRun<'_>) -> Result<Vec<usize>, Misuse> {
        self.sort_gathered(); // some of it may be for this partition, and come before
        if partition as usize >= self.targets.len() {
            return Err(Misuse::Partition);
        }
        let (mut first, count) = (0, run.rows());
        let mut long_rows = Vec::new();
        while first < count {
            let end = self.read_lengths(run, first, usize::MAX)?;
            let rows = run.data.get(run.offset(first)..run.offset(end)).ok_or(Misuse::Offsets)?;
            self.sorted.push_rows(partition, &self.lengths, rows, self.limit);
            self.lengths.clear();
            first = end;
            if first < count {
                long_rows.push(first);
                let length = run.offset(first + 1) - run.offset(first);
                self.sorted.push_long_row(partition, length);
                first += 1;
            }
        }
        Ok(long_rows)
    }

    /// Forgets what was noted of rows that were not added: the next ones would be taken for these.
    fn forget_misused(&mut self, was_misused: bool) {
        if was_misused {
            self.row_partitions.truncate(self.unsorted_rows);
            self.lengths.truncate(self.unsorted_rows);
        }
    }

    /// Removes all rows. Returns them, sorted.
    pub fn drain(&mut self) -> SortedRows {
        self.sort_gathered();
        let mut rows = std::mem::take(&mut self.sorted);
        rows.begin();
        rows
    }

    /// Takes the memory of drained rows back, if it has none itself.
    pub fn reuse(&mut self, mut rows: SortedRows) {
        if self.sorted.is_without_memory() {
            rows.clear();
            self.sorted = rows;
        }
    }

    /// Adds the lengths of as many rows from `first` on as have at most `room` bytes together, and
    /// of none that is too long for a block. Returns where it ended.
    fn read_lengths(
        &mut self,
        run: RowRun<'_>,
        first: usize,
        room: usize,
    ) -> Result<usize, Misuse> {
        let start = run.offset(first) as u64;
        let (most, length_of_data) = (start.saturating_add(room as u64), run.data.len() as u64);
        let lengths = &mut self.lengths;
        let before = lengths.len();
        let (mut last, mut is_wrong) = (start, false);
        run.offsets.each(first + 1, run.rows() + 1, |end| {
            let length = end.wrapping_sub(last);
            // Also if it ends before it begins, or beyond the data.
            if length > MAX_BLOCK_ROW_BYTES as u64 || end > most {
                is_wrong = end < last || end > length_of_data;
                return false;
            }
            lengths.push(length as u32);
            last = end;
            true
        });
        if is_wrong || last > length_of_data {
            return Err(Misuse::Offsets);
        }
        Ok(first + self.lengths.len() - before)
    }

    fn read_partitions(
        &mut self,
        row_partitions: Integers<'_>,
        first: usize,
        end: usize,
    ) -> Result<(), Misuse> {
        let partitions = self.targets.len() as u64;
        let mut is_wrong = false;
        let found = &mut self.row_partitions;
        row_partitions.each(first, end, |one| {
            is_wrong |= one >= partitions;
            found.push(one as u32);
            true
        });
        if is_wrong { Err(Misuse::Partition) } else { Ok(()) }
    }

    fn gather(&mut self, rows: &[u8]) {
        let end = self.unsorted_bytes + rows.len();
        if self.unsorted.is_empty() {
            // Memory that the kernel clears when it is touched: a few rows touch little of it.
            self.unsorted = vec![0; end.max(self.sort_buffer_bytes)];
        } else if self.unsorted.len() < end {
            self.unsorted.resize(end, 0);
        }
        self.unsorted[self.unsorted_bytes..end].copy_from_slice(rows);
        self.unsorted_bytes = end;
        self.unsorted_rows = self.lengths.len();
    }

    fn sort_gathered(&mut self) {
        if self.row_partitions.is_empty() {
            return;
        }
        let unsorted = std::mem::take(&mut self.unsorted);
        self.sort(&unsorted[..self.unsorted_bytes]);
        self.unsorted = unsorted;
        self.unsorted_bytes = 0;
    }

    /// Appends the rows in `data`, of which partitions and lengths are known, to their partitions.
    fn sort(&mut self, data: &[u8]) {
        self.targets.fill(Target::default());
        for (&partition, &length) in self.row_partitions.iter().zip(&self.lengths) {
            let target = &mut self.targets[partition as usize];
            target.rows += 1;
            target.bytes += length as usize;
        }
        let mut at = self.sorted.make_room(self.lengths.len(), data.len(), self.limit);
        for (partition, target) in self.targets.iter().enumerate() {
            if target.rows == 0 {
                continue;
            }
            let rows_at = at + LENGTH_BYTES * target.rows as usize;
            self.cursors[partition] = Cursor { table: at, rows: rows_at };
            self.sorted.push(Piece::of_rows(partition as u32, target.rows, at, target.bytes));
            at = rows_at + target.bytes;
        }
        let memory = self.sorted.memory();
        let mut from = 0;
        for (&partition, &length) in self.row_partitions.iter().zip(&self.lengths) {
            let cursor = &mut self.cursors[partition as usize];
            let (end, bytes) = (from + length as usize, length as usize);
            memory[cursor.table..cursor.table + LENGTH_BYTES]
                .copy_from_slice(&length.to_le_bytes());
            memory[cursor.rows..cursor.rows + bytes].copy_from_slice(&data[from..end]);
            cursor.table += LENGTH_BYTES;
            cursor.rows += bytes;
            from = end;
        }
        self.row_partitions.clear();
        self.lengths.clear();
        self.unsorted_rows = 0;
    }

    /// Adds a row that is longer than a sort buffer.
    fn append_oversized(
        &mut self,
        row_partitions: Integers<'_>,
        run: RowRun<'_>,
        row: usize,
        long_rows: &mut Vec<usize>,
    ) -> Result<(), Misuse> {
        self.read_partitions(row_partitions, row, row + 1)?;
        let partition = self.row_partitions[0];
        self.row_partitions.clear();
        let rows = run.data.get(run.offset(row)..run.offset(row + 1)).ok_or(Misuse::Offsets)?;
        if rows.len() > MAX_BLOCK_ROW_BYTES {
            long_rows.push(row);
            self.sorted.push_long_row(partition, rows.len());
        } else {
            self.sorted.push_rows(partition, &[rows.len() as u32], rows, self.limit);
        }
        Ok(())
    }
}

fn sort_buffer_bytes(partitions: usize, limit: usize) -> usize {
    limit.min(MIN_SORT_BUFFER_BYTES.max(partitions.saturating_mul(PIECE_BYTES)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packing::blocks::Contents;

    const LONG: usize = MAX_BLOCK_ROW_BYTES + 1;

    fn offsets(ends: &[usize]) -> Vec<u8> {
        ends.iter().flat_map(|&end| (end as u64).to_ne_bytes()).collect()
    }

    /// Takes the next block. Returns how many rows it has.
    fn taken(rows: &mut SortedRows, content: &mut Vec<u8>) -> Option<u32> {
        let mut scratch = Vec::new();
        let (count, found) = rows.next_block(&mut scratch)?;
        found.clone_into(content);
        Some(count)
    }

    fn append(sorter: &mut RowSorter, partitions: &[u8], rows: &[&[u8]]) -> Vec<usize> {
        let ends: Vec<usize> = (0..=rows.len()).map(|n| rows[..n].concat().len()).collect();
        let (ends, data) = (offsets(&ends), rows.concat());
        let run = RowRun { offsets: Integers::new(&ends, 8).unwrap(), data: &data };
        sorter.append(Integers::new(partitions, 1).unwrap(), run).unwrap()
    }

    #[test]
    fn rows_come_sorted_and_in_order() {
        // Rows of one byte are sorted one by one with the least limit, else all at once.
        for limit in [1, 5, 1000] {
            let mut sorter = RowSorter::new(3, limit);
            for _ in 0..2 {
                assert_eq!(append(&mut sorter, &[2, 0, 2, 2], &[b"a", b"bb", b"", b"d"]), []);
            }
            let mut rows = sorter.drain();
            let mut content = Vec::new();
            assert_eq!(rows.partition(), Some(0));
            assert_eq!(taken(&mut rows, &mut content), Some(2));
            assert_eq!(content, b"\x02\0\0\0\x02\0\0\0bbbb");
            assert_eq!(rows.partition(), Some(2));
            assert_eq!(taken(&mut rows, &mut content), Some(6));
            assert_eq!(&content[24..], b"adad");
            assert_eq!(rows.partition(), None);
            sorter.reuse(rows);
        }
    }

    #[test]
    fn rows_that_lie_apart_come_as_those_that_lie_together() {
        let rows: [&[u8]; 4] = [b"a", b"bb", b"", b"d"];
        for limit in [5, 1000] {
            let mut sorter = RowSorter::new(3, limit);
            for _ in 0..2 {
                assert_eq!(sorter.append_rows(&[2, 0, 2, 2], rows.into_iter()), Ok(true));
                assert_eq!(append(&mut sorter, &[2, 0, 2, 2], &rows), []);
            }
            let mut rows = sorter.drain();
            let mut content = Vec::new();
            assert_eq!(taken(&mut rows, &mut content), Some(4));
            assert_eq!(content[16..], *b"bbbbbbbb");
            assert_eq!(taken(&mut rows, &mut content), Some(12));
            assert_eq!(&content[48..], b"adadadad");
        }
    }

    #[test]
    fn rows_that_are_too_many_or_too_long_are_not_added() {
        let long = vec![b'x'; LONG];
        let mut sorter = RowSorter::new(2, 2 * LONG);
        assert_eq!(sorter.append_rows(&[0, 1], [b"a".as_slice(), &long].into_iter()), Ok(false));
        let fits = &long[..LONG - 1];
        assert_eq!(sorter.append_rows(&[0; 3], [fits, fits, fits].into_iter()), Ok(false));
        assert_eq!(sorter.append_rows(&[2], [fits].into_iter()), Err(Misuse::Partition));
        assert_eq!(sorter.append_rows(&[0; 3], [fits].into_iter()), Err(Misuse::Count));
        assert_eq!(sorter.drain().partition(), None);
    }

    #[test]
    fn a_long_row_is_left_to_the_caller_in_its_place() {
        let long = vec![b'x'; LONG];
        let mut sorter = RowSorter::new(2, 8 << 20);
        assert_eq!(append(&mut sorter, &[1, 1, 1, 0], &[b"", &long, b"a", b"b"]), [1]);
        let mut rows = sorter.drain();
        let mut content = Vec::new();
        assert!(!rows.skip_long_row());
        assert_eq!(taken(&mut rows, &mut content), Some(1));
        assert_eq!(content, b"\x01\0\0\0b");
        assert_eq!(taken(&mut rows, &mut content), Some(1));
        assert_eq!(content, b"\0\0\0\0");
        assert_eq!(taken(&mut rows, &mut content), None);
        assert_eq!(rows.partition(), Some(1));
        assert!(rows.skip_long_row());
        assert_eq!(taken(&mut rows, &mut content), Some(1));
        assert_eq!(content, b"\x01\0\0\0a");
        assert_eq!(rows.partition(), None);
    }

    #[test]
    fn many_rows_of_a_partition_are_cut_into_blocks_of_about_one_length() {
        let row = [b'r'; 1000];
        let mut sorter = RowSorter::new(1, 8 << 20);
        for _ in 0..3 {
            append(&mut sorter, &[0; 700], &[&row[..]; 700]);
        }
        let mut rows = sorter.drain();
        let mut content = Vec::new();
        let mut counts = Vec::new();
        while let Some(count) = taken(&mut rows, &mut content) {
            assert_eq!(content.len(), count as usize * 1004);
            counts.push(count);
        }
        assert_eq!(counts, [700, 700, 700]);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let data = b"abc";
        let partitions = Integers::new(&[0, 1], 1).unwrap();
        for (ends, expected) in [
            (vec![0, 2, 1], Misuse::Offsets),
            (vec![0, 2, 4], Misuse::Offsets),
            (vec![5, 6, 7], Misuse::Offsets),
            (vec![0, 1, 2, 3], Misuse::Count),
            (vec![0, 1, 2], Misuse::Partition),
        ] {
            let ends = offsets(&ends);
            let run = RowRun { offsets: Integers::new(&ends, 8).unwrap(), data };
            assert_eq!(RowSorter::new(1, 100).append(partitions, run), Err(expected));
        }
    }

    #[test]
    fn what_was_refused_leaves_nothing_behind() {
        let ends = offsets(&[0, 1, 2]);
        let run = RowRun { offsets: Integers::new(&ends, 8).unwrap(), data: b"xy" };
        let beyond = RowRun { data: b"x", ..run };
        for limit in [1, 3, 100] {
            let mut sorter = RowSorter::new(2, limit);
            append(&mut sorter, &[1], &[b"a"]);
            let wrong = Integers::new(&[0, 2], 1).unwrap();
            assert!(sorter.append(wrong, run).is_err());
            assert!(sorter.append(Integers::new(&[0, 0], 1).unwrap(), beyond).is_err());
            assert!(sorter.append_sorted(0, beyond).is_err());
            append(&mut sorter, &[1], &[b"b"]);
            let (mut rows, mut content) = (sorter.drain(), Vec::new());
            while rows.partition() == Some(0) {
                taken(&mut rows, &mut content); // of what was refused a part may be there
            }
            assert_eq!(taken(&mut rows, &mut content), Some(2));
            assert_eq!(content, b"\x01\0\0\0\x01\0\0\0ab");
            assert_eq!(rows.partition(), None);
        }
    }
}
