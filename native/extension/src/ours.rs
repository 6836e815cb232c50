//! What a forked child must not touch.

use std::mem::ManuallyDrop;
use std::process;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// A value of the process that made it. A forked child has a copy of it, whose locks may be held by
/// threads that it does not have: so it neither uses nor drops that.
pub struct Ours<T> {
    process: u32,
    value: ManuallyDrop<T>,
}

impl<T> Ours<T> {
    pub fn new(value: T) -> Self {
        Self { process: process::id(), value: ManuallyDrop::new(value) }
    }

    /// The value. Errors: this is another process.
    pub fn get(&self) -> PyResult<&T> {
        if self.process == process::id() {
            Ok(&self.value)
        } else {
            Err(PyRuntimeError::new_err("it is of the process that this one was forked from"))
        }
    }
}

impl<T> Drop for Ours<T> {
    fn drop(&mut self) {
        if self.process == process::id() {
            // SAFETY: it is dropped once, here, and cannot be used any more.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}
