//! TLS towards etcd: whom this client trusts and what it shows, read from PEM files, and what a
//! failed handshake means to the person who has to repair it.
//!
//! The files are read at each [`crate::EtcdClient::connect`]; a caller that connects anew after a
//! failure takes renewed certificates up without a restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error as TlsError, RootCertStore};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{ClientTlsConfig, Endpoint, Identity};

use crate::DIAL_TIMEOUT;
use crate::error::EtcdError;

/// The longest file that is read: a bundle of all public authorities has 250 KB.
const MAX_PEM_BYTES: u64 = 4 * 1024 * 1024;

/// Whom an `https` endpoint is checked against, and what is shown to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EtcdTls {
    /// PEM file of the authorities that are trusted; the public ones where it is left out.
    pub ca_file: Option<PathBuf>,
    /// PEM files of the client's certificate chain and of its key.
    pub client_files: Option<(PathBuf, PathBuf)>,
    /// The name in etcd's certificate, where it is not the endpoint's host.
    pub server_name: Option<String>,
}

/// What the files hold, ready for endpoints.
#[derive(Debug, Clone)]
pub(crate) struct LoadedTls {
    config: ClientTlsConfig,
    /// The same, for a handshake without a request.
    probe: Arc<ClientConfig>,
    server_name: Option<String>,
}

impl EtcdTls {
    /// Reads the files.
    pub(crate) async fn load(&self) -> Result<LoadedTls, EtcdError> {
        let roots = self.roots().await?;
        let mut config = ClientTlsConfig::new()
            .timeout(DIAL_TIMEOUT)
            .trust_anchors(roots.roots.iter().cloned());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let probe = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| EtcdError::tls(String::new(), &error))?
            .with_root_certificates(roots);
        let probe = match &self.client_files {
            None => probe.with_no_client_auth(),
            Some((certificate, key)) => {
                let (chain, secret) = (read(certificate).await?, read(key).await?);
                config = config.identity(Identity::from_pem(&chain, &secret));
                let chain = certificates(certificate, &chain)?;
                let secret = private_key(key, &secret)?;
                let mismatch = |error: TlsError| EtcdError::ClientCertificate {
                    certificate: certificate.display().to_string(),
                    key: key.display().to_string(),
                    message: error.to_string(),
                };
                probe
                    .with_client_auth_cert(chain, secret)
                    .map_err(mismatch)?
            }
        };
        if let Some(name) = &self.server_name {
            server_name(name)?;
            config = config.domain_name(name);
        }
        Ok(LoadedTls {
            config,
            probe: Arc::new(probe),
            server_name: self.server_name.clone(),
        })
    }

    async fn roots(&self) -> Result<RootCertStore, EtcdError> {
        let mut roots = RootCertStore::empty();
        if let Some(file) = &self.ca_file {
            for certificate in certificates(file, &read(file).await?)? {
                roots
                    .add(certificate)
                    .map_err(|error| EtcdError::file(file, error.to_string()))?;
            }
        } else {
            let public = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned();
            roots.add_parsable_certificates(public);
        }
        Ok(roots)
    }
}

impl LoadedTls {
    /// Makes an endpoint speak TLS.
    pub(crate) fn apply(&self, endpoint: Endpoint) -> Result<Endpoint, EtcdError> {
        let uri = endpoint.uri().to_string();
        endpoint
            .tls_config(self.config.clone())
            .map_err(|_| EtcdError::BadEndpoint(uri))
    }

    /// What is wrong with the handshake, if anything. A server that refuses the client's
    /// certificate says so only after the handshake, where the HTTP/2 client sees no more than an
    /// end of the connection; so it is asked once more by itself.
    pub(crate) async fn diagnose(&self, host: &str, port: u16) -> Option<TlsError> {
        let host = host.trim_matches(['[', ']']);
        let name = server_name(self.server_name.as_deref().unwrap_or(host)).ok()?;
        let handshake = async {
            let stream = TcpStream::connect((host, port)).await?;
            let connector = TlsConnector::from(Arc::clone(&self.probe));
            let mut stream = connector.connect(name, stream).await?;
            stream.read_u8().await
        };
        let failed = timeout(DIAL_TIMEOUT, handshake).await.ok()?.err()?;
        below(&failed).cloned()
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, EtcdError> {
    let parsed = ServerName::try_from(name.to_owned());
    parsed.map_err(|_| EtcdError::BadServerName(name.to_owned()))
}

fn private_key(file: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, EtcdError> {
    // The parser's own words may repeat what the file holds.
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| EtcdError::file(file, "it holds no private key".to_owned()))
}

/// The certificates of a PEM file, at least one.
fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, EtcdError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(EtcdError::file(file, "it holds no certificate".to_owned())),
        Err(error) => Err(EtcdError::file(file, error.to_string())),
    }
}

async fn read(file: &Path) -> Result<Vec<u8>, EtcdError> {
    let failed = |error: std::io::Error| EtcdError::file(file, error.to_string());
    let length = tokio::fs::metadata(file).await.map_err(failed)?.len();
    if length > MAX_PEM_BYTES {
        let reason = format!("its {length} bytes are more than the {MAX_PEM_BYTES} of a PEM file");
        return Err(EtcdError::file(file, reason));
    }
    tokio::fs::read(file).await.map_err(failed)
}

/// What to do about a handshake that failed so.
pub(crate) fn remedy(error: &TlsError) -> &'static str {
    use CertificateError as Bad;
    match error {
        TlsError::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            "name the authority that signed etcd's certificate in tls.ca_file"
        }
        TlsError::InvalidCertificate(
            Bad::Expired
            | Bad::ExpiredContext { .. }
            | Bad::NotValidYet
            | Bad::NotValidYetContext { .. },
        ) => "renew etcd's certificate, or set this machine's clock",
        TlsError::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "write the endpoint's host as the certificate has it, or set tls.server_name"
        }
        TlsError::InvalidCertificate(_) => "give etcd a certificate that is valid for a server",
        TlsError::AlertReceived(alert) if is_about_certificates(*alert) => {
            "etcd wants a client certificate that its --trusted-ca-file signed and that is still \
             valid: set tls.cert_file and tls.key_file"
        }
        TlsError::InvalidMessage(_) => {
            "whoever listens there speaks no TLS: write http:// if it is etcd"
        }
        _ => "check the certificates of both sides",
    }
}

fn is_about_certificates(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::HandshakeFailure
    )
}

/// The TLS error below another one, if there is one.
pub(crate) fn below<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a TlsError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<TlsError>() {
            return Some(found);
        }
        next = match error.downcast_ref::<std::io::Error>() {
            // What an io::Error carries is not among its sources.
            Some(io) => io
                .get_ref()
                .map(|inner| inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    None
}
