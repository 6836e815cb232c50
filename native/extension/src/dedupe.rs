//! Which blocks are held, as Python sees it.

use cosco_mechanics::dedupe::{self, MapperAttempt};
use cosco_mechanics::intervals::Interval;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::twins;

/// The blocks held of one assignment; see `DedupeIndex` in `buffers/dedupe.py`.
#[pyclass(module = "cosco_native")]
#[derive(Default)]
pub struct DedupeIndex(pub dedupe::DedupeIndex);

#[pymethods]
impl DedupeIndex {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    #[getter]
    fn entries(&self) -> usize {
        self.0.entries()
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
        Ok(self.0.claim(attempt_of(mapper_attempt), partition, positions))
    }

    fn forget(&mut self, mapper_attempt: (u32, u64)) {
        self.0.forget(attempt_of(mapper_attempt));
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn knows(&self, mapper_attempt: (u32, u64)) -> bool {
        self.0.knows(attempt_of(mapper_attempt))
    }

    fn oldest<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(found) = self.0.oldest() else { return Ok(None) };
        twins::mapper_attempt(py)?.call1((found.mapper, found.attempt)).map(Some)
    }
}

/// An attempt as Python has it.
pub fn attempt_of((mapper, attempt): (u32, u64)) -> MapperAttempt {
    MapperAttempt { mapper, attempt }
}
