//! Bytes of Python's that a thread without the interpreter's lock lets go.
//!
//! pyo3 has a list of such, behind a lock that whoever takes the interpreter's lock looks into. A
//! process that is forked while a thread of its parent is in there would wait for it for ever. This
//! list has no lock: a child has what was in it, or a bit less.

use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

/// What was let go, and nobody has given back to Python yet; the last one first.
static LEFT: AtomicPtr<Left> = AtomicPtr::new(ptr::null_mut());

struct Left {
    bytes: PyBackedBytes,
    before: *mut Left,
}

/// Bytes of Python's that may be dropped by any thread. Python has them back with the next
/// `give_back`.
pub struct Lent(ManuallyDrop<PyBackedBytes>);

impl Lent {
    pub fn new(bytes: PyBackedBytes) -> Self {
        Self(ManuallyDrop::new(bytes))
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // SAFETY: it is taken once, here, and not used any more.
        let bytes = unsafe { ManuallyDrop::take(&mut self.0) };
        let left = Box::into_raw(Box::new(Left { bytes, before: ptr::null_mut() }));
        let mut last = LEFT.load(Ordering::Relaxed);
        loop {
            // SAFETY: nobody else has it before it is in the list.
            unsafe { (*left).before = last };
            // All are taken out at once, so what is the last again is the last still.
            match LEFT.compare_exchange_weak(last, left, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => last = other,
            }
        }
    }
}

/// Gives back to Python what threads have let go.
pub fn give_back(_: Python<'_>) {
    if LEFT.load(Ordering::Relaxed).is_null() {
        return;
    }
    let mut next = LEFT.swap(ptr::null_mut(), Ordering::Acquire);
    while !next.is_null() {
        // SAFETY: it was made by `Box::into_raw`, and whoever takes the list has it alone.
        let left = unsafe { Box::from_raw(next) };
        next = left.before;
        drop(left.bytes); // with the interpreter's lock: at once
    }
}
