//! Calls of a service, for an event loop of Python.

use std::net::TcpStream;
use std::os::fd::{BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use cosco_transport::client::{Begin, Caller, News, Status};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::client::duration;
use crate::one_thread::OneThread;
use crate::ours::Ours;
use crate::tls::{TlsClient, inner};
use crate::transport::joined;

const MESSAGE: u8 = 0;
const ROOM: u8 = 1;
const ENDED: u8 = 2;

/// One address. Sockets of its connections stay the event loop's, which waits for them and closes
/// them. The lock is never waited for: one thread uses this.
#[pyclass(name = "ServiceCaller", module = "cosco_native", frozen)]
pub struct ServiceCaller {
    caller: Ours<Mutex<Caller>>,
    owner: OneThread,
}

impl ServiceCaller {
    /// What calls. Errors: this is not its process, or not its thread.
    fn get(&self) -> PyResult<&Mutex<Caller>> {
        let caller = self.caller.get()?;
        self.owner.check()?;
        Ok(caller)
    }

    fn lock(&self) -> PyResult<MutexGuard<'_, Caller>> {
        Ok(self.get()?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[pymethods]
impl ServiceCaller {
    #[new]
    #[pyo3(signature = (address, max_message_bytes, tls=None))]
    fn new(
        address: String,
        max_message_bytes: usize,
        tls: Option<&Bound<'_, TlsClient>>,
    ) -> PyResult<Self> {
        let mut caller = Caller::new(address, max_message_bytes);
        caller.set_tls(inner(tls)).map_err(PyValueError::new_err)?;
        Ok(Self { caller: Ours::new(Mutex::new(caller)), owner: OneThread::this() })
    }

    /// Has connections carry TLS that are made from now on, or not.
    fn set_tls(&self, tls: Option<&Bound<'_, TlsClient>>) -> PyResult<()> {
        self.lock()?.set_tls(inner(tls)).map_err(PyValueError::new_err)
    }

    /// Begins a call of a message; without one, messages follow.
    #[pyo3(signature = (method, message, is_unary, timeout_s))]
    fn begin(
        &self,
        method: &str,
        message: Option<PyBackedBytes>,
        is_unary: bool,
        timeout_s: Option<f64>,
    ) -> PyResult<u32> {
        let timeout = duration(timeout_s)?;
        let message = message.map(Bytes::from_owner);
        let begin = Begin { method, message, is_unary, timeout, authorization: None };
        let begun = self.lock()?.begin(begin, Instant::now());
        begun.map_err(|error| PyValueError::new_err(error.to_string()))
    }

    fn send(&self, call: u32, message: PyBackedBytes) -> PyResult<bool> {
        Ok(self.lock()?.send(call, Bytes::from_owner(message)))
    }

    fn half_close(&self, call: u32) -> PyResult<()> {
        self.lock()?.half_close(call);
        Ok(())
    }

    fn ask(&self, call: u32) -> PyResult<()> {
        self.lock()?.ask(call);
        Ok(())
    }

    fn forget(&self, call: u32) -> PyResult<()> {
        self.lock()?.forget(call);
        Ok(())
    }

    fn close(&self) -> PyResult<()> {
        self.lock()?.close();
        Ok(())
    }

    fn wants_connection(&self) -> PyResult<bool> {
        Ok(self.lock()?.wants_connection(Instant::now()))
    }

    fn connected(&self, connection: usize, descriptor: RawFd) -> PyResult<()> {
        // SAFETY: the caller's socket is open during this call, and is only duplicated.
        let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
        let socket = TcpStream::from(socket.try_clone_to_owned()?);
        self.lock()?.connected(connection, socket, Instant::now());
        Ok(())
    }

    fn not_connected(&self, reason: &str) -> PyResult<()> {
        self.lock()?.not_connected(reason, Instant::now());
        Ok(())
    }

    fn take_gone(&self) -> PyResult<Vec<usize>> {
        Ok(self.lock()?.take_gone())
    }

    fn wants_write(&self, connection: usize) -> PyResult<bool> {
        Ok(self.lock()?.wants_write(connection))
    }

    fn has_unread(&self, connection: usize) -> PyResult<bool> {
        Ok(self.lock()?.has_unread(connection))
    }

    /// Writes, and reads, what can be. Returns what came, as (kind, call, what).
    #[pyo3(signature = (readable))]
    fn advance<'py>(
        &self,
        py: Python<'py>,
        readable: Option<usize>,
    ) -> PyResult<Bound<'py, PyList>> {
        let mutex = self.get()?;
        let advance = |caller: &mut Caller| caller.advance(readable, Instant::now());
        let ended = |caller: &mut Caller| caller.advance(None, Instant::now());
        let news = py.detach(|| {
            guarded(mutex, advance).or_else(|| guarded(mutex, ended)).unwrap_or_default()
        });
        let news: Vec<_> =
            news.into_iter().map(|one| as_tuple(py, one)).collect::<PyResult<_>>()?;
        PyList::new(py, news)
    }

    /// Looks for peers that are gone without a word. Returns whether that is to be done again.
    fn tick(&self, py: Python<'_>) -> PyResult<bool> {
        let mutex = self.get()?;
        Ok(py.detach(|| guarded(mutex, |caller| caller.tick(Instant::now())).unwrap_or(true)))
    }
}

/// Has something done. If that panics, all calls fail, as those of a thread would: they might have
/// no deadline. Returns None then.
fn guarded<T>(mutex: &Mutex<Caller>, work: impl FnOnce(&mut Caller) -> T) -> Option<T> {
    let mut caller = mutex.lock().unwrap_or_else(PoisonError::into_inner);
    let done = catch_unwind(AssertUnwindSafe(|| work(&mut caller)));
    if done.is_err() {
        caller.abandon();
    }
    done.ok()
}

fn as_tuple<'py>(py: Python<'py>, news: News) -> PyResult<Bound<'py, PyTuple>> {
    match news {
        News::Message(call, parts) => (MESSAGE, call, joined(py, &parts)?).into_pyobject(py),
        News::Room(call) => (ROOM, call, py.None()).into_pyobject(py),
        News::Ended(call, Status { code, details, metadata }) => {
            let pairs = metadata.iter().map(|(name, value)| (name, PyBytes::new(py, value)));
            let pairs = PyList::new(py, pairs.collect::<Vec<_>>())?;
            (ENDED, call, (code, details, pairs)).into_pyobject(py)
        }
    }
}
