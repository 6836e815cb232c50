//! New `bytes` of Python that are filled with the interpreter's lock given up.

use std::mem::MaybeUninit;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// `bytes` that nobody else has yet. Until they are handed out, whoever has this must fill them.
pub struct NewBytes {
    object: Py<PyBytes>,
    start: *mut u8,
    length: usize,
}

// SAFETY: the memory is the object's, which moves with this and is nobody else's.
unsafe impl Send for NewBytes {}

impl NewBytes {
    /// Reserves `length` bytes.
    pub fn new(py: Python<'_>, length: usize) -> PyResult<Self> {
        let most = isize::try_from(length)?;
        // SAFETY: without a source the call reserves so many bytes, which its caller is to fill, or
        // returns a null pointer with an error set.
        let object = unsafe {
            let made = pyo3::ffi::PyBytes_FromStringAndSize(std::ptr::null(), most);
            Bound::from_owned_ptr_or_err(py, made)?.cast_into_unchecked::<PyBytes>()
        };
        // SAFETY: it is an object of `bytes`.
        let start = unsafe { pyo3::ffi::PyBytes_AsString(object.as_ptr()) };
        Ok(Self { object: object.unbind(), start: start.cast::<u8>(), length })
    }

    /// The bytes, to be filled.
    pub fn room(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: the object has so many bytes at this address as long as it is there, and nobody
        // else has it, so that nobody reads or writes them meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.length) }
    }

    /// Hands the object out.
    ///
    /// # Safety
    ///
    /// All of it was filled.
    pub unsafe fn into_filled(self) -> Py<PyBytes> {
        self.object
    }
}
