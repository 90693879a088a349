//! How workers are spoken to: with TLS or without, and with which token.
//!
//! One [`Security`] serves all workers of a cluster, and the workers among themselves. Without TLS a
//! connection is the socket itself.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use alluxio_config::{WorkerSecurity, WorkersTlsConfig};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::reloaded::{Reloaded, read_file, read_token};
use crate::error::{Error, ErrorKind, Result};

/// How workers are spoken to; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Security {
    tls: Option<Tls>,
    token: Option<Reloaded<String>>,
}

#[derive(Debug, Clone)]
struct Tls {
    config: Reloaded<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

/// A connection to a worker.
#[derive(Debug)]
pub enum Stream {
    /// The socket.
    Plain(TcpStream),
    /// TLS over it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Security {
    /// Reads the files that a configuration names.
    pub fn load(config: &WorkerSecurity) -> Result<Self> {
        let failed = |field: &str, error: io::Error| {
            let context = format!("{error}; check {field}");
            Error::new(ErrorKind::InvalidInput, "connect", context).with_source(error)
        };
        let tls = config.tls.as_ref().map(Tls::load).transpose();
        let token = config.token_file.clone().map(|file| {
            let read = file.clone();
            Reloaded::new(vec![file], move || read_token(&read))
        });
        Ok(Self {
            tls: tls.map_err(|error| failed("cluster.workers.tls", error))?,
            token: token
                .transpose()
                .map_err(|error| failed("cluster.workers.token_file", error))?,
        })
    }

    /// Connects to a worker; `address` is `host:port`.
    pub async fn connect(&self, address: &str) -> io::Result<Stream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Stream::Plain(stream));
        };
        let name = match &tls.server_name {
            Some(name) => name.clone(),
            None => server_name(host(address))?,
        };
        let config = tls.config.current().await;
        let connector = TlsConnector::from(config);
        let stream = connector.connect(name, stream).await?;
        Ok(Stream::Tls(Box::new(stream)))
    }

    /// The value of the header `authorization`, where a token is shown.
    pub async fn authorization(&self) -> Option<String> {
        let token = self.token.as_ref()?.current().await;
        Some(format!("Bearer {token}"))
    }
}

impl Tls {
    fn load(config: &WorkersTlsConfig) -> io::Result<Self> {
        let files = config.ca_file.iter().cloned().collect();
        let authorities = config.ca_file.clone();
        let read = move || client_config(authorities.as_deref());
        let name = config.server_name.as_deref();
        Ok(Self {
            config: Reloaded::new(files, read)?,
            server_name: name.map(server_name).transpose()?,
        })
    }
}

fn client_config(authorities: Option<&Path>) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match authorities {
        None => {
            let public = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned();
            roots.add_parsable_certificates(public);
        }
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(io::Error::other)?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The certificates of a PEM file, at least one.
pub fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let pem = read_file(file)?;
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(io::Error::other(format!(
            "{} holds no certificate in PEM",
            file.display()
        ))),
    }
}

fn server_name(name: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| io::Error::other(format!("`{name}` is no name that a certificate could have")))
}

fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_matches(['[', ']'])
}

impl Stream {
    /// Whether nothing came that was not asked for.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        match self {
            Self::Plain(stream) => {
                let read = stream.try_read(&mut byte);
                matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Self::Tls(stream) => {
                let mut context = Context::from_waker(Waker::noop());
                let mut buffer = ReadBuf::new(&mut byte);
                Pin::new(stream)
                    .poll_read(&mut context, &mut buffer)
                    .is_pending()
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_address_is_what_a_certificate_names() {
        assert_eq!(host("worker-0.w:28080"), "worker-0.w");
        assert_eq!(host("[fd00::1]:28080"), "fd00::1");
        assert!(server_name("fd00::1").is_ok() && server_name("a b").is_err());
    }
}
