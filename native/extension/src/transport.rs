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

use crate::one_thread::OneThread;
use crate::tls::TlsServer;

const CALL: u8 = 0;
const MESSAGES: u8 = 1;
const LARGE: u8 = 2;
const ENDED: u8 = 3;
const BROKEN: u8 = 4;
const CANCELLED: u8 = 5;
const WRITABLE: u8 = 6;
const CLOSED: u8 = 7;

/// One connection, for one thread. Its socket stays the caller's, who waits for it and closes it.
#[pyclass(name = "ServerConnection", module = "cosco_native")]
pub struct ServerConnection {
    connection: Connection,
    owner: OneThread,
}

impl ServerConnection {
    /// The connection. Errors: this is not its thread.
    fn get(&mut self) -> PyResult<&mut Connection> {
        self.owner.check()?;
        Ok(&mut self.connection)
    }
}

#[pymethods]
impl ServerConnection {
    #[new]
    #[pyo3(signature = (descriptor, streams, window_bytes, tls=None))]
    fn new(
        descriptor: RawFd,
        streams: u32,
        window_bytes: u32,
        tls: Option<&Bound<'_, TlsServer>>,
    ) -> PyResult<Self> {
        // SAFETY: the caller's socket is open during this call, and is only duplicated.
        let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
        let socket = TcpStream::from(socket.try_clone_to_owned()?);
        let session = tls.map(|tls| tls.get().0.session()).transpose()?;
        let connection = Connection::new(socket, Limits { streams, window_bytes }, session)?;
        Ok(Self { connection, owner: OneThread::this() })
    }

    /// Writes, and reads, what can be. Returns what came, as (kind, call, what).
    fn advance<'py>(&mut self, py: Python<'py>, is_readable: bool) -> PyResult<Bound<'py, PyList>> {
        let connection = self.get()?;
        let events = py.detach(|| connection.advance(is_readable));
        let events: Vec<_> =
            events.into_iter().map(|event| as_tuple(py, event)).collect::<PyResult<_>>()?;
        PyList::new(py, events)
    }

    fn ask(&mut self, call: u32, more_bytes: usize) -> PyResult<()> {
        self.get()?.ask(call, more_bytes);
        Ok(())
    }

    fn allow(&mut self, call: u32, length: usize) -> PyResult<()> {
        self.get()?.allow(call, length);
        Ok(())
    }

    fn send(&mut self, call: u32, message: PyBackedBytes) -> PyResult<Option<usize>> {
        Ok(self.get()?.send(call, Bytes::from_owner(message)))
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
        self.get()?.finish(call, headers);
        Ok(())
    }

    fn ping(&mut self) -> PyResult<()> {
        self.get()?.ping();
        Ok(())
    }

    fn stop(&mut self) -> PyResult<()> {
        self.get()?.stop();
        Ok(())
    }

    fn close(&mut self) -> PyResult<()> {
        self.get()?.close();
        Ok(())
    }

    #[getter]
    fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    #[getter]
    fn has_unread(&self) -> bool {
        self.connection.has_unread()
    }

    #[getter]
    fn awaits_pong(&self) -> bool {
        self.connection.awaits_pong()
    }

    #[getter]
    fn received_bytes(&self) -> u64 {
        self.connection.received()
    }

    #[getter]
    fn kept_bytes(&self) -> usize {
        self.connection.kept()
    }

    fn cut(&mut self, call: u32) -> PyResult<()> {
        self.get()?.cut(call);
        Ok(())
    }

    fn keeps_most(&self) -> Option<u32> {
        self.connection.keeps_most()
    }

    #[getter]
    fn peer_names(&self) -> Vec<String> {
        self.connection.peer_names().to_vec()
    }

    #[getter]
    fn tls_failure(&self) -> &str {
        self.connection.tls_failure()
    }

    #[getter]
    fn calls(&self) -> usize {
        self.connection.calls()
    }
}

fn as_tuple<'py>(py: Python<'py>, event: Event) -> PyResult<Bound<'py, PyTuple>> {
    match event {
        Event::Call(call, method, authorization) => {
            let authorization = authorization.map(|value| PyBytes::new(py, &value));
            (CALL, call, (method, authorization)).into_pyobject(py)
        }
        Event::Messages(call, messages) => {
            let messages: Vec<_> =
                messages.iter().map(|parts| joined(py, parts)).collect::<PyResult<_>>()?;
            (MESSAGES, call, messages).into_pyobject(py)
        }
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
