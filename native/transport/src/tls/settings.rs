//! What the ends of connections go by: certificates, keys, and whom they trust.

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, ConfigSide, Error, RootCertStore, ServerConfig,
    ServerConnection, WantsVerifier,
};

use super::session::Session;

/// The one protocol within TLS, by its registered name.
pub const H2: &[u8] = b"h2";

/// What a server shows, and whom it lets in.
#[derive(Clone)]
pub struct ServerTls(Arc<ServerConfig>);

impl ServerTls {
    /// Takes PEM: a chain, the certificate of this server first, its key, and the CAs of clients.
    /// Without these no client is asked for a certificate; else what one shows is checked, and
    /// `requires_client_cert` leaves those who show none. Errors: why not, for people.
    pub fn new(
        cert: &[u8],
        key: &[u8],
        client_ca: Option<&[u8]>,
        requires_client_cert: bool,
    ) -> Result<Self, String> {
        let verifier = match client_ca {
            Some(ca) => client_verifier(ca, requires_client_cert)?,
            None if requires_client_cert => {
                return Err("clients cannot be asked for certificates without their CA".into());
            }
            None => Arc::new(NoClientAuth),
        };
        let (chain, key) = identity(cert, key)?;
        let builder = versions(ServerConfig::builder_with_provider(provider()))?;
        let mut config = builder
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(of_identity)?;
        config.alpn_protocols = vec![H2.to_vec()];
        // A session that goes on is not checked again: its certificate may have expired since.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self(Arc::new(config)))
    }

    /// A new connection's.
    pub fn session(&self) -> io::Result<Session> {
        let made = ServerConnection::new(Arc::clone(&self.0));
        made.map(|server| Session::new(server.into())).map_err(io::Error::other)
    }
}

/// Whom a client trusts, and what it shows.
#[derive(Clone)]
pub struct ClientTls(Arc<ClientConfig>);

impl ClientTls {
    /// Takes PEM: the CAs of servers, and a chain with its key for servers which ask for that.
    /// Errors: why not, for people.
    pub fn new(ca: &[u8], own: Option<(&[u8], &[u8])>) -> Result<Self, String> {
        let builder = versions(ClientConfig::builder_with_provider(provider()))?
            .with_root_certificates(roots(ca)?);
        let mut config = match own {
            Some((cert, key)) => {
                let (chain, key) = identity(cert, key)?;
                builder.with_client_auth_cert(chain, key).map_err(of_identity)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![H2.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// For connections to `host:port`: a certificate that is shown there must be of that host.
    /// Errors: none can be of such a host.
    pub fn to(&self, address: &str) -> Result<TlsTo, String> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.strip_prefix('[').and_then(|v6| v6.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("no certificate can be of {host:?}"))?;
        Ok(TlsTo { config: Arc::clone(&self.0), name })
    }
}

/// What a client goes by at one address.
#[derive(Clone)]
pub struct TlsTo {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsTo {
    /// A new connection's.
    pub fn session(&self) -> io::Result<Session> {
        let made = ClientConnection::new(Arc::clone(&self.config), self.name.clone());
        made.map(|client| Session::new(client.into())).map_err(io::Error::other)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn versions<Side: ConfigSide>(
    builder: ConfigBuilder<Side, rustls::WantsVersions>,
) -> Result<ConfigBuilder<Side, WantsVerifier>, String> {
    builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())
}

fn client_verifier(ca: &[u8], is_required: bool) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider());
    let builder = if is_required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| error.to_string())
}

fn roots(ca: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca, "the CA")? {
        roots
            .add(certificate)
            .map_err(|error| format!("a certificate of the CA cannot be read: {error}"))?;
    }
    Ok(roots)
}

fn identity(
    cert: &[u8],
    key: &[u8],
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let chain = certificates(cert, "the certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            "the key: there is no private key in this PEM, or it is encrypted".to_owned()
        }
        other => format!("the key is no PEM: {other}"),
    })?;
    Ok((chain, key))
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("{what} is no PEM: {error}"))?;
    if found.is_empty() {
        Err(format!("{what}: there is no certificate in this PEM"))
    } else {
        Ok(found)
    }
}

fn of_identity(error: Error) -> String {
    match error {
        Error::InconsistentKeys(_) => "the key is not that of the certificate".into(),
        other => format!("the certificate or its key cannot be used: {other}"),
    }
}
