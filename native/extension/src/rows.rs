//! Joined rows, as Python sees them: see `cosco/client/content/byte_rows.py`.

use cosco_mechanics::rows::{
    Content, MAX_OFFSET, OFFSET_BYTES, check, write_offsets, write_values,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffers::Bytes;
use crate::errors::data_corrupted;
use crate::new_bytes::NewBytes;

/// Joins the rows of some blocks, each given by its mapper, its rows, its content, and whether that
/// begins with a table of lengths. Returns the offsets of an array of `binary`, and its values.
#[pyfunction]
pub fn join_rows(
    py: Python<'_>,
    decoded: Vec<(u32, u64, Bytes, bool)>,
) -> PyResult<(Py<PyBytes>, Py<PyBytes>)> {
    let contents: Vec<Content<'_>> = decoded
        .iter()
        .map(|(mapper, rows, content, has_lengths)| Content {
            mapper: *mapper,
            rows: *rows,
            content: content.as_slice(),
            has_lengths: *has_lengths,
        })
        .collect();
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
