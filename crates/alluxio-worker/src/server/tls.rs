//! What the server shows of itself when it speaks TLS; renewed files count for the connections that
//! are made then.

use std::io;
use std::sync::Arc;

use alluxio_client::worker::reloaded::{Reloaded, read_file};
use alluxio_client::worker::security::certificates;
use alluxio_config::WorkerTlsConfig;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A TLS server's side; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    config: Reloaded<ServerConfig>,
}

impl Tls {
    /// Reads the files.
    pub(crate) fn load(config: &WorkerTlsConfig) -> io::Result<Self> {
        let files = vec![config.cert_file.clone(), config.key_file.clone()];
        let config = config.clone();
        let read = move || server_config(&config);
        Ok(Self {
            config: Reloaded::new(files, read)?,
        })
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = self.config.current().await;
        TlsAcceptor::from(config).accept(stream).await
    }
}

fn server_config(config: &WorkerTlsConfig) -> io::Result<ServerConfig> {
    let chain = certificates(&config.cert_file)?;
    // The parser's own words may repeat what the file holds.
    let key = PrivateKeyDer::from_pem_slice(&read_file(&config.key_file)?).map_err(|_| {
        let file = config.key_file.display();
        io::Error::other(format!("{file} holds no private key in PEM"))
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| {
            let (certificate, key) = (config.cert_file.display(), config.key_file.display());
            io::Error::other(format!("{certificate} and {key} cannot be used: {error}"))
        })?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(server)
}
