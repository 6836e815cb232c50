//! Write-ahead buffers, as Python sees them: see `buffers/partition_buffer.py`.

use cosco_mechanics::chunk::CHUNK_HEADER_BYTES;
use cosco_mechanics::chunk_pages::ChunkPages;
use pyo3::exceptions::{PyAssertionError, PyZeroDivisionError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PySlice, PyString};

use crate::buffers::{Arena, Bytes};
use crate::one_thread::OneThread;
use crate::pool::{PagePool, from_python, to_python, too_little};
use crate::twins;

/// Whose rows they are, as the header of a chunk names it.
#[derive(Clone, Copy)]
pub struct Key {
    pub number: u64,
    pub range_index: u32,
    pub epoch: u32,
}

/// Where a chunk is; the numbers are those of `ChunkState`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ChunkState {
    Open = 1,
    Flushing = 2,
    Stored = 3,
    Dropped = 4,
}

const STATES: [ChunkState; 4] =
    [ChunkState::Open, ChunkState::Flushing, ChunkState::Stored, ChunkState::Dropped];

impl<'py> IntoPyObject<'py> for ChunkState {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static MEMBERS: PyOnceLock<[Py<PyAny>; 4]> = PyOnceLock::new();
        let members = MEMBERS.get_or_try_init(py, || -> PyResult<_> {
            let class = twins::chunk_state(py)?;
            let [open, flushing, stored, dropped] = STATES.map(|state| class.call1((state as u8,)));
            Ok([open?.unbind(), flushing?.unbind(), stored?.unbind(), dropped?.unbind()])
        })?;
        Ok(members[self as usize - 1].bind(py).clone())
    }
}

impl<'py> FromPyObject<'_, 'py> for ChunkState {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let number: u8 = object.extract()?;
        let found = STATES.into_iter().find(|&state| state as u8 == number);
        found.ok_or_else(|| PyAssertionError::new_err("a state of a chunk"))
    }
}

/// One chunk, wherever it is; its pages are for one thread.
#[pyclass(module = "cosco_native")]
pub struct Chunk {
    owner: OneThread,
    /// Always there, until the garbage collector clears it.
    buffer: Option<Py<PartitionBuffer>>,
    pub held: ChunkPages,
    #[pyo3(get, set)]
    pub state: ChunkState,
    #[pyo3(get, set)]
    pub blocks: u32,
    #[pyo3(get, set)]
    pub path: Py<PyString>,
    #[pyo3(get, set)]
    pub offset: u64,
    #[pyo3(get, set)]
    is_durable: bool,
}

#[pymethods]
impl Chunk {
    #[new]
    pub fn new(buffer: Bound<'_, PartitionBuffer>) -> Self {
        Self {
            owner: OneThread::this(),
            held: ChunkPages::default(),
            state: ChunkState::Open,
            blocks: 0,
            path: PyString::intern(buffer.py(), "").unbind(),
            offset: 0,
            is_durable: false,
            buffer: Some(buffer.unbind()),
        }
    }

    #[getter]
    pub fn buffer(&self, py: Python<'_>) -> Option<Py<PartitionBuffer>> {
        self.buffer.as_ref().map(|buffer| buffer.clone_ref(py))
    }

    #[getter]
    fn pages<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        to_python(py, &self.held.pages)
    }

    #[setter]
    fn set_pages(&mut self, pages: Vec<(u64, u64)>) -> PyResult<()> {
        self.owner.check()?;
        self.held.pages = from_python(pages).collect();
        Ok(())
    }

    #[getter]
    fn capacity(&self) -> u64 {
        self.held.capacity
    }

    #[getter]
    fn length(&self) -> u64 {
        self.held.length
    }

    #[setter]
    fn set_length(&mut self, length: u64) -> PyResult<()> {
        self.owner.check()?;
        self.held.length = length;
        Ok(())
    }

    #[getter]
    pub fn body_bytes(&self) -> u64 {
        self.held.length - CHUNK_HEADER_BYTES as u64
    }

    fn is_dropped(&self) -> bool {
        self.state == ChunkState::Dropped
    }

    /// Gives its pages back.
    pub fn release(&mut self, pool: &mut PagePool) -> PyResult<()> {
        self.held.release(pool.get()?);
        Ok(())
    }

    fn room_needed(&self, length: u64) -> u64 {
        self.held.room_needed(length)
    }

    /// Adds pages of `need` bytes; `extra` more may be taken.
    fn grow(&mut self, pool: &mut PagePool, need: u64, extra: u64) -> PyResult<()> {
        if need == 0 {
            return Err(PyZeroDivisionError::new_err("a chunk that needs no pages"));
        }
        self.held.grow(pool.get()?, need, extra).map_err(too_little)
    }

    /// Copies `data` to the end, where there is room for it.
    fn append(&mut self, arena: Arena, data: Bytes) -> PyResult<()> {
        self.owner.check()?;
        let (data, mut pieces) = (data.as_slice(), Vec::new());
        self.held.append(0, data.len() as u64, &mut pieces);
        for piece in pieces {
            let end = piece.source + piece.target.length as usize;
            arena.put(piece.target.offset, &data[piece.source..end]);
        }
        Ok(())
    }

    /// Views of bytes [start, end) of it, while it has pages.
    pub fn memory<'py>(
        &self,
        arena: &Bound<'py, PyAny>,
        start: u64,
        end: u64,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        self.owner.check()?;
        let view = |offset: u64, length: u64| {
            let (offset, length) = (offset as isize, length as isize);
            arena.get_item(PySlice::new(arena.py(), offset, offset + length, 1))
        };
        self.held.spans(start, end).map(|span| view(span.offset, span.length)).collect()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.buffer)
    }

    fn __clear__(&mut self) {
        self.buffer = None;
    }
}

/// The chunks of one partition that are in memory, for one thread.
#[pyclass(module = "cosco_native")]
pub struct PartitionBuffer {
    owner: OneThread,
    #[pyo3(get)]
    key: Py<PyAny>,
    pub numbers: Key,
    #[pyo3(get)]
    pub partition: u32,
    #[pyo3(get, set)]
    pub open: Option<Py<Chunk>>,
    #[pyo3(get, set)]
    pub flushing: Option<Py<Chunk>>,
    #[pyo3(get)]
    waiting: Py<PyAny>,
}

#[pymethods]
impl PartitionBuffer {
    #[new]
    pub fn new(key: &Bound<'_, PyAny>, partition: u32) -> PyResult<Self> {
        let (number, range_index, epoch) = key.extract()?;
        Ok(Self {
            owner: OneThread::this(),
            key: key.clone().unbind(),
            numbers: Key { number, range_index, epoch },
            partition,
            open: None,
            flushing: None,
            waiting: twins::deque(key.py())?.call0()?.unbind(),
        })
    }

    /// Its chunks, the older one first.
    fn chunks(&self, py: Python<'_>) -> Vec<Py<Chunk>> {
        [&self.flushing, &self.open].into_iter().flatten().map(|one| one.clone_ref(py)).collect()
    }

    /// Closes the open chunk, and returns it.
    pub fn begin_flush(&mut self, py: Python<'_>) -> PyResult<Py<Chunk>> {
        self.owner.check()?;
        if self.flushing.is_some() {
            return Err(PyAssertionError::new_err(()));
        }
        let chunk = self.open.take().ok_or_else(|| PyAssertionError::new_err(()))?;
        chunk.borrow_mut(py).state = ChunkState::Flushing;
        self.flushing = Some(chunk.clone_ref(py));
        Ok(chunk)
    }

    /// Notes that the flushing chunk is durable, or that nobody needs it any more.
    pub fn end_flush(&mut self, py: Python<'_>) -> PyResult<()> {
        self.owner.check()?;
        let chunk = self.flushing.take().ok_or_else(|| PyAssertionError::new_err(()))?;
        chunk.borrow_mut(py).end_flush();
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.open)?;
        visit.call(&self.flushing)?;
        visit.call(&self.waiting)
    }

    fn __clear__(&mut self, py: Python<'_>) {
        self.open = None;
        self.flushing = None;
        self.waiting = py.None();
    }
}

impl Chunk {
    /// Counts as stored, unless it was dropped.
    pub fn end_flush(&mut self) {
        if self.state != ChunkState::Dropped {
            self.state = ChunkState::Stored;
        }
    }
}
