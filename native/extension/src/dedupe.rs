//! Which blocks are held, as Python sees it.

use cosco_mechanics::dedupe::{self, MapperAttempt};
use cosco_mechanics::intervals::Interval;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::one_thread::OneThread;
use crate::twins;

/// The blocks held of one assignment, for one thread; see `DedupeIndex` in `buffers/dedupe.py`.
#[pyclass(module = "cosco_native")]
pub struct DedupeIndex {
    index: dedupe::DedupeIndex,
    owner: OneThread,
}

impl DedupeIndex {
    /// The index. Errors: this is not its thread.
    pub fn get(&mut self) -> PyResult<&mut dedupe::DedupeIndex> {
        self.owner.check()?;
        Ok(&mut self.index)
    }
}

#[pymethods]
impl DedupeIndex {
    #[new]
    fn new() -> Self {
        Self { index: dedupe::DedupeIndex::default(), owner: OneThread::this() }
    }

    #[getter]
    fn entries(&self) -> usize {
        self.index.entries() // any thread may look: it is one number, and the lock is held
    }

    /// Notes that positions [start, end) are held. Returns false if all of them were already.
    fn claim(
        &mut self,
        mapper_attempt: (u32, u64),
        partition: u32,
        start: u64,
        end: u128,
    ) -> PyResult<bool> {
        let last = end.checked_sub(1).and_then(|last| u64::try_from(last).ok());
        let Some(last) = last.filter(|&last| start <= last) else {
            return Err(PyValueError::new_err(format!("empty interval [{start}, {end})")));
        };
        let positions = Interval { first: start, last };
        Ok(self.get()?.claim(attempt_of(mapper_attempt), partition, positions))
    }

    fn forget(&mut self, mapper_attempt: (u32, u64)) -> PyResult<()> {
        self.get()?.forget(attempt_of(mapper_attempt));
        Ok(())
    }

    fn clear(&mut self) -> PyResult<()> {
        self.get()?.clear();
        Ok(())
    }

    fn knows(&self, mapper_attempt: (u32, u64)) -> PyResult<bool> {
        self.owner.check()?;
        Ok(self.index.knows(attempt_of(mapper_attempt)))
    }

    fn oldest<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.owner.check()?;
        let Some(found) = self.index.oldest() else { return Ok(None) };
        twins::mapper_attempt(py)?.call1((found.mapper, found.attempt)).map(Some)
    }
}

/// An attempt as Python has it.
pub fn attempt_of((mapper, attempt): (u32, u64)) -> MapperAttempt {
    MapperAttempt { mapper, attempt }
}
