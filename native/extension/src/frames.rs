//! Checking a frame, and appending what is new of it: see `buffers/frame_check.py` and
//! `buffers/frame_append.py`.

use cosco_mechanics::block::HEADER_BYTES;
use cosco_mechanics::checked_frame::{self, Fresh};
use cosco_mechanics::chunk_pages::{ChunkPages, Piece};
use cosco_mechanics::pool;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PySlice};

use crate::buffers::{Arena, Bytes, work};
use crate::chunks::{Chunk, PartitionBuffer};
use crate::dedupe::{DedupeIndex, attempt_of};
use crate::errors::data_corrupted;
use crate::pool::{PagePool, too_little};
use crate::twins;

/// A frame every byte of which has been checked.
#[pyclass(module = "cosco_native", frozen)]
pub struct CheckedFrame {
    data: Py<PyAny>,
    frame: checked_frame::CheckedFrame,
    #[pyo3(get)]
    header: Py<PyAny>,
    #[pyo3(get)]
    mapper_attempt: Py<PyAny>,
    #[pyo3(get)]
    key: Py<PyAny>,
    #[pyo3(get)]
    mark: Option<Py<PyAny>>,
}

#[pymethods]
impl CheckedFrame {
    #[getter]
    fn run_count(&self) -> usize {
        self.frame.runs.len()
    }

    /// The partition of each run.
    fn partitions(&self) -> Vec<u32> {
        self.frame.runs.iter().map(|run| run.partition).collect()
    }

    /// The positions [start, end) of each block of a run.
    fn positions(&self, run: usize) -> Vec<(u64, u128)> {
        let blocks = self.frame.runs.get(run).map_or(0..0, |run| run.blocks.clone());
        let positions = self.frame.blocks[blocks].iter().map(|block| block.positions);
        positions.map(|one| (one.first, u128::from(one.last) + 1)).collect()
    }

    /// The first partition that is not in [first, end), if there is one.
    fn outside(&self, first: u64, end: u64) -> Option<u32> {
        let mut partitions = self.frame.runs.iter().map(|run| run.partition);
        partitions.find(|&partition| !(first..end).contains(&u64::from(partition)))
    }
}

/// Checks a frame whole; raises `DataCorrupted`.
#[pyfunction]
#[pyo3(signature = (data, exchange=None, mapper_attempt=None))]
pub fn check_frame(
    py: Python<'_>,
    data: &Bound<'_, PyAny>,
    exchange: Option<u64>,
    mapper_attempt: Option<Bound<'_, PyAny>>,
) -> PyResult<CheckedFrame> {
    let attempt = mapper_attempt.as_ref().map(PyAnyMethods::extract).transpose()?;
    let bytes: Bytes = data.extract()?;
    let length = bytes.as_slice().len();
    let check = || checked_frame::check_frame(bytes.as_slice(), exchange, attempt.map(attempt_of));
    let frame = work(py, length, check).map_err(data_corrupted)?;
    let header = frame.header;
    let mapper_attempt = match mapper_attempt {
        Some(given) => given,
        None => {
            let found = frame.mapper_attempt;
            twins::mapper_attempt(py)?.call1((found.mapper, found.attempt))?
        }
    };
    let key = (header.exchange, header.range_index, header.epoch);
    let fields = (
        header.exchange,
        header.incarnation,
        header.sequence,
        header.range_index,
        header.epoch,
        header.body_bytes,
        header.blocks,
    );
    Ok(CheckedFrame {
        mark: frame.mark.map(|at| mark_at(data, at, length)).transpose()?,
        data: data.clone().unbind(),
        frame,
        header: twins::frame_header(py)?.call1(fields)?.unbind(),
        mapper_attempt: mapper_attempt.unbind(),
        key: twins::assignment_key(py)?.call1(key)?.unbind(),
    })
}

/// The mark that begins at a byte of a frame, and ends with it: its header and stored bytes.
fn mark_at(data: &Bound<'_, PyAny>, start: usize, length: usize) -> PyResult<Py<PyAny>> {
    let py = data.py();
    let header = py.import("cosco.format.block")?.call_method1("parse_header", (data, start))?;
    let (start, end) = ((start + HEADER_BYTES) as isize, length as isize);
    let stored = data.get_item(PySlice::new(py, start, end, 1))?;
    Ok((header, stored).into_pyobject(py)?.into_any().unbind())
}

/// Appends the new blocks of a frame, from `first_run` on, until a run does not fit.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // as its twin has
pub fn append_frame<'py>(
    py: Python<'py>,
    arena: Arena,
    mut pool: PyRefMut<'py, PagePool>,
    mut dedupe: PyRefMut<'py, DedupeIndex>,
    buffers: &Bound<'py, PyDict>,
    key: &Bound<'py, PyAny>,
    frame: &Bound<'py, CheckedFrame>,
    first_run: usize,
    room: (i64, i64),
    segment_bytes: u64,
) -> PyResult<Bound<'py, PyAny>> {
    let frame = frame.get();
    let data: Bytes = frame.data.bind(py).extract()?;
    let (mut next_run, mut blocks, mut duplicates, mut rows) = (first_run, 0, 0, 0u64);
    let mut fresh: Vec<Fresh> = Vec::new();
    // Chunks are changed here as well: they are of the pool's thread.
    let held = dedupe.get()?;
    let mut appending = Appending {
        pool: pool.get()?,
        room: room.0,
        ahead: room.1,
        segment_bytes,
        pieces: Vec::new(),
        opened: Vec::new(),
        filled: Vec::new(),
    };
    let mut result = Ok(());
    'runs: for run in frame.frame.runs.iter().skip(first_run) {
        let buffer = match buffer_of(buffers, key, run.partition) {
            Ok(buffer) => buffer,
            Err(error) => {
                result = Err(error);
                break;
            }
        };
        if !appending.has_room(&buffer, frame.frame.end_of(run) - run.start) {
            break;
        }
        blocks += run.blocks.len();
        duplicates += run.blocks.len();
        rows += frame.frame.rows_of(run);
        frame.frame.claim(run, held, &mut fresh);
        for part in &fresh {
            result = appending.append(&buffer, part);
            if result.is_err() {
                break 'runs;
            }
            duplicates -= part.blocks;
        }
        next_run += 1;
    }
    let Appending { pieces, opened, filled, .. } = appending;
    // Others may look at them while the lock is given up.
    drop((pool, dedupe));
    // What is counted is copied, whatever went wrong after it.
    copy(py, &arena, &data, &pieces);
    result?;
    twins::appended(py)?.call1((next_run, blocks, duplicates, rows, opened, filled))
}

/// The buffer of a partition, which is given one if it has none.
fn buffer_of<'py>(
    buffers: &Bound<'py, PyDict>,
    key: &Bound<'py, PyAny>,
    partition: u32,
) -> PyResult<Bound<'py, PartitionBuffer>> {
    if let Some(found) = buffers.get_item(partition)? {
        return Ok(found.cast_into()?);
    }
    let made = Bound::new(buffers.py(), PartitionBuffer::new(key, partition)?)?;
    buffers.set_item(partition, &made)?;
    Ok(made)
}

/// Brings bytes of a frame to their pages.
fn copy(py: Python<'_>, arena: &Arena, data: &Bytes, pieces: &[Piece]) {
    let bytes = pieces.iter().map(|piece| piece.target.length as usize).sum();
    work(py, bytes, || {
        let data = data.as_slice();
        for Piece { source, target } in pieces {
            arena.put(target.offset, &data[*source..source + target.length as usize]);
        }
    });
}

/// Appends to chunks, and what came of it. Only the copies are left to be made.
struct Appending<'a> {
    pool: &'a mut pool::PagePool,
    room: i64,
    ahead: i64,
    segment_bytes: u64,
    pieces: Vec<Piece>,
    opened: Vec<Py<PartitionBuffer>>,
    filled: Vec<Py<PartitionBuffer>>,
}

impl Appending<'_> {
    /// Whether there is room for `length` bytes more in the open chunk of a buffer.
    fn has_room(&self, buffer: &Bound<'_, PartitionBuffer>, length: usize) -> bool {
        let (py, length) = (buffer.py(), length as u64);
        let fits = |chunk: &ChunkPages| {
            let grows = chunk.length + length > chunk.capacity;
            !grows || chunk.room_needed(length) as i64 <= self.room
        };
        match &buffer.borrow().open {
            Some(chunk) => fits(&chunk.borrow(py).held),
            None => fits(&ChunkPages::default()),
        }
    }

    fn append(&mut self, buffer: &Bound<'_, PartitionBuffer>, part: &Fresh) -> PyResult<()> {
        let (py, length) = (buffer.py(), (part.end - part.start) as u64);
        let mut owner = buffer.borrow_mut();
        let chunk = match &owner.open {
            Some(chunk) => chunk.clone_ref(py),
            None => {
                let made = Py::new(py, Chunk::new(buffer.clone()))?;
                owner.open = Some(made.clone_ref(py));
                self.opened.push(buffer.clone().unbind());
                made
            }
        };
        let mut chunk = chunk.borrow_mut(py);
        if chunk.held.length + length > chunk.held.capacity {
            self.grow(&mut chunk.held, length)?;
        }
        chunk.held.append(part.start, length, &mut self.pieces);
        chunk.blocks += part.blocks as u32;
        if chunk.held.length >= self.segment_bytes && owner.flushing.is_none() {
            self.filled.push(buffer.clone().unbind());
        }
        Ok(())
    }

    fn grow(&mut self, chunk: &mut ChunkPages, length: u64) -> PyResult<()> {
        let before = chunk.capacity;
        let extra = u64::try_from(self.ahead - length as i64).unwrap_or(0);
        chunk.grow(self.pool, chunk.room_needed(length), extra).map_err(too_little)?;
        let taken = (chunk.capacity - before) as i64;
        self.room -= taken;
        self.ahead -= taken;
        Ok(())
    }
}
