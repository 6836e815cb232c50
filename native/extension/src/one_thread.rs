//! What one thread alone may use: what a daemon decides with.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

static THREADS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// No two threads of a process have the same one. It is read some times for every chunk, and
    /// std's own comes with a handle that is counted.
    static THREAD: u64 = THREADS.fetch_add(1, Ordering::Relaxed);
}

/// The thread that made a value. See `cosco/decision_thread.py`.
pub struct OneThread(u64);

impl OneThread {
    /// It is this one.
    pub fn this() -> Self {
        Self(THREAD.with(|number| *number))
    }

    /// Errors: this is another thread.
    pub fn check(&self) -> PyResult<()> {
        if self.0 == THREAD.with(|number| *number) {
            Ok(())
        } else {
            Err(PyRuntimeError::new_err(
                "it is of the thread that made it, and this is another one",
            ))
        }
    }
}
