//! The pool of pages, as Python sees it.

use cosco_mechanics::pool::{self, MAX_PAGE_BYTES, Page};
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;

use crate::one_thread::OneThread;
use crate::twins;

/// Allocates pages of an arena, for one thread; see `PagePool` in `buffers/pool.py`.
#[pyclass(module = "cosco_native")]
pub struct PagePool {
    pool: pool::PagePool,
    owner: OneThread,
}

impl PagePool {
    /// The pool. Errors: this is not its thread.
    pub fn get(&mut self) -> PyResult<&mut pool::PagePool> {
        self.owner.check()?;
        Ok(&mut self.pool)
    }
}

#[pymethods]
impl PagePool {
    #[new]
    fn new(capacity_bytes: i64) -> PyResult<Self> {
        let made = u64::try_from(capacity_bytes).ok().and_then(pool::PagePool::new);
        let text = || format!("{capacity_bytes} bytes are no multiple of {MAX_PAGE_BYTES}");
        let pool = made.ok_or_else(|| PyValueError::new_err(text()))?;
        Ok(Self { pool, owner: OneThread::this() })
    }

    #[getter]
    fn capacity_bytes(&self) -> u64 {
        self.pool.capacity_bytes()
    }

    #[getter]
    fn free_bytes(&self) -> u64 {
        self.pool.free_bytes() // any thread may look: it is one number, and the lock is held
    }

    /// Allocates pages; raises `MemoryError` if too little is free.
    fn allocate<'py>(&mut self, py: Python<'py>, length: u64) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let mut pages = Vec::new();
        self.get()?.allocate(length, &mut pages).map_err(too_little)?;
        to_python(py, &pages)
    }

    /// Gives pages back.
    fn free(&mut self, pages: Vec<(u64, u64)>) -> PyResult<()> {
        let pool = self.get()?;
        for page in from_python(pages) {
            pool.free(page);
        }
        Ok(())
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
