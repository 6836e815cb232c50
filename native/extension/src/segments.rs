//! Laying out the chunks of a segment, and letting them go: see `buffers/partition_buffer.py`.

use cosco_mechanics::chunk::{ChunkHeader, padded};
use cosco_mechanics::damage::Damage;
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::buffers::Arena;
use crate::chunks::{Chunk, PartitionBuffer};
use crate::errors::data_corrupted;
use crate::pool::PagePool;
use crate::twins;

/// Closes the open chunks of some buffers of one assignment, ascending, and lays them out.
#[pyfunction]
pub fn lay_out<'py>(
    py: Python<'py>,
    buffers: Vec<Bound<'py, PartitionBuffer>>,
    arena: &Bound<'py, PyAny>,
    incarnation: u64,
    path: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    let memory: Arena = arena.extract()?;
    let (mut chunks, mut parts, mut index) = (Vec::new(), Vec::new(), Index::default());
    let (mut end, mut capacity) = (0, 0);
    for buffer in buffers {
        let chunk = buffer.borrow_mut().begin_flush(py)?;
        {
            let mut chunk = chunk.borrow_mut(py);
            (chunk.path, chunk.offset) = (path.clone().unbind(), end);
            let length = place(&chunk, &buffer.borrow(), &memory, incarnation)?;
            parts.append(&mut chunk.memory(arena, 0, length)?);
            index.add(buffer.borrow().partition, &chunk)?;
            end += length;
            capacity += chunk.held.capacity;
        }
        chunks.push(chunk);
    }
    twins::layout(py)?.call1((chunks, parts, index.to_python(py)?, end, capacity))
}

/// Puts the header and the padding of a chunk into its pages. Returns its length in the segment.
fn place(
    chunk: &Chunk,
    buffer: &PartitionBuffer,
    arena: &Arena,
    incarnation: u64,
) -> PyResult<u64> {
    let first = chunk.held.pages.first();
    let first = first.ok_or_else(|| PyIndexError::new_err("a chunk without pages"))?;
    let header = ChunkHeader {
        exchange: buffer.numbers.number,
        incarnation,
        offset: chunk.offset,
        range_index: buffer.numbers.range_index,
        epoch: buffer.numbers.epoch,
        partition: buffer.partition,
        blocks: chunk.blocks,
        body_bytes: chunk.body_bytes(),
    };
    arena.put(first.offset, &header.encode());
    let end = padded(chunk.held.length);
    for span in chunk.held.spans(chunk.held.length, end) {
        arena.put_zeros(span.offset, span.length);
    }
    Ok(end)
}

/// The columns of a `SegmentIndex`.
#[derive(Default)]
struct Index {
    partitions: Vec<u32>,
    blocks: Vec<u32>,
    offsets: Vec<u64>,
    body_bytes: Vec<u64>,
}

impl Index {
    fn add(&mut self, partition: u32, chunk: &Chunk) -> PyResult<()> {
        if self.partitions.last().is_some_and(|&last| partition <= last) {
            let text = format!("a segment whose chunk of {partition} is out of order");
            return Err(data_corrupted(Damage(text)));
        }
        self.partitions.push(partition);
        self.blocks.push(chunk.blocks);
        self.offsets.push(chunk.offset);
        self.body_bytes.push(chunk.body_bytes());
        Ok(())
    }

    fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let words = |words: &[u32]| -> Vec<u8> {
            words.iter().flat_map(|word| word.to_ne_bytes()).collect()
        };
        let longs = |longs: &[u64]| -> Vec<u8> {
            longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
        };
        let array =
            |code: &str, bytes: Vec<u8>| twins::array(py)?.call1((code, PyBytes::new(py, &bytes)));
        twins::segment_index(py)?.call1((
            "",
            py.None(),
            array("I", words(&self.partitions))?,
            array("I", words(&self.blocks))?,
            array("Q", longs(&self.offsets))?,
            array("Q", longs(&self.body_bytes))?,
        ))
    }
}

/// Frees the pages of chunks that are durable, or that nobody needs any more.
///
/// Returns those of their buffers that have an open chunk.
#[pyfunction]
pub fn end_flush(
    py: Python<'_>,
    chunks: Vec<Bound<'_, Chunk>>,
    pool: &mut PagePool,
) -> PyResult<Vec<Py<PartitionBuffer>>> {
    let mut going_on = Vec::new();
    for chunk in chunks {
        let Some(buffer) = chunk.borrow().buffer(py) else { continue };
        buffer.borrow_mut(py).end_flush(py)?;
        chunk.borrow_mut().release(pool)?;
        if buffer.borrow(py).open.is_some() {
            going_on.push(buffer);
        }
    }
    Ok(going_on)
}
