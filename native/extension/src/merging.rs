//! Merging, as Python sees it: see `cosco/client/read/state/block_count.py`.

use std::mem::MaybeUninit;
use std::sync::Arc;

use cosco_mechanics::block::{HEADER_BYTES, parse_header};
use cosco_mechanics::damage::Damage;
use cosco_mechanics::merging;
use cosco_mechanics::merging::attempts;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffers::Bytes;
use crate::errors::data_corrupted;
use crate::new_bytes::NewBytes;

/// Whose blocks count, and whose rows are wanted.
#[pyclass(frozen)]
pub struct Attempts(Arc<attempts::Attempts>);

#[pymethods]
impl Attempts {
    #[new]
    fn new(mappers: Bytes, attempts: Bytes, named: Bytes) -> Self {
        let (mappers, attempts, named) =
            (mappers.as_slice(), attempts.as_slice(), named.as_slice());
        Self(Arc::new(attempts::Attempts::new(mappers, attempts, named)))
    }
}

/// What is shorter is done sooner than the interpreter's lock is given up and had back.
const SHORT_BYTES: usize = 2048;

/// A block that was found: where it begins, its mapper, rows and flags, and its content.
type Found = (usize, u32, u32, u8, Py<PyBytes>);

/// The distinct committed blocks of one partition that have come.
#[pyclass]
pub struct BlockCount {
    count: merging::BlockCount,
    attempts: Arc<attempts::Attempts>,
}

#[pymethods]
impl BlockCount {
    #[new]
    fn new(exchange: u64, partition: u32, attempts: &Attempts) -> Self {
        let count = merging::BlockCount::new(exchange, partition);
        Self { count, attempts: Arc::clone(&attempts.0) }
    }

    #[getter]
    fn rows(&self) -> u64 {
        self.count.sums().rows
    }

    #[getter]
    fn row_bytes(&self) -> u64 {
        self.count.sums().row_bytes
    }

    #[getter]
    fn digest(&self) -> u64 {
        self.count.sums().digest
    }

    #[getter]
    fn intervals(&self) -> usize {
        self.count.intervals()
    }

    /// Takes the blocks of a run from `offset` on until their contents have `most` bytes or more.
    /// Returns where it ended, what it found, and why blocks were refused.
    fn feed(
        &mut self,
        py: Python<'_>,
        data: Bytes,
        offset: usize,
        most: usize,
    ) -> PyResult<(usize, Vec<Found>, Vec<String>)> {
        let Self { count, attempts } = self;
        let data = data.as_slice();
        let step = count.plan(attempts, data, offset, most); // which looks at headers alone
        let contents: PyResult<Vec<_>> =
            step.lengths().map(|length| NewBytes::new(py, length)).collect();
        let mut contents = contents?;
        let mut rooms: Vec<&mut [MaybeUninit<u8>]> =
            contents.iter_mut().map(NewBytes::room).collect();
        let taken = if step.end() - offset < SHORT_BYTES {
            count.take(attempts, data, step, &mut rooms)
        } else {
            py.detach(|| count.take(attempts, data, step, &mut rooms))
        };
        let mut contents: Vec<_> = contents.into_iter().map(Some).collect();
        let found = taken.found.iter().filter_map(|one| {
            let content = contents[one.room].take()?;
            // SAFETY: what was found has filled its room, all of it: its digest was right.
            let content = unsafe { content.into_filled() };
            Some((one.start, one.mapper, one.rows, one.flags, content))
        });
        Ok((taken.end, found.collect(), texts(taken.bad)))
    }

    /// Adds up headers of blocks that nobody named. Returns why some were refused.
    fn feed_headers(&mut self, py: Python<'_>, data: Bytes) -> Vec<String> {
        let Self { count, attempts } = self;
        texts(py.detach(|| count.feed_headers(attempts, data.as_slice())))
    }

    /// Takes back what headers have added up.
    fn forget_headers(&mut self) {
        self.count.forget_headers();
    }
}

fn texts(damages: Vec<Damage>) -> Vec<String> {
    damages.into_iter().map(|damage| damage.0).collect()
}

/// Finds the end of the last whole block in `data`, where one begins at `offset`. Returns it, and
/// the length of the block that begins there; 0 if its header is cut.
#[pyfunction]
pub fn whole_blocks(py: Python<'_>, data: Bytes, offset: usize) -> PyResult<(usize, usize)> {
    let data = data.as_slice();
    py.detach(|| {
        let mut end = offset;
        while data.len().saturating_sub(end) >= HEADER_BYTES {
            let length = parse_header(data, end)?.block_bytes();
            if end + length > data.len() {
                return Ok((end, length));
            }
            end += length;
        }
        Ok((end, 0))
    })
    .map_err(data_corrupted)
}
