//! Packing, as Python sees it: see `cosco/client/write/state`.

use cosco_mechanics::block::{BlockHeader, MAX_CONTENT_BYTES};
use cosco_mechanics::packing::blocks;
use cosco_mechanics::packing::blocks::{Contents, Sums};
use cosco_mechanics::packing::integers::Integers;
use cosco_mechanics::packing::misuse::Misuse;
use cosco_mechanics::packing::row_sorter;
use cosco_mechanics::packing::row_sorter::RowRun;
use cosco_mechanics::packing::sorted_rows;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffers::{Bytes, work};
use crate::packing_columns::SortedColumns;

/// Writes the blocks of one attempt.
#[pyclass]
pub struct BlockWriter {
    blocks: blocks::BlockWriter,
    partitions: u32,
}

#[pymethods]
impl BlockWriter {
    #[new]
    fn new(exchange: u64, mapper: u32, attempt: u64, codec: u8, partitions: u32) -> Self {
        let identity = BlockHeader { exchange, mapper, attempt, codec, ..Default::default() };
        Self { blocks: blocks::BlockWriter::new(identity, partitions as usize), partitions }
    }

    /// Makes a block of the next rows of a partition. Returns it.
    fn add<'py>(
        &mut self,
        py: Python<'py>,
        partition: u32,
        rows: u32,
        content: Bytes,
        flags: u8,
        fragment: u16,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let content = content.as_slice();
        if partition >= self.partitions {
            return Err(misuse(Misuse::Partition));
        }
        if content.len() > MAX_CONTENT_BYTES {
            return Err(PyValueError::new_err(format!(
                "block content of {} bytes, the limit is {MAX_CONTENT_BYTES}",
                content.len()
            )));
        }
        py.detach(|| {
            self.blocks.clear();
            self.blocks.write(partition, rows, content, flags, fragment);
        });
        Ok(PyBytes::new(py, self.blocks.written()))
    }

    /// Makes blocks of sorted rows of bytes until they have `room` bytes or more, or the next row
    /// is of `end_partition` or later, or too long for a block. Returns the blocks and their
    /// number.
    fn fill<'py>(
        &mut self,
        py: Python<'py>,
        rows: &mut SortedRows,
        end_partition: u32,
        room: usize,
    ) -> PyResult<(Bound<'py, PyBytes>, usize)> {
        self.fill_of(py, &mut rows.rows, rows.partitions, end_partition, room)
    }

    /// The same of sorted rows of Arrow, until the next ones may be too many for a block.
    fn fill_columns<'py>(
        &mut self,
        py: Python<'py>,
        rows: &mut SortedColumns,
        end_partition: u32,
        room: usize,
    ) -> PyResult<(Bound<'py, PyBytes>, usize)> {
        self.fill_of(py, &mut rows.rows, rows.partitions, end_partition, room)
    }

    /// Makes the mark of the partitions `first` to `end`. Returns it.
    fn mark<'py>(
        &mut self,
        py: Python<'py>,
        first: u32,
        end: u32,
    ) -> PyResult<Bound<'py, PyBytes>> {
        self.blocks.clear();
        self.blocks.mark(first, end).map_err(misuse)?;
        Ok(PyBytes::new(py, self.blocks.written()))
    }

    /// Returns the partitions that have blocks, as integers of 32 bits, and what theirs add up to:
    /// rows, bytes of rows, stored bytes and digests, each as integers of 64 bits.
    fn totals<'py>(&self, py: Python<'py>) -> [Bound<'py, PyBytes>; 5] {
        let found =
            || self.blocks.sums().iter().enumerate().filter(|(_, one)| one.stored_bytes > 0);
        let partitions: Vec<u8> = found().flat_map(|(at, _)| (at as u32).to_ne_bytes()).collect();
        let field = |of: fn(&Sums) -> u64| {
            let values: Vec<u8> = found().flat_map(|(_, one)| of(one).to_ne_bytes()).collect();
            PyBytes::new(py, &values)
        };
        [
            PyBytes::new(py, &partitions),
            field(|one| one.rows),
            field(|one| one.row_bytes),
            field(|one| one.stored_bytes),
            field(|one| one.digest),
        ]
    }
}

impl BlockWriter {
    fn fill_of<'py, Rows: Contents + Send>(
        &mut self,
        py: Python<'py>,
        rows: &mut Rows,
        partitions: u32,
        end_partition: u32,
        room: usize,
    ) -> PyResult<(Bound<'py, PyBytes>, usize)> {
        if partitions > self.partitions {
            return Err(misuse(Misuse::Partition));
        }
        let count = py.detach(|| {
            self.blocks.clear();
            self.blocks.fill(rows, end_partition, room)
        });
        Ok((PyBytes::new(py, self.blocks.written()), count))
    }
}

/// Sorts rows of bytes by partition.
#[pyclass]
pub struct RowSorter {
    sorter: row_sorter::RowSorter,
    partitions: u32,
}

#[pymethods]
impl RowSorter {
    #[new]
    fn new(partitions: u32, limit: usize) -> Self {
        Self { sorter: row_sorter::RowSorter::new(partitions as usize, limit), partitions }
    }

    /// Begins anew, empty, with the same memory.
    fn reset(&mut self, partitions: u32, limit: usize) {
        self.sorter.reset(partitions as usize, limit);
        self.partitions = partitions;
    }

    /// Copies rows behind those of their partitions. Returns the indices of those that are too long
    /// for a block, of which only the places are kept.
    fn append(
        &mut self,
        py: Python<'_>,
        row_partitions: Bytes,
        partition_bytes: usize,
        offsets: Bytes,
        offset_bytes: usize,
        data: Bytes,
    ) -> PyResult<Vec<usize>> {
        let partitions = integers(&row_partitions, partition_bytes)?;
        let run = RowRun { offsets: integers(&offsets, offset_bytes)?, data: data.as_slice() };
        py.detach(|| self.sorter.append(partitions, run)).map_err(misuse)
    }

    /// The same of a few rows that lie apart, unless they are too many or too long for that. Returns
    /// whether they were added.
    fn append_rows(
        &mut self,
        py: Python<'_>,
        row_partitions: Vec<u32>,
        rows: Vec<Bound<'_, PyBytes>>,
    ) -> PyResult<bool> {
        // Of `bytes`, which nobody can change, and which `rows` keeps.
        let rows: Vec<&[u8]> = rows.iter().map(|row| row.as_bytes()).collect();
        let bytes = rows.iter().map(|row| row.len()).sum();
        let add = || self.sorter.append_rows(&row_partitions, rows.iter().copied());
        work(py, bytes, add).map_err(misuse)
    }

    /// Copies rows behind those of their one partition. Returns what `append` does.
    fn append_sorted(
        &mut self,
        py: Python<'_>,
        partition: u32,
        offsets: Bytes,
        offset_bytes: usize,
        data: Bytes,
    ) -> PyResult<Vec<usize>> {
        let run = RowRun { offsets: integers(&offsets, offset_bytes)?, data: data.as_slice() };
        py.detach(|| self.sorter.append_sorted(partition, run)).map_err(misuse)
    }

    /// Removes all rows. Returns them, sorted.
    fn drain(&mut self, py: Python<'_>) -> SortedRows {
        SortedRows { rows: py.detach(|| self.sorter.drain()), partitions: self.partitions }
    }

    /// Takes the memory of drained rows back, if it has none itself.
    fn reuse(&mut self, rows: &mut SortedRows) {
        self.sorter.reuse(std::mem::take(&mut rows.rows));
    }
}

/// Rows sorted by partition.
#[pyclass]
pub struct SortedRows {
    rows: sorted_rows::SortedRows,
    partitions: u32,
}

#[pymethods]
impl SortedRows {
    /// Returns the partition of the next rows; None if there are no more.
    fn partition(&self) -> Option<u32> {
        self.rows.partition()
    }

    /// Passes the next row, if it is too long for a block. Returns whether it is.
    fn skip_long_row(&mut self) -> bool {
        self.rows.skip_long_row()
    }
}

/// Integers of `width` bytes in the memory of an object.
pub fn integers(data: &Bytes, width: usize) -> PyResult<Integers<'_>> {
    Integers::new(data.as_slice(), width)
        .ok_or_else(|| PyValueError::new_err(format!("integers of {width} bytes")))
}

/// What Python raises for arguments that its side has not checked.
pub fn misuse(misuse: Misuse) -> PyErr {
    PyValueError::new_err(misuse.to_string())
}
