//! What the ends of connections go by that carry TLS, made of PEM.

use cosco_transport::tls::{ClientTls, ServerTls};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// What a server shows, and whom it lets in.
#[pyclass(name = "TlsServer", module = "cosco_native", frozen)]
pub struct TlsServer(pub ServerTls);

#[pymethods]
impl TlsServer {
    #[new]
    #[pyo3(signature = (cert_pem, key_pem, client_ca_pem, requires_client_cert))]
    fn new(
        cert_pem: &[u8],
        key_pem: &[u8],
        client_ca_pem: Option<&[u8]>,
        requires_client_cert: bool,
    ) -> PyResult<Self> {
        ServerTls::new(cert_pem, key_pem, client_ca_pem, requires_client_cert)
            .map(Self)
            .map_err(PyValueError::new_err)
    }
}

/// Whom a client trusts, and what it shows.
#[pyclass(name = "TlsClient", module = "cosco_native", frozen)]
pub struct TlsClient(pub ClientTls);

#[pymethods]
impl TlsClient {
    #[new]
    #[pyo3(signature = (ca_pem, cert_pem, key_pem))]
    fn new(ca_pem: &[u8], cert_pem: Option<&[u8]>, key_pem: Option<&[u8]>) -> PyResult<Self> {
        let own = match (cert_pem, key_pem) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(PyValueError::new_err("a certificate and its key go together")),
        };
        ClientTls::new(ca_pem, own).map(Self).map_err(PyValueError::new_err)
    }
}

/// What there is of a client's, for the transport.
pub fn inner<'a>(tls: Option<&'a Bound<'_, TlsClient>>) -> Option<&'a ClientTls> {
    tls.map(|tls| &tls.get().0)
}
