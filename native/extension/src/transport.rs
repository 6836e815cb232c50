//! Connections of a gRPC server, for an event loop of Python.

use std::net::TcpStream;
use std::os::fd::{BorrowedFd, RawFd};

use bytes::Bytes;
use cosco_transport::{Connection, Event, Limits};
use http::{HeaderMap, HeaderName, HeaderValue};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList, PyTuple};

const CALL: u8 = 0;
const MESSAGE: u8 = 1;
const LARGE: u8 = 2;
const ENDED: u8 = 3;
const BROKEN: u8 = 4;
const CANCELLED: u8 = 5;
const WRITABLE: u8 = 6;
const CLOSED: u8 = 7;

/// One connection. Its socket stays the caller's, who waits for it and closes it.
#[pyclass(name = "ServerConnection", module = "cosco_native")]
pub struct ServerConnection(Connection);

#[pymethods]
impl ServerConnection {
    #[new]
    fn new(descriptor: RawFd, streams: u32, window_bytes: u32) -> PyResult<Self> {
        // SAFETY: the caller's socket is open during this call, and is only duplicated.
        let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
        let socket = TcpStream::from(socket.try_clone_to_owned()?);
        Ok(Self(Connection::new(socket, Limits { streams, window_bytes })?))
    }

    /// Writes, and reads, what can be. Returns what came, as (kind, call, what).
    fn advance<'py>(&mut self, py: Python<'py>, is_readable: bool) -> PyResult<Bound<'py, PyList>> {
        let connection = &mut self.0;
        let events = py.detach(|| connection.advance(is_readable));
        let events: Vec<_> =
            events.into_iter().map(|event| as_tuple(py, event)).collect::<PyResult<_>>()?;
        PyList::new(py, events)
    }

    fn ask(&mut self, call: u32) {
        self.0.ask(call);
    }

    fn allow(&mut self, call: u32, length: usize) {
        self.0.allow(call, length);
    }

    fn send(&mut self, call: u32, message: PyBackedBytes) -> Option<usize> {
        self.0.send(call, Bytes::from_owner(message))
    }

    fn finish(&mut self, call: u32, trailers: Vec<(String, PyBackedBytes)>) -> PyResult<()> {
        let mut headers = HeaderMap::with_capacity(trailers.len());
        for (name, value) in trailers {
            let name = HeaderName::from_bytes(name.as_bytes());
            let value = HeaderValue::from_bytes(&value);
            match (name, value) {
                (Ok(name), Ok(value)) => headers.append(name, value),
                _ => return Err(PyValueError::new_err("trailers that HTTP does not take")),
            };
        }
        self.0.finish(call, headers);
        Ok(())
    }

    fn reset(&mut self, call: u32) {
        self.0.reset(call);
    }

    fn ping(&mut self) {
        self.0.ping();
    }

    fn stop(&mut self) {
        self.0.stop();
    }

    fn close(&mut self) {
        self.0.close();
    }

    #[getter]
    fn wants_write(&self) -> bool {
        self.0.wants_write()
    }

    #[getter]
    fn has_unread(&self) -> bool {
        self.0.has_unread()
    }

    #[getter]
    fn awaits_pong(&self) -> bool {
        self.0.awaits_pong()
    }

    #[getter]
    fn received_bytes(&self) -> u64 {
        self.0.received()
    }

    #[getter]
    fn calls(&self) -> usize {
        self.0.calls()
    }
}

fn as_tuple<'py>(py: Python<'py>, event: Event) -> PyResult<Bound<'py, PyTuple>> {
    match event {
        Event::Call(call, method) => (CALL, call, method).into_pyobject(py),
        Event::Message(call, parts) => (MESSAGE, call, joined(py, &parts)?).into_pyobject(py),
        Event::Large(call, length) => (LARGE, call, length).into_pyobject(py),
        Event::Ended(call) => (ENDED, call, py.None()).into_pyobject(py),
        Event::Broken(call, reason) => (BROKEN, call, reason).into_pyobject(py),
        Event::Cancelled(call) => (CANCELLED, call, py.None()).into_pyobject(py),
        Event::Writable(call) => (WRITABLE, call, py.None()).into_pyobject(py),
        Event::Closed(reason) => (CLOSED, 0, reason).into_pyobject(py),
    }
}

/// A message, as Python has it.
pub fn joined<'py>(py: Python<'py>, parts: &[Bytes]) -> PyResult<Bound<'py, PyBytes>> {
    if let [only] = parts {
        return Ok(PyBytes::new(py, only));
    }
    let length = parts.iter().map(Bytes::len).sum();
    PyBytes::new_with(py, length, |mut rest| {
        for part in parts {
            let (begin, end) = rest.split_at_mut(part.len());
            begin.copy_from_slice(part);
            rest = end;
        }
        Ok(())
    })
}
