//! Joined rows, as Python sees them: see `cosco/client/content/byte_rows.py`.

use cosco_mechanics::rows::{
    Content, MAX_OFFSET, OFFSET_BYTES, check, write_offsets, write_values,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::buffers::Bytes;
use crate::errors::data_corrupted;
use crate::new_bytes::NewBytes;

/// A `Decoded`: a mapper, its rows, their content, and whether that begins with a table of lengths.
type Decoded = (u32, u64, Bytes, bool);

fn content_of((mapper, rows, content, has_lengths): &Decoded) -> Content<'_> {
    Content { mapper: *mapper, rows: *rows, content: content.as_slice(), has_lengths: *has_lengths }
}

/// Returns the rows of one block.
#[pyfunction]
pub fn split_rows<'py>(py: Python<'py>, decoded: Decoded) -> PyResult<Bound<'py, PyList>> {
    let content = content_of(&decoded);
    check(std::slice::from_ref(&content)).map_err(data_corrupted)?;
    PyList::new(py, content.rows().map(|row| PyBytes::new(py, row)))
}

/// Joins the rows of some blocks. Returns the offsets of an array of `binary`, and its values.
#[pyfunction]
pub fn join_rows(py: Python<'_>, decoded: Vec<Decoded>) -> PyResult<(Py<PyBytes>, Py<PyBytes>)> {
    let contents: Vec<Content<'_>> = decoded.iter().map(content_of).collect();
    let extent = py.detach(|| check(&contents)).map_err(data_corrupted)?;
    if extent.rows > MAX_OFFSET || extent.value_bytes > MAX_OFFSET {
        return Err(PyValueError::new_err(format!(
            "{} bytes of rows, one batch holds at most {MAX_OFFSET}",
            extent.value_bytes
        )));
    }
    let mut offsets = NewBytes::new(py, OFFSET_BYTES * (extent.rows as usize + 1))?;
    let mut values = NewBytes::new(py, extent.value_bytes as usize)?;
    py.detach(|| {
        write_offsets(&contents, offsets.room());
        write_values(&contents, values.room());
    });
    // SAFETY: `check` has found that there are so many rows, and so many bytes of them.
    Ok(unsafe { (offsets.into_filled(), values.into_filled()) })
}
