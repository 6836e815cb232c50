//! Rows on their way to a reader, as Python sees them.

use cosco_mechanics::section_rows;
use pyo3::prelude::*;

use crate::buffers::Bytes;

/// The rows of one section; see `SectionRows` in `buffers/section_rows.py`.
#[pyclass(module = "cosco_native")]
pub struct SectionRows(section_rows::SectionRows);

#[pymethods]
impl SectionRows {
    #[new]
    fn new() -> Self {
        Self(section_rows::SectionRows::default())
    }

    /// Takes what comes next of the section. Returns the rows that its headers name. The
    /// interpreter's lock is kept: headers alone are looked at, which takes some microseconds of
    /// what one message has.
    fn feed(&mut self, parts: Vec<Bytes>) -> u64 {
        parts.iter().map(|part| self.0.feed(part.as_slice())).sum()
    }
}
