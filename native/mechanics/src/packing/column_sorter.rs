//! Rows of Arrow batches, sorted by partition as they come, column by column.

use crate::block::MAX_CONTENT_BYTES;
use crate::packing::columns::{Column, Kind};
use crate::packing::integers::Integers;
use crate::packing::message::Template;
use crate::packing::misuse::Misuse;
use crate::packing::sorted_columns::SortedColumns;

/// So many rows are sorted at a time, as what is kept of each stays in the cache then.
const MIN_SORTED_ROWS: usize = 1 << 15;
/// With many partitions more, by so many for each, as every piece costs something.
const PIECE_ROWS: usize = 64;

/// Sorts rows by partition; those of a partition keep their order.
pub struct ColumnSorter {
    kinds: Vec<Kind>,
    limit: usize,
    sorted: SortedColumns,
    /// The partition of each row of the batch, and its place among all rows.
    row_partitions: Vec<u32>,
    places: Vec<u32>,
    /// Where the values of a column end.
    ends: Vec<usize>,
    /// By partition: its next place, while rows are sorted.
    next: Vec<usize>,
}

impl ColumnSorter {
    /// Begins empty. `limit`: about how many bytes of rows are added between two drains.
    ///
    /// Returns None if `template` is none of such columns.
    #[must_use]
    pub fn new(
        partitions: usize,
        limit: usize,
        kinds: Vec<Kind>,
        template: Template,
    ) -> Option<Self> {
        let buffers = kinds.iter().map(|kind| match kind {
            Kind::Variable(_) => 3,
            _ => 2,
        });
        if !template.has_room(kinds.len(), buffers.sum()) {
            return None;
        }
        Some(Self {
            sorted: SortedColumns::new(kinds.clone(), template),
            kinds,
            limit,
            row_partitions: Vec::new(),
            places: Vec::new(),
            ends: Vec::new(),
            next: vec![0; partitions],
        })
    }

    /// Begins anew, empty, with columns of the same kinds and the same memory.
    pub fn reset(&mut self, partitions: usize, limit: usize) {
        self.limit = limit;
        self.sorted.clear();
        self.next = vec![0; partitions];
    }

    /// Copies the rows of a batch behind those of their partitions.
    ///
    /// After a misuse the rows of the batch may have been added in part.
    pub fn append(
        &mut self,
        row_partitions: Integers<'_>,
        columns: &[Column<'_>],
    ) -> Result<(), Misuse> {
        let (rows, partitions) = (row_partitions.len(), self.next.len() as u64);
        let mut is_wrong = false;
        let found = &mut self.row_partitions;
        found.clear();
        row_partitions.each(0, rows, |one| {
            is_wrong |= one >= partitions;
            found.push(one as u32);
            true
        });
        if is_wrong {
            return Err(Misuse::Partition);
        }
        self.add(columns)
    }

    /// Copies the rows of a batch behind those of their one partition.
    pub fn append_sorted(
        &mut self,
        partition: u32,
        rows: usize,
        columns: &[Column<'_>],
    ) -> Result<(), Misuse> {
        if partition as usize >= self.next.len() {
            return Err(Misuse::Partition);
        }
        self.row_partitions.clear();
        self.row_partitions.resize(rows, partition);
        self.add(columns)
    }

    /// Removes all rows. Returns them, sorted.
    ///
    /// Blocks of rows that are expected to have more than `sure_bytes` are not made: they are for
    /// the caller to cut.
    pub fn drain(&mut self, sure_bytes: usize) -> SortedColumns {
        let mut rows = self.sorted.remove();
        rows.begin(sure_bytes);
        rows
    }

    /// Takes the memory of drained rows back, if it has none itself; not what one long row had.
    pub fn reuse(&mut self, mut rows: SortedColumns) {
        let usual = 2 * self.limit + 2 * MAX_CONTENT_BYTES;
        if self.sorted.is_without_memory() && rows.held_bytes() <= usual {
            rows.clear();
            self.sorted = rows;
        }
    }

    fn add(&mut self, columns: &[Column<'_>]) -> Result<(), Misuse> {
        let rows = self.row_partitions.len();
        if columns.len() != self.kinds.len() {
            return Err(Misuse::Count);
        }
        let mut bytes = 0;
        for (column, &kind) in columns.iter().zip(&self.kinds) {
            column.check(kind, rows)?;
            bytes += column.plain_bytes(kind, rows);
        }
        self.sorted.count_bytes(bytes);
        for (index, (column, &kind)) in columns.iter().zip(&self.kinds).enumerate() {
            // As many rows like these as fit into the buffer: so that it does not have to grow.
            let share = column.value_bytes(kind, rows) as f64 / bytes.max(1) as f64;
            self.sorted.reserve(index, (share * self.limit as f64) as usize);
        }
        let row_partitions = std::mem::take(&mut self.row_partitions);
        let most = MIN_SORTED_ROWS.max(PIECE_ROWS * self.next.len());
        let step = rows.div_ceil(rows.div_ceil(most).max(1)).max(1);
        for first in (0..rows).step_by(step) {
            let few = &row_partitions[first..rows.min(first + step)];
            self.add_few(few, columns, first);
        }
        self.row_partitions = row_partitions;
        Ok(())
    }

    /// Adds rows `first` and so on of a batch, as many as there are partitions.
    fn add_few(&mut self, row_partitions: &[u32], columns: &[Column<'_>], first: usize) {
        let first_piece = self.place_rows(row_partitions);
        for (index, column) in columns.iter().enumerate() {
            let column = &column.from(first);
            match self.kinds[index] {
                Kind::Bits => self.sorted.add_bits(index, column, &self.places),
                Kind::Fixed(width) => self.sorted.add_fixed(index, column, width, &self.places),
                Kind::Variable(_) => self.add_variable(index, column, row_partitions, first_piece),
            }
            self.sorted.add_validity(index, column, &self.places);
        }
    }

    /// Finds the place of each row, and adds the pieces. Returns the first one's index.
    fn place_rows(&mut self, row_partitions: &[u32]) -> usize {
        self.next.fill(0);
        for &partition in row_partitions {
            self.next[partition as usize] += 1;
        }
        let first_piece = self.sorted.piece_count();
        let mut place = self.sorted.begin_rows(row_partitions.len());
        for (partition, next) in self.next.iter_mut().enumerate() {
            let rows = std::mem::replace(next, place);
            if rows > 0 {
                self.sorted.push_piece(partition as u32, place, rows);
                place += rows;
            }
        }
        self.places.clear();
        self.places.extend(row_partitions.iter().map(|&partition| {
            let next = &mut self.next[partition as usize];
            *next += 1;
            (*next - 1) as u32
        }));
        first_piece
    }

    fn add_variable(
        &mut self,
        index: usize,
        column: &Column<'_>,
        row_partitions: &[u32],
        first_piece: usize,
    ) {
        let Some(offsets) = column.offsets else { return };
        let start = offsets.at(column.offset) as usize;
        self.ends.clear();
        let ends = &mut self.ends;
        offsets.each(column.offset + 1, column.offset + row_partitions.len() + 1, |one| {
            ends.push(one as usize);
            true
        });
        self.next.fill(0);
        let lengths = self.sorted.lengths(index);
        let (mut from, mut total) = (start, 0);
        let rows = row_partitions.iter().zip(&self.places).zip(&self.ends);
        for (row, ((&partition, &place), &end)) in rows.enumerate() {
            let length = if column.is_valid(row) { end - from } else { 0 };
            lengths[place as usize] = length;
            self.next[partition as usize] += length;
            total += length;
            from = end;
        }
        let mut at = self.sorted.make_room(index, total);
        self.sorted.set_starts(index, first_piece, |partition| {
            let bytes = std::mem::replace(&mut self.next[partition as usize], at);
            at += bytes;
            at - bytes
        });
        let values = self.sorted.values(index);
        let mut from = start;
        for (row, (&partition, &end)) in row_partitions.iter().zip(&self.ends).enumerate() {
            if column.is_valid(row) {
                let next = &mut self.next[partition as usize];
                let bytes = &column.values[from..end];
                values[*next..*next + bytes.len()].copy_from_slice(bytes);
                *next += bytes.len();
            }
            from = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::parse_header;
    use crate::packing::blocks::{BlockWriter, Contents};

    /// Metadata with place for two columns, of which only the figures are looked at.
    fn template() -> Template {
        Template { head: vec![0; 160], rows_at: 0, body_at: 8, nodes_at: 16, buffers_at: 48 }
    }

    fn sorter(partitions: usize) -> ColumnSorter {
        let kinds = vec![Kind::Fixed(2), Kind::Variable(4)];
        ColumnSorter::new(partitions, 1000, kinds, template()).unwrap()
    }

    fn offsets(ends: &[u32]) -> Vec<u8> {
        ends.iter().flat_map(|end| end.to_ne_bytes()).collect()
    }

    #[test]
    fn rows_come_sorted_and_in_order() {
        let mut sorter = sorter(3);
        let ends = offsets(&[1, 2, 4, 4, 7]);
        for _ in 0..2 {
            let columns = [
                Column {
                    validity: Some(&[0b1_0110]),
                    offset: 1,
                    offsets: None,
                    values: b"..AABBCCDD",
                },
                Column {
                    validity: None,
                    offset: 0,
                    offsets: Integers::new(&ends, 4),
                    values: b".abbccc",
                },
            ];
            sorter.append(Integers::new(&[2, 0, 2, 2], 1).unwrap(), &columns).unwrap();
        }
        let mut rows = sorter.drain(1000);
        let mut content = Vec::new();
        assert_eq!(rows.partition(), Some(0));
        assert_eq!(rows.next_block(&mut content).unwrap().0, 2);
        assert_eq!(&content[160..164], b"BBBB");
        assert_eq!(&content[168..180], offsets(&[0, 2, 4]));
        assert_eq!(&content[184..188], b"bbbb");
        assert_eq!(rows.partition(), Some(2));
        assert_eq!(rows.next_block(&mut content).unwrap().0, 6);
        // Six rows, of which two have no first value: it is cleared.
        assert_eq!((content[0], content[16], content[24]), (6, 6, 2));
        assert_eq!(&content[160..168], [0b10_1101, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&content[168..180], b"AA\0\0DDAA\0\0DD");
        assert_eq!(&content[184..212], offsets(&[0, 1, 1, 4, 5, 5, 8]));
        assert_eq!(&content[216..224], b"acccaccc");
        assert_eq!(rows.partition(), None);
    }

    #[test]
    fn a_part_of_what_was_taken_is_encoded_alone() {
        let mut sorter = sorter(1);
        let ends = offsets(&[0, 1, 3, 6]);
        let columns = [
            Column { validity: None, offset: 0, offsets: None, values: b"AABBCC" },
            Column {
                validity: None,
                offset: 0,
                offsets: Integers::new(&ends, 4),
                values: b"abbccc",
            },
        ];
        sorter.append_sorted(0, 3, &columns).unwrap();
        sorter.append_sorted(0, 3, &columns).unwrap();
        let mut rows = sorter.drain(0);
        let mut content = Vec::new();
        assert_eq!(rows.next_block(&mut content), None);
        let (first, pieces, count) = rows.take();
        assert_eq!((first, pieces, count), (0, 2, 6));
        rows.encode((first, pieces), 2, 2, &mut content);
        assert_eq!(&content[160..164], b"CCAA");
        assert_eq!(&content[168..180], offsets(&[0, 3, 4]));
        assert_eq!(&content[184..188], b"ccca");
        assert_eq!(rows.plain_bytes_of((first, pieces), 2, 2), 4 + 12 + 4);
        assert_eq!(rows.partition(), None);
    }

    #[test]
    fn buffers_that_are_too_short_are_refused() {
        let mut sorter = sorter(2);
        let ends = offsets(&[0, 3, 2]);
        let fixed = Column { validity: None, offset: 0, offsets: None, values: b"AABB" };
        let text = Column { offsets: Integers::new(&ends, 4), values: b"abc", ..fixed };
        let rows = Integers::new(&[1, 0], 1).unwrap();
        let good = Column { values: b"abc", offsets: Integers::new(&ends[..8], 4), ..fixed };
        assert_eq!(sorter.append(rows, &[fixed, text]), Err(Misuse::Buffers));
        assert_eq!(sorter.append(rows, &[fixed, good]), Err(Misuse::Buffers));
        let late = Column { offset: 1, ..fixed };
        assert_eq!(sorter.append(rows, &[late, text]), Err(Misuse::Buffers));
        assert_eq!(sorter.append(rows, &[fixed]), Err(Misuse::Count));
        let beyond = Integers::new(&[1, 2], 1).unwrap();
        assert_eq!(sorter.append(beyond, &[fixed, fixed]), Err(Misuse::Partition));
        assert_eq!(sorter.drain(1).partition(), None);
    }

    #[test]
    fn blocks_are_written_until_there_is_enough() {
        let mut sorter = sorter(4);
        let ends = offsets(&[0, 1, 3, 6]);
        let fixed = Column { validity: None, offset: 0, offsets: None, values: b"AABBCC" };
        let text = Column { offsets: Integers::new(&ends, 4), values: b"abbccc", ..fixed };
        sorter.append(Integers::new(&[3, 1, 0], 1).unwrap(), &[fixed, text]).unwrap();
        let mut rows = sorter.drain(1000);
        let mut blocks = BlockWriter::new(crate::block::BlockHeader::default(), 4);
        assert_eq!(blocks.fill(&mut rows, 3, 1), 1);
        assert_eq!(blocks.fill(&mut rows, 3, 10_000), 1);
        assert_eq!(blocks.fill(&mut rows, 3, 10_000), 0);
        assert_eq!(rows.partition(), Some(3));
        let header = parse_header(blocks.written(), 0).unwrap();
        assert_eq!((header.partition, header.rows, header.flags), (0, 1, 0));
        let sums = blocks.sums();
        assert_eq!([sums[0].rows, sums[1].rows, sums[2].rows, sums[3].rows], [1, 1, 0, 0]);
        assert_eq!(sums[0].stored_bytes, header.block_bytes() as u64);
    }
}
