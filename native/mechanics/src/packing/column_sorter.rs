//! Rows of Arrow batches, sorted by partition as they come, column by column.

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
    /// Of each row of the batch: its partition, and its place among all rows.
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

    /// Takes the memory of drained rows back, if it has none itself.
    pub fn reuse(&mut self, mut rows: SortedColumns) {
        if self.sorted.is_without_memory() {
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
        let step = MIN_SORTED_ROWS.max(PIECE_ROWS * self.next.len());
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
