//! Calls of a client, for threads of Python that wait for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cosco_transport::client::{Begin, Link, Received, Runtime, Status, close_inherited};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList};

use crate::lent::{Lent, give_back};
use crate::ours::Ours;
use crate::tls::{TlsClient, inner};
use crate::transport::joined;

/// The main thread looks for signals so often while it waits.
const SIGNAL_TIME: Duration = Duration::from_millis(100);

/// Closes what a forked child has of its parent's connections, which are not touched.
#[pyfunction]
pub fn close_inherited_connections() {
    close_inherited();
}

/// What all connections of a process share: a thread, which begins here.
#[pyclass(name = "ClientRuntime", module = "cosco_native", frozen)]
pub struct ClientRuntime(Ours<Arc<Runtime>>);

#[pymethods]
impl ClientRuntime {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self(Ours::new(Runtime::start().map_err(refused)?)))
    }

    /// An address, which is connected to when a call wants it.
    #[pyo3(signature = (address, max_message_bytes, tls=None))]
    fn connection(
        &self,
        address: String,
        max_message_bytes: usize,
        tls: Option<&Bound<'_, TlsClient>>,
    ) -> PyResult<ClientConnection> {
        let runtime = Arc::clone(self.0.get()?);
        let link = Link::new(address, max_message_bytes, runtime);
        link.set_tls(inner(tls)).map_err(PyValueError::new_err)?;
        Ok(ClientConnection(Ours::new(link)))
    }
}

/// One address: calls share its connection, which is made anew when it is lost.
#[pyclass(name = "ClientConnection", module = "cosco_native", frozen)]
pub struct ClientConnection(Ours<Arc<Link>>);

#[pymethods]
impl ClientConnection {
    /// Begins a call of a message; without one, messages follow. RuntimeError: there can be no
    /// thread to connect, or `authorization` is no header.
    #[pyo3(signature = (method, message, is_unary, timeout_s, authorization=None))]
    fn call(
        &self,
        py: Python<'_>,
        method: &str,
        message: Option<PyBackedBytes>,
        is_unary: bool,
        timeout_s: Option<f64>,
        authorization: Option<&str>,
    ) -> PyResult<ClientCall> {
        let timeout = duration(timeout_s)?;
        give_back(py);
        let message = message.map(|message| Bytes::from_owner(Lent::new(message)));
        let link = self.0.get()?;
        let begin = Begin { method, message, is_unary, timeout, authorization };
        let number = py.detach(|| link.begin(begin)).map_err(refused)?;
        Ok(ClientCall { link: Ours::new(Arc::clone(link)), number })
    }

    /// Has connections carry TLS that are made from now on, or not.
    fn set_tls(&self, py: Python<'_>, tls: Option<&Bound<'_, TlsClient>>) -> PyResult<()> {
        let (link, tls) = (self.0.get()?, inner(tls).cloned());
        py.detach(|| link.set_tls(tls.as_ref())).map_err(PyValueError::new_err)
    }

    /// Ends all calls, and the connection.
    fn close(&self, py: Python<'_>) {
        if let Ok(link) = self.0.get() {
            py.detach(|| link.close());
            give_back(py);
        }
    }
}

/// A call; one that is dropped is cancelled.
#[pyclass(name = "ClientCall", module = "cosco_native", frozen)]
pub struct ClientCall {
    link: Ours<Arc<Link>>,
    number: u32,
}

#[pymethods]
impl ClientCall {
    /// Sends a message. Returns whether more should be sent; if not, `receive` says when.
    fn send(&self, py: Python<'_>, message: PyBackedBytes) -> PyResult<bool> {
        give_back(py);
        let (link, message) = (self.link.get()?, Bytes::from_owner(Lent::new(message)));
        Ok(py.detach(|| link.send(self.number, message)))
    }

    /// Sends nothing further.
    fn half_close(&self, py: Python<'_>) -> PyResult<()> {
        let link = self.link.get()?;
        py.detach(|| link.half_close(self.number));
        Ok(())
    }

    /// Waits for what comes: a message; None if none does in this time, or after `wake`; True if
    /// more can be sent again; False at the end, see `status`.
    #[pyo3(signature = (timeout_s=None))]
    fn receive<'py>(&self, py: Python<'py>, timeout_s: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let (link, timeout) = (self.link.get()?, duration(timeout_s)?);
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let step = if has_signals() {
                Some(left.map_or(SIGNAL_TIME, |left| left.min(SIGNAL_TIME)))
            } else {
                left
            };
            let received = py.detach(|| link.receive(self.number, step));
            give_back(py); // as what was sent before has often left by then
            return match received {
                Received::Message(parts) => Ok(joined(py, &parts)?.into_any()),
                Received::Room => Ok(true.into_pyobject(py)?.to_owned().into_any()),
                Received::Ended => Ok(false.into_pyobject(py)?.to_owned().into_any()),
                Received::Woken => Ok(py.None().into_bound(py)),
                Received::Nothing => {
                    py.check_signals()?;
                    if until.is_none_or(|until| Instant::now() < until) {
                        continue;
                    }
                    Ok(py.None().into_bound(py))
                }
            };
        }
    }

    /// Has whoever is in `receive`, or comes next, return at once.
    fn wake(&self) {
        if let Ok(link) = self.link.get() {
            link.wake(self.number);
        }
    }

    /// How it has ended: code, details, and metadata as pairs; None if it has not.
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Option<(u32, String, Bound<'py, PyList>)>> {
        let Some(Status { code, details, metadata }) = self.link.get()?.status(self.number) else {
            return Ok(None);
        };
        let pairs = metadata.iter().map(|(name, value)| (name, PyBytes::new(py, value)));
        Ok(Some((code, details, PyList::new(py, pairs.collect::<Vec<_>>())?)))
    }

    /// Ends it, unless it has ended; who waits for it is told.
    fn cancel(&self, py: Python<'_>) {
        if let Ok(link) = self.link.get() {
            py.detach(|| link.cancel(self.number));
            give_back(py);
        }
    }
}

impl Drop for ClientCall {
    fn drop(&mut self) {
        // The lock that this takes is held by nobody who waits for the interpreter's.
        if let Ok(link) = self.link.get() {
            link.forget(self.number);
        }
    }
}

fn refused(error: std::io::Error) -> PyErr {
    PyRuntimeError::new_err(error.to_string())
}

pub fn duration(seconds: Option<f64>) -> PyResult<Option<Duration>> {
    let Some(seconds) = seconds else { return Ok(None) };
    let duration = Duration::try_from_secs_f64(seconds.max(0.0));
    duration.map(Some).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// Whether this is the main thread of its process: Python handles signals there.
fn has_signals() -> bool {
    // SAFETY: both calls only return a number.
    unsafe { libc::gettid() == libc::getpid() }
}
