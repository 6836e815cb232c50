//! Memory of Python objects, as slices.

use pyo3::buffer::{PyBuffer, PyUntypedBuffer};
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::prelude::*;

/// Work on fewer bytes than these is done with the interpreter's lock held: to get it back may
/// take longer than the work, where other threads want it as well.
const LONG_BYTES: usize = 32 << 10;

/// Contiguous memory of a Python object, of items of any type, which cannot go away or move while
/// this is there.
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

/// The memory that a pool shares out, to be written to. It is borrowed for one call, never kept.
pub struct Arena(PyBuffer<u8>);

impl Arena {
    /// Copies `data` to `offset`; panics where that is beyond the end.
    pub fn put(&self, offset: u64, data: &[u8]) {
        let start = self.checked(offset, data.len() as u64);
        // SAFETY: the exporter keeps this memory at this address while the buffer is held, it is
        // writable, and what is written lies in it. It is in pages that the pool gave to one owner
        // alone, behind all that this owner has told others to be there: so nobody reads or writes
        // it meanwhile, and `data`, which is no part of such pages, does not overlap.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), start, data.len()) }
    }

    /// Puts zeros to `offset`; panics where that is beyond the end.
    pub fn put_zeros(&self, offset: u64, length: u64) {
        let start = self.checked(offset, length);
        // SAFETY: as for `put`.
        unsafe { std::ptr::write_bytes(start, 0, length as usize) }
    }

    fn checked(&self, offset: u64, length: u64) -> *mut u8 {
        let end = offset.checked_add(length).expect("an offset of the arena");
        assert!(end <= self.0.len_bytes() as u64, "byte {end} is beyond the arena");
        self.0.buf_ptr().cast::<u8>().wrapping_add(offset as usize)
    }
}

impl<'py> FromPyObject<'_, 'py> for Arena {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let buffer = contiguous(object)?;
        if buffer.readonly() {
            return Err(PyBufferError::new_err("an arena that cannot be written to"));
        }
        Ok(Self(buffer))
    }
}

fn contiguous(object: Borrowed<'_, '_, PyAny>) -> PyResult<PyBuffer<u8>> {
    let buffer = PyBuffer::<u8>::get(&object)?;
    if !buffer.is_c_contiguous() {
        return Err(PyValueError::new_err("bytes that lie apart"));
    }
    Ok(buffer)
}

/// Does what works on so many bytes: with the interpreter's lock given up if it may take long.
pub fn work<T: Send>(py: Python<'_>, bytes: usize, call: impl FnOnce() -> T + Send) -> T {
    if bytes < LONG_BYTES { call() } else { py.detach(call) }
}
