//! Packing of Arrow batches, as Python sees it: see `cosco/client/write/state`.

use cosco_mechanics::packing::blocks::Contents;
use cosco_mechanics::packing::column_sorter;
use cosco_mechanics::packing::columns::{Column, Kind};
use cosco_mechanics::packing::message::Template;
use cosco_mechanics::packing::misuse::Misuse;
use cosco_mechanics::packing::sorted_columns;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffers::Bytes;
use crate::packing::{integers, misuse};

/// Of a column: its bitmap, where its items begin, its offsets, and its values.
type Buffers = (Option<Bytes>, usize, Option<Bytes>, Option<Bytes>);

/// Sorts rows of Arrow batches by partition.
#[pyclass]
pub struct ColumnSorter {
    sorter: column_sorter::ColumnSorter,
    kinds: Vec<Kind>,
    partitions: u32,
}

#[pymethods]
impl ColumnSorter {
    /// kinds: of each column the bytes of a value, 0 for bits, -4 and -8 for values between offsets
    /// of so many bytes. template: what comes before the body of a message with such columns, and
    /// where in it are the rows, the length of the body, the nodes and the buffers.
    #[new]
    fn new(
        partitions: u32,
        limit: usize,
        kinds: Vec<i32>,
        template: (Vec<u8>, usize, usize, usize, usize),
    ) -> PyResult<Self> {
        let kinds: Vec<Kind> = kinds.into_iter().map(kind_of).collect();
        let (head, rows_at, body_at, nodes_at, buffers_at) = template;
        let template = Template { head, rows_at, body_at, nodes_at, buffers_at };
        let sorter =
            column_sorter::ColumnSorter::new(partitions as usize, limit, kinds.clone(), template)
                .ok_or_else(|| PyValueError::new_err("a message of other columns"))?;
        Ok(Self { sorter, kinds, partitions })
    }

    /// Begins anew, empty, with columns of the same kinds and the same memory.
    fn reset(&mut self, partitions: u32, limit: usize) {
        self.sorter.reset(partitions as usize, limit);
        self.partitions = partitions;
    }

    /// Copies the rows of a batch behind those of their partitions.
    fn append(
        &mut self,
        py: Python<'_>,
        row_partitions: Bytes,
        partition_bytes: usize,
        columns: Vec<Buffers>,
    ) -> PyResult<()> {
        let partitions = integers(&row_partitions, partition_bytes)?;
        let columns = columns_of(&self.kinds, &columns)?;
        py.detach(|| self.sorter.append(partitions, &columns)).map_err(misuse)
    }

    /// Copies the rows of a batch behind those of their one partition.
    fn append_sorted(
        &mut self,
        py: Python<'_>,
        partition: u32,
        rows: usize,
        columns: Vec<Buffers>,
    ) -> PyResult<()> {
        let columns = columns_of(&self.kinds, &columns)?;
        py.detach(|| self.sorter.append_sorted(partition, rows, &columns)).map_err(misuse)
    }

    /// Removes all rows. Returns them, sorted; of those of a partition that are expected to have
    /// more than `sure_bytes` no block is made.
    fn drain(&mut self, py: Python<'_>, sure_bytes: usize) -> SortedColumns {
        SortedColumns {
            rows: py.detach(|| self.sorter.drain(sure_bytes)),
            partitions: self.partitions,
        }
    }

    /// Takes the memory of drained rows back, if it has none itself.
    fn reuse(&mut self, rows: &mut SortedColumns) {
        self.sorter.reuse(rows.rows.remove());
    }
}

/// Rows of Arrow batches sorted by partition.
#[pyclass]
pub struct SortedColumns {
    pub rows: sorted_columns::SortedColumns,
    pub partitions: u32,
}

#[pymethods]
impl SortedColumns {
    /// Returns the partition of the next rows; None if there are no more.
    fn partition(&self) -> Option<u32> {
        self.rows.partition()
    }

    /// Returns about how many bytes a row takes.
    fn row_bytes(&self) -> f64 {
        self.rows.row_bytes()
    }

    /// Passes all rows of the next partition. Returns the first of their pieces, and how many
    /// pieces and rows they are.
    fn take(&mut self) -> (usize, usize, usize) {
        self.rows.take()
    }

    /// Returns the message of some rows of some pieces: of `rows` behind the first `skipped`.
    fn encode<'py>(
        &self,
        py: Python<'py>,
        first_piece: usize,
        pieces: usize,
        skipped: usize,
        rows: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        self.check(first_piece, pieces)?;
        let content = py.detach(|| {
            let mut content = Vec::new();
            self.rows.encode((first_piece, pieces), skipped, rows, &mut content);
            content
        });
        Ok(PyBytes::new(py, &content))
    }

    /// Returns about how many bytes these rows take.
    fn plain_bytes(
        &self,
        py: Python<'_>,
        first_piece: usize,
        pieces: usize,
        skipped: usize,
        rows: usize,
    ) -> PyResult<usize> {
        self.check(first_piece, pieces)?;
        Ok(py.detach(|| self.rows.plain_bytes_of((first_piece, pieces), skipped, rows)))
    }
}

impl SortedColumns {
    fn check(&self, first_piece: usize, pieces: usize) -> PyResult<()> {
        match first_piece.checked_add(pieces) {
            Some(end) if end <= self.rows.piece_count() => Ok(()),
            _ => Err(misuse(Misuse::Count)),
        }
    }
}

fn kind_of(kind: i32) -> Kind {
    match kind {
        0 => Kind::Bits,
        1.. => Kind::Fixed(kind as usize),
        _ => Kind::Variable(kind.unsigned_abs() as usize),
    }
}

fn columns_of<'a>(kinds: &[Kind], columns: &'a [Buffers]) -> PyResult<Vec<Column<'a>>> {
    if kinds.len() != columns.len() {
        return Err(misuse(Misuse::Count));
    }
    let column = |(kind, (validity, offset, offsets, values)): (&Kind, &'a Buffers)| {
        let offsets = match (kind, offsets) {
            (Kind::Variable(width), Some(offsets)) => Some(integers(offsets, *width)?),
            _ => None,
        };
        Ok(Column {
            validity: validity.as_ref().map(Bytes::as_slice),
            offset: *offset,
            offsets,
            values: values.as_ref().map_or(&[], Bytes::as_slice),
        })
    };
    kinds.iter().zip(columns).map(column).collect()
}
