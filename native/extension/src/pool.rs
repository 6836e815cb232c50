//! The pool of pages, as Python sees it.

use cosco_mechanics::pool::{self, MAX_PAGE_BYTES, Page};
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;

use crate::twins;

/// Allocates pages of an arena; see `PagePool` in `buffers/pool.py`.
#[pyclass(module = "cosco_native")]
pub struct PagePool(pub pool::PagePool);

#[pymethods]
impl PagePool {
    #[new]
    fn new(capacity_bytes: i64) -> PyResult<Self> {
        let made = u64::try_from(capacity_bytes).ok().and_then(pool::PagePool::new);
        let text = || format!("{capacity_bytes} bytes are no multiple of {MAX_PAGE_BYTES}");
        made.map(Self).ok_or_else(|| PyValueError::new_err(text()))
    }

    #[getter]
    fn capacity_bytes(&self) -> u64 {
        self.0.capacity_bytes()
    }

    #[getter]
    fn free_bytes(&self) -> u64 {
        self.0.free_bytes()
    }

    /// Allocates pages; raises `MemoryError` if too little is free.
    fn allocate<'py>(&mut self, py: Python<'py>, length: u64) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let mut pages = Vec::new();
        self.0.allocate(length, &mut pages).map_err(too_little)?;
        to_python(py, &pages)
    }

    /// Gives pages back.
    fn free(&mut self, pages: Vec<(u64, u64)>) {
        for page in from_python(pages) {
            self.0.free(page);
        }
    }
}

/// What Python raises where too little is free.
pub fn too_little(error: pool::TooLittle) -> PyErr {
    PyMemoryError::new_err(error.to_string())
}

/// Pages as Python has them: named tuples.
pub fn to_python<'py>(py: Python<'py>, pages: &[Page]) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let class = twins::page(py)?;
    pages.iter().map(|page| class.call1((page.offset, page.size))).collect()
}

pub fn from_python(pages: Vec<(u64, u64)>) -> impl Iterator<Item = Page> {
    pages.into_iter().map(|(offset, size)| Page { offset, size })
}
