//! Memory of Python objects, as slices.

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Contiguous memory of a Python object, of items of any type, which cannot go away or move while this is there.
pub struct Bytes(PyUntypedBuffer);

impl Bytes {
    /// The bytes. Nobody may write to them meanwhile, be it with the interpreter's lock given up.
    pub fn as_slice(&self) -> &[u8] {
        let length = self.0.len_bytes();
        if length == 0 {
            return &[]; // there may be no address
        }
        // SAFETY: the exporter keeps these bytes at this address while the buffer is held. Those
        // that callers give are `bytes`, or memory that its one owner does not write to while a
        // call is under way: messages that have come, pages that are being stored, rows.
        unsafe { std::slice::from_raw_parts(self.0.buf_ptr().cast::<u8>(), length) }
    }
}

impl<'py> FromPyObject<'_, 'py> for Bytes {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let buffer = PyUntypedBuffer::get(&object)?;
        if !buffer.is_c_contiguous() {
            return Err(PyValueError::new_err("bytes that lie apart"));
        }
        Ok(Self(buffer))
    }
}
